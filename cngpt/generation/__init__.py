"""A model and a prompt to text."""

from cngpt.generation.engine import Engine, Story
from cngpt.generation.sampling import Sampling

__all__ = ["Engine", "Sampling", "Story"]
