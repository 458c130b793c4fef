"""What a rule is: text in, a text or the reason why the document goes out. Pure, and able to travel to other processes."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Le
from pydantic import WrapValidator

from cngpt.settings import Settings


@dataclass(frozen=True)
class Drop:
    """Instead of a text: this document is not kept."""

    reason: str


Rule = Callable[[str], str | Drop]

# 0 stays 0 and does not become 0.0: fingerprints hash thresholds as they are written
AS_WRITTEN = WrapValidator(lambda value, check: (check(value), value)[1])
Share = Annotated[float, Ge(0), Le(1), AS_WRITTEN]
Count = Annotated[int, Ge(0)]


class RuleWithThresholds(Settings):
    """A rule whose fields are its thresholds, the keys of clean.<name>; the first is the one that clean.<name>=0.3 sets."""

    name: ClassVar[str]

    def __init_subclass__(cls, name: str, **options):
        cls.name = name
        super().__init_subclass__(group=f"clean.{name}", **options)

    def __call__(self, text: str) -> str | Drop:
        raise NotImplementedError


def any_of(words: Iterable[str]) -> str:
    """A pattern for any of the words, the longest that fits. Sorted by first character, few are tried at each place: 1 to 4 ms a MB,
    where a set of `in` costs 0.3 ms a word. (Ignoring case would undo that: re looks for first characters only without it.)"""
    by_first: dict[str, list[str]] = {}
    for word in dict.fromkeys(words):
        by_first.setdefault(word[0], []).append(word[1:])
    parts = []
    for first, rests in sorted(by_first.items()):
        rests.sort(key=lambda rest: (-len(rest), rest))
        tail = "|".join(map(re.escape, rests))
        parts.append(re.escape(first) + (f"(?:{tail})" if len(rests) > 1 else tail))
    return "|".join(parts)


def name_of(rule: Rule) -> str:
    """The rule's key in conf/clean; a user's own rule has the name of its function."""
    return getattr(rule, "name", None) or getattr(rule, "__name__", type(rule).__name__)
