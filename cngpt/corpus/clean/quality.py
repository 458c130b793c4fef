"""What a whole text is worth: length, language, repetition, words that somebody does not want."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from cngpt.corpus.clean.rules import Drop, Share
from cngpt.corpus.clean.words import any_of
from cngpt.errors import ConfigError

_CHINESE = re.compile("[\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0003ffff]+")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True)
class Chinese:
    """Drops documents with a smaller share than `min` of Chinese characters among their letters."""

    name = "chinese"
    min: Share = 0.5

    def __call__(self, text: str) -> str | Drop:
        chinese = sum(map(len, _CHINESE.findall(text)))
        if chinese >= self.min * len(text) or chinese >= self.min * len(_LETTER.findall(text)):
            return text
        return Drop(f"less than {self.min:.0%} Chinese")


PHRASE = 10  # characters
PROBES = 8  # phrases that are looked for before all are counted


@dataclass(frozen=True)
class Repetition:
    """Drops documents that say the same again and again.

    max: share of the characters that lie in phrases of 10 characters which came before. lines: share of the characters that lie
    in lines which came before. min_chars: shorter texts may: a note whose title is its first sentence. After Gopher's repetition rules (Rae et al. 2021, table A1), with characters in place of words.
    """

    name = "repetition"
    max: Share = 0.6
    lines: Share = 0.3
    min_chars: int = 500

    def __call__(self, text: str) -> str | Drop:
        if len(text) < self.min_chars:
            return text
        lines = text.split("\n")
        if len(set(lines)) < len(lines) and repeated_lines(lines) > self.lines * len(text):
            return Drop("the same lines over and over")
        if self.may_repeat(text) and repeats_phrases(text, self.max * len(text)):
            return Drop("the same phrases over and over")
        return text

    def may_repeat(self, text: str) -> bool:
        """Whether one of a few phrases, spread over the text, comes twice: of text above the limit nearly always."""
        step = (len(text) - PHRASE) // PROBES
        return step > 0 and any(text.find(text[at : at + PHRASE], at + 1) >= 0 for at in range(0, step * PROBES, step))


def repeated_lines(lines: list[str]) -> int:
    """Characters in lines that came before."""
    return sum(len(line) * (count - 1) for line, count in Counter(lines).items())


def repeats_phrases(text: str, limit: float) -> bool:
    """Whether more characters than `limit` are covered by phrases that came before, without overlap; looks no further than it must."""
    seen: set[str] = set()
    covered = last = 0
    for at in range(len(text) - PHRASE + 1):
        phrase = text[at : at + PHRASE]
        if phrase in seen:
            covered += at + PHRASE - max(at, last)
            last = at + PHRASE
            if covered > limit:
                return True
        else:
            seen.add(phrase)
            if covered + len(text) - at - 1 <= limit:  # even if all that follows were repeated
                return False
    return False


@dataclass(frozen=True)
class FlaggedWords:
    """Drops documents in which the words of a list (a file, one a line) come more than `max` times and make up more than `share`
    of the characters."""

    name = "flagged_words"
    file: str = field(repr=False)
    max: int = 3
    share: Share = 0.002
    words: tuple[str, ...] = field(default=(), init=False)
    pattern: re.Pattern | None = field(default=None, init=False, repr=False)

    def __post_init__(self):
        try:
            lines = Path(self.file).expanduser().read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
            raise ConfigError(f"{self.file} cannot be read: {reason}") from None
        words = tuple(sorted({word for line in lines if (word := line.strip())}))
        if not words:
            raise ConfigError(f"{self.file} holds no word; one a line")
        object.__setattr__(self, "words", words)
        object.__setattr__(self, "pattern", re.compile(any_of(words)))

    def __call__(self, text: str) -> str | Drop:
        found = self.pattern.findall(text)
        return Drop("flagged words") if len(found) > self.max and sum(map(len, found)) > self.share * len(text) else text


@dataclass(frozen=True)
class MinChars:
    """Drops documents of fewer characters; always those of none."""

    name = "min_chars"
    characters: int = 20

    def __call__(self, text: str) -> str | Drop:
        limit = max(1, self.characters)
        return text if len(text) >= limit else Drop(f"shorter than {limit} characters")


@dataclass(frozen=True)
class MaxChars:
    """Drops documents of more characters."""

    name = "max_chars"
    characters: int = 1_000_000

    def __call__(self, text: str) -> str | Drop:
        return text if len(text) <= self.characters else Drop(f"longer than {self.characters:,} characters")
