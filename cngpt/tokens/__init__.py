"""Text to ids, ids to shards, shards in a reproducible order."""

from cngpt.tokens.load import load_tokenizer
from cngpt.tokens.tokenizer import Tokenizer

__all__ = ["Tokenizer", "load_tokenizer"]
