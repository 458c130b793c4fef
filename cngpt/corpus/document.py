"""What flows through this room: documents, and an account of what did not make it."""

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

EXAMPLES = 10  # kept of each reason, and documents shown of each rule
T = TypeVar("T")
Progress = Callable[[float], None]  # called with how much more is done: bytes on disk, where nothing else is said


@dataclass(frozen=True, slots=True)
class Document:
    """One text as its reader found it. `source` names the corpus, `id` where in it the text lies: the same in every run."""

    text: str
    title: str = ""
    source: str = ""
    id: str = ""


def batches(items: Iterable[T], limit: int, size: Callable[[T], int] = len) -> Iterator[list[T]]:
    """The items in order, in lists whose sizes add up to `limit` or more; the last may be smaller."""
    batch, total = [], 0
    for item in items:
        batch.append(item)
        total += size(item)
        if total >= limit:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def sample_key(example: str) -> int:
    return zlib.crc32(example[:200].encode(errors="replace"))


def drawn(examples: Iterable[T], name: Callable[[T], str] = str) -> list[T]:
    """EXAMPLES of them, those with the lowest keys: a random sample, and the same one however the work was divided."""
    by_name = {name(example): example for example in examples}
    return [by_name[key] for key in sorted(by_name, key=lambda key: (sample_key(key), key))[:EXAMPLES]]


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
            self.examples[reason] = drawn([*self.examples.get(reason, ()), writable(" ".join(example[:400].split())[:160])])

    def merge(self, other: "Tally") -> None:
        """Adds what was counted elsewhere; in which order does not matter."""
        self.counts += other.counts
        for reason, examples in other.examples.items():
            self.examples[reason] = drawn([*self.examples.get(reason, ()), *examples])

    def as_dict(self) -> dict:
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return {reason: {"count": n, "examples": self.examples.get(reason, [])} for reason, n in ordered}

    @classmethod
    def from_dict(cls, value: dict) -> "Tally":
        return cls(Counter({k: v["count"] for k, v in value.items()}), {k: v["examples"] for k, v in value.items()})
