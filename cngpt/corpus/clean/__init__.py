"""Cleaning: an ordered list of small rules over one document's title and text; RULES in build.py names them all."""

from collections import Counter
from collections.abc import Callable, Sequence

from cngpt.corpus.clean.build import BASIC, build, fingerprint, register_rule
from cngpt.corpus.clean.rules import Drop, Rule, RuleWithThresholds, name_of
from cngpt.corpus.document import Document, Tally

__all__ = ["BASIC", "Cleaner", "Drop", "Rule", "RuleWithThresholds", "build", "fingerprint", "name_of", "register_rule", "with_title"]  # fmt: skip

Watch = Callable[[str, Document, str, str], None]


class Cleaner:
    """Documents in, clean texts out.

    `done` counts by (rule, source, what): documents `changed` and `dropped`, and `characters` taken away, those of dropped documents
    too. `dropped` tells the reasons. `watch` is shown what a rule changed: its name, the document, the text before and after.
    """

    def __init__(self, rules: Sequence[Rule], watch: Watch | None = None):
        self.rules, self.watch = list(rules), watch
        self._names = [name_of(rule) for rule in self.rules]
        self.reset()

    def reset(self) -> None:
        self.done: Counter[tuple[str, str, str]] = Counter()
        self.dropped = Tally()

    def __call__(self, document: Document) -> str | None:
        r"""Title, `\n`, text after all rules; None when one of them dropped it."""
        text, source = with_title(document), document.source
        for name, rule in zip(self._names, self.rules, strict=True):
            result = rule(text)
            if isinstance(result, Drop):
                self.dropped.add(result.reason, f"{document.id}: {text}")
                self.done[name, source, "characters"] += len(text)
                self.done[name, source, "dropped"] += 1
                return None
            if result != text:
                self.done[name, source, "characters"] += len(text) - len(result)
                self.done[name, source, "changed"] += 1
                if self.watch:
                    self.watch(name, document, text, result)
                text = result
        return text


def with_title(document: Document) -> str:
    """The title as first line, unless the text opens with it already (wiki2019zh does)."""
    title = " ".join(document.title.split())
    opening, _, _ = document.text.lstrip().partition("\n")
    return document.text if not title or " ".join(opening.split()) == title else f"{title}\n{document.text}"
