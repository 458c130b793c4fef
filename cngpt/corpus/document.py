"""What flows through this room: documents, and an account of what did not make it."""

import zlib
from collections import Counter
from dataclasses import dataclass, field

EXAMPLES = 10  # kept of each reason


@dataclass(frozen=True, slots=True)
class Document:
    """One text as its reader found it. `source` names the corpus, `id` the place in it: the same in every run."""

    text: str
    title: str = ""
    source: str = ""
    id: str = ""


def lot(example: str) -> int:
    """By which examples are drawn: those with the lowest stay. So the sample is random, and the same however the work was divided."""
    return zlib.crc32(example[:200].encode(errors="replace"))


def writable(text: str) -> str:
    """What UTF-8 can hold: a lone surrogate, which raw JSON may spell, becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


@dataclass
class Tally:
    """How often something happened, by reason, with a few examples of each, drawn at random."""

    counts: Counter = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, example: str = "") -> None:
        self.counts[reason] += 1
        if example:
            self._draw(reason, [writable(" ".join(example[:400].split())[:160])])

    def merge(self, other: "Tally") -> None:
        """Adds what was counted elsewhere; in which order does not matter."""
        self.counts += other.counts
        for reason, examples in other.examples.items():
            self._draw(reason, examples)

    def _draw(self, reason: str, more: list[str]) -> None:
        self.examples[reason] = sorted({*self.examples.get(reason, ()), *more}, key=lambda example: (lot(example), example))[
            :EXAMPLES
        ]

    def as_dict(self) -> dict:
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return {reason: {"count": n, "examples": self.examples.get(reason, [])} for reason, n in ordered}

    @classmethod
    def from_dict(cls, value: dict) -> "Tally":
        """What `as_dict` gave."""
        return cls(Counter({k: v["count"] for k, v in value.items()}), {k: v["examples"] for k, v in value.items()})
