"""Traditional characters to simplified ones."""

import functools
import re

from cngpt.corpus.clean.characters import lone_surrogates
from cngpt.corpus.clean.rules import Count, RuleWithThresholds
from cngpt.settings import Field

_HAN = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00))


class Traditional(RuleWithThresholds, name="traditional"):
    """Converts a text by phrases (OpenCC's t2s: 頭髮 and 發展, 乾燥 and 乾坤) where it holds `min` traditional characters or more.

    Asking first is 20 times as fast as converting, and leaves 乾隆 and 著作 of simplified texts alone.
    """

    min: Count = Field(1, description="traditional characters from which a text is converted")

    def __call__(self, text: str) -> str:
        matches = _traditional_only().finditer(text)
        for _ in range(max(1, self.min)):
            if next(matches, None) is None:
                return text
        return _converter().convert(lone_surrogates(text))


@functools.cache
def _converter():
    import opencc

    return opencc.OpenCC("t2s")


@functools.cache
def _traditional_only() -> re.Pattern:
    """Characters that OpenCC changes and that simplified text does not use (GB2312 has 乾, 著, 於 as simplified ones too)."""
    every = [chr(c) for first, end in _HAN for c in range(first, end)]
    simplified = _converter().convert("\n".join(every)).split("\n")
    changed = [a for a, b in zip(every, simplified, strict=True) if a != b]
    # GB2312 has 後, and no text uses it
    return re.compile("[" + "".join(c for c in changed if c == "後" or not c.encode("gb2312", "ignore")) + "]")
