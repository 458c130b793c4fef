"""Lines that are no sentences: menus, fragments, lists of links, the line before once more."""

import re

from cngpt.corpus.clean.rules import Count, RuleWithThresholds
from cngpt.settings import Field

_LETTER = re.compile(r"\w")
_SENTENCE = re.compile("[。！？!?…；;，,]|[.：:”」』]$")
_LINK = re.compile(r"(?:[●·•▪★◆■※-] ?)?[\[【(]?(?:20\d\d[-/.])?[01]?\d-[0-3]\d[\]】)]?\s?\D.{3,60}$")  # 08-15临汾各小学招生范围？

_LONG, _SHORT = 60, 80  # characters


class Lines(RuleWithThresholds, name="lines"):
    """Menus, fragments, labels, dated links and copies of the line before go. The first line, mostly a title, always stays.

    sentences: of lines without any punctuation of sentences those go that stand together, or last; one above a paragraph is its
    heading. So do labels (退换流程：) and dated links. copies: of lines that came before, but not directly before, those of 60
    characters or more go (some pages hold their text twice; refrains are shorter).
    """

    min_chars: Count = Field(5, description="letters that a line needs which ends no sentence")
    sentences: bool = Field(True, description="lines that are no sentences go: menus, labels, dated links")
    copies: bool = Field(True, description="a line goes that says what the one before said, or a long one that came before")

    def __call__(self, text: str) -> str:
        if "\n" not in text:
            return text
        lines = text.split("\n")
        # a heading at the end has no paragraph
        bare = [False, *map(self.is_bare, lines[1:]), True]
        kept, seen = lines[:1], set(lines[:1])
        for at, line in enumerate(lines[1:], 1):
            if line in seen and self.copies and (line == kept[-1] or len(line) >= _LONG):
                continue
            if (bare[at] and (bare[at - 1] or bare[at + 1])) or self.is_fragment(line):
                continue
            kept.append(line)
            seen.add(line)
        return text if len(kept) == len(lines) else "\n".join(kept)

    def is_bare(self, line: str) -> bool:
        """Without any punctuation of sentences: part of a menu, or a heading."""
        return self.sentences and len(line) <= _SHORT and not _SENTENCE.search(line)

    def is_fragment(self, line: str) -> bool:
        if len(line) > _SHORT:
            return False
        if len(line) < 2 * self.min_chars and line[-1:] not in "。！？!?…”」』" and len(_LETTER.findall(line)) < self.min_chars:
            return True
        return self.sentences and ((len(line) <= 7 and line[-1:] in ("：", ":")) or bool(_LINK.match(line)))
