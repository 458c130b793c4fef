"""What flows through this room: documents, and an account of what did not make it."""

from collections import Counter
from dataclasses import dataclass, field

EXAMPLES = 3  # kept of each reason


@dataclass(frozen=True, slots=True)
class Document:
    """One text as its reader found it. `source` names the corpus, `id` the place in it: the same in every run."""

    text: str
    title: str = ""
    source: str = ""
    id: str = ""


@dataclass
class Tally:
    """How often something happened, by reason, with the first few examples of each."""

    counts: Counter = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, example: str = "") -> None:
        self.counts[reason] += 1
        kept = self.examples.setdefault(reason, [])
        if example and len(kept) < EXAMPLES:
            kept.append(" ".join(example.split())[:160])

    def merge(self, later: "Tally") -> None:
        """Adds what was counted after this; examples keep their order."""
        self.counts += later.counts
        for reason, examples in later.examples.items():
            kept = self.examples.setdefault(reason, [])
            kept += examples[: EXAMPLES - len(kept)]

    def as_dict(self) -> dict:
        return {reason: {"count": n, "examples": self.examples.get(reason, [])} for reason, n in self.counts.most_common()}
