"""Traditional characters to simplified ones."""

import functools
import re
from dataclasses import dataclass

from cngpt.corpus.clean.characters import lone_surrogates

_HAN = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0xF900, 0xFB00))


@dataclass(frozen=True)
class Traditional:
    """Converts a text by phrases (OpenCC's t2s: 頭髮 and 發展, 乾燥 and 乾坤) where it holds `min` traditional characters or more.

    Asking first is 20 times as fast as converting, and leaves 乾隆 and 著作 of simplified texts alone.
    """

    name = "traditional"
    min: int = 1

    def __call__(self, text: str) -> str:
        found = _traditional_only().finditer(text)
        for _ in range(max(1, self.min)):
            if next(found, None) is None:
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
    return re.compile(
        "[" + "".join(c for c in changed if c == "後" or not _in_gb2312(c)) + "]"
    )  # GB2312 has 後, and no text uses it


def _in_gb2312(character: str) -> bool:
    try:
        character.encode("gb2312")
    except UnicodeEncodeError:
        return False
    return True
