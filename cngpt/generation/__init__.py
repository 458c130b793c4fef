"""A model and a prompt to text. `Sampling` is imported at once; `Engine` and `Story`, which need torch, when they are first used."""

from typing import TYPE_CHECKING

from cngpt.generation.settings import Sampling, saved_defaults

if TYPE_CHECKING:
    from cngpt.generation.engine import Engine, Story

__all__ = ["Engine", "Sampling", "Story", "saved_defaults"]


def __getattr__(name: str):
    if name not in ("Engine", "Story"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cngpt.generation import engine

    return getattr(engine, name)
