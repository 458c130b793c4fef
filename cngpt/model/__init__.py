"""Token ids to logits: the GPT-2 block stack and its cache."""

from cngpt.model.cache import Cache, FixedCache
from cngpt.model.gpt import GPT, Shape

__all__ = ["GPT", "Cache", "FixedCache", "Shape"]
