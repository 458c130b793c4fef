"""Cleaning: an ordered list of small rules (see rules.py) over one document's title and text."""

from collections import Counter
from collections.abc import Sequence

from cngpt.corpus.clean import rules as r
from cngpt.corpus.clean.rules import Drop, Rule
from cngpt.corpus.document import Document, Tally

VERSION = 1  # raised when the rules leave another text than before: shards made with the old ones are then made anew


def basic(min_chars: int = 20) -> list[Rule]:
    """The rules for any text; the order matters: entities hide line ends, tags leave blank lines."""
    return [
        r.html_leftovers,
        r.line_ends,
        r.lone_surrogates,
        r.invisible,
        r.spaces,
        r.empty_brackets,
        r.paragraphs,
        r.MinChars(max(1, min_chars)),
    ]


class Cleaner:
    """Documents in, clean texts out. Counts what each rule changed (`changed`, in documents) and dropped (`dropped`)."""

    def __init__(self, rules: Sequence[Rule]):
        self.rules = list(rules)
        self.reset()

    def reset(self) -> None:
        self.changed, self.dropped = Counter(), Tally()

    def __call__(self, document: Document) -> str | None:
        r"""Title, `\n`, text after all rules; None when one of them dropped it."""
        text = with_title(document)
        for rule in self.rules:
            result = rule(text)
            if isinstance(result, Drop):
                self.dropped.add(result.reason, f"{document.id}: {text}")
                return None
            if result != text:
                self.changed[name_of(rule)] += 1
                text = result
        return text


def with_title(document: Document) -> str:
    """The title as first line, unless the text opens with it already (wiki2019zh does)."""
    title = " ".join(document.title.split())
    opening, _, _ = document.text.lstrip().partition("\n")
    return document.text if not title or " ".join(opening.split()) == title else f"{title}\n{document.text}"


def name_of(rule: Rule) -> str:
    return getattr(rule, "__name__", type(rule).__name__)
