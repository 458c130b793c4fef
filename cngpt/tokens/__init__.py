"""Text to ids, ids to shards, shards in a reproducible order. Settings are imported without numpy, the names below when first used."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cngpt.tokens.load import load_tokenizer
    from cngpt.tokens.tokenizer import Tokenizer

__all__ = ["Tokenizer", "load_tokenizer"]

_MODULES = {"Tokenizer": "cngpt.tokens.tokenizer", "load_tokenizer": "cngpt.tokens.load"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(_MODULES[name]), name)
