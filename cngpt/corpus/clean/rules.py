"""What a rule is: text in, a text or the reason why the document goes out. Pure, and able to travel to other processes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated


@dataclass(frozen=True)
class Drop:
    """Instead of a text: this document is not kept."""

    reason: str


Rule = Callable[[str], str | Drop]

Share = Annotated[float, "share"]  # a threshold from 0 to 1


def name_of(rule: Rule) -> str:
    """The rule's key in conf/clean; a user's own rule has the name of its function."""
    return getattr(rule, "name", None) or getattr(rule, "__name__", type(rule).__name__)
