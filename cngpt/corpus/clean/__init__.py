"""Cleaning: an ordered list of small rules over one document's title and text; RULES in build.py names them all."""

from collections import Counter
from collections.abc import Sequence

from cngpt.corpus.clean.build import basic, build, fingerprint
from cngpt.corpus.clean.rules import Drop, Rule, name_of
from cngpt.corpus.document import Document, Tally

__all__ = ["Cleaner", "Drop", "Rule", "basic", "build", "fingerprint", "name_of", "with_title"]


class Cleaner:
    """Documents in, clean texts out.

    Counts by rule: `changed` documents, `characters` taken away (those of dropped documents too), documents `dropped_by` it; by
    reason: `dropped`.
    """

    def __init__(self, rules: Sequence[Rule]):
        self.rules = list(rules)
        self.reset()

    def reset(self) -> None:
        self.changed, self.characters, self.dropped_by, self.dropped = Counter(), Counter(), Counter(), Tally()

    def __call__(self, document: Document) -> str | None:
        r"""Title, `\n`, text after all rules; None when one of them dropped it."""
        text = with_title(document)
        for rule in self.rules:
            result = rule(text)
            if isinstance(result, Drop):
                self.dropped.add(result.reason, f"{document.id}: {text}")
                self.characters[name_of(rule)] += len(text)
                self.dropped_by[name_of(rule)] += 1
                return None
            if result != text:
                name = name_of(rule)
                self.changed[name] += 1
                self.characters[name] += len(text) - len(result)
                text = result
        return text


def with_title(document: Document) -> str:
    """The title as first line, unless the text opens with it already (wiki2019zh does)."""
    title = " ".join(document.title.split())
    opening, _, _ = document.text.lstrip().partition("\n")
    return document.text if not title or " ".join(opening.split()) == title else f"{title}\n{document.text}"
