"""What a whole text is worth: length, language, repetition, words that somebody does not want."""

import re
from collections import Counter
from pathlib import Path

from pydantic import PrivateAttr

from cngpt.corpus.clean.rules import Count, Drop, RuleWithThresholds, Share, any_of
from cngpt.errors import ConfigError
from cngpt.settings import Field

_CHINESE = re.compile("[\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0003ffff]+")
_LETTER = re.compile(r"[^\W\d_]")


class Chinese(RuleWithThresholds, name="chinese"):
    """Drops documents with a smaller share than `min` of Chinese characters among their letters."""

    min: Share = Field(0.5, description="share of Chinese characters among the letters")

    def __call__(self, text: str) -> str | Drop:
        chinese = sum(map(len, _CHINESE.findall(text)))
        if chinese >= self.min * len(text) or chinese >= self.min * len(_LETTER.findall(text)):
            return text
        return Drop(f"less than {self.min:.0%} Chinese")


PHRASE = 10  # characters
PROBES = 8  # phrases that are looked for before all are counted


class Repetition(RuleWithThresholds, name="repetition"):
    """Drops documents that say the same again and again.

    After Gopher's repetition rules (Rae et al. 2021, table A1), with characters in place of words. Short texts may repeat: a note
    whose title is its first sentence.
    """

    max: Share = Field(0.6, description="share of the characters that lie in phrases of 10 characters which came before")
    lines: Share = Field(0.3, description="share of the characters that lie in lines which came before")
    min_chars: Count = Field(500, description="shorter texts may repeat")

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


class FlaggedWords(RuleWithThresholds, name="flagged_words"):
    """Drops documents in which the words of a list come more than `max` times and make up more than `share` of the characters."""

    file: str = Field(description="a file with one word a line", repr=False)
    max: Count = Field(3, description="times that the words may come")
    share: Share = Field(0.002, description="share of the characters that the words may be")
    _words: tuple[str, ...] = PrivateAttr()
    _pattern: re.Pattern = PrivateAttr()

    def model_post_init(self, context) -> None:
        try:
            lines = Path(self.file).expanduser().read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            why = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror
            raise ConfigError(f"clean.flagged_words.file={self.file}: cannot be read: {why}") from None
        self._words = tuple(sorted({word for line in lines if (word := line.strip())}))
        if not self._words:
            raise ConfigError(f"clean.flagged_words.file={self.file}: holds no word; one a line")
        self._pattern = re.compile(any_of(self._words))

    def __repr_args__(self):
        """With the words instead of the name of their file: the fingerprint is of what decides."""
        yield from super().__repr_args__()
        yield "words", self._words

    def __call__(self, text: str) -> str | Drop:
        words = self._pattern.findall(text)
        return Drop("flagged words") if len(words) > self.max and sum(map(len, words)) > self.share * len(text) else text


class MinChars(RuleWithThresholds, name="min_chars"):
    """Drops documents of fewer characters; always those of none."""

    characters: Count = Field(20, description="shorter documents go")

    def __call__(self, text: str) -> str | Drop:
        limit = max(1, self.characters)
        return text if len(text) >= limit else Drop(f"shorter than {limit} characters")


class MaxChars(RuleWithThresholds, name="max_chars"):
    """Drops documents of more characters."""

    characters: Count = Field(1_000_000, description="longer documents go")

    def __call__(self, text: str) -> str | Drop:
        return text if len(text) <= self.characters else Drop(f"longer than {self.characters:,} characters")
