"""Fingerprints of all units -> which documents go, and which lines. One process, within a set memory.

    1. exact     of documents with one 128-bit hash the first stays
    2. buckets   documents that agree in a whole band of the signature, band by band            near.py
    3. near      in order: a document that is `threshold` similar to one that stays, goes       near.py
    4. lines     what stands in `lines` of the documents that are left is boilerplate

"First" is by number: the units in the order given, in a unit its own order. The result depends on nothing else: not on the
memory, which only decides how often the fingerprints are read, and what lies in files of `scratch` instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cngpt.corpus.dedup import arrays, near
from cngpt.corpus.dedup.fingerprints import Fingerprints
from cngpt.corpus.dedup.index import Index, Memory, groups, repeated
from cngpt.corpus.dedup.settings import EXACT, KEEP, NEAR, Dedup
from cngpt.corpus.document import Progress

KIND = "decisions"


@dataclass(frozen=True)
class Decisions:
    """n documents in all; the document numbered starts[unit] + position is at `position` of `unit`."""

    verdicts: np.ndarray  # (n,) uint8: KEEP, EXACT (copy) or NEAR (copy)
    originals: np.ndarray  # (n,) uint32: the number of the document that it is a copy of; meaningless where it stays
    starts: np.ndarray  # (units + 1,) int64
    lines: np.ndarray  # sorted uint64: hashes of lines to remove everywhere
    counts: dict[str, int]  # documents exact near candidates compared lines
    bytes_per_document: dict[str, float]  # fingerprints (disk) memory scratch (disk), at their greatest

    def of(self, unit: int) -> np.ndarray:
        """(documents of the unit,) uint8."""
        return self.verdicts[self.starts[unit] : self.starts[unit + 1]]

    def original(self, unit: int, position: int) -> tuple[int, int] | None:
        """(unit, position) of the document that stays instead of this one; None where this one stays."""
        number = self.starts[unit] + position
        if self.verdicts[number] == KEEP:
            return None
        other = int(self.originals[number])
        unit = int(np.searchsorted(self.starts, other, "right")) - 1
        return unit, other - int(self.starts[unit])

    def save(self, path: str | Path) -> None:
        saved = {name: [getattr(self, name)] for name in ("verdicts", "originals", "starts", "lines")}
        arrays.save(path, KIND, saved, counts=self.counts, bytes_per_document=self.bytes_per_document)

    @classmethod
    def load(cls, path: str | Path) -> "Decisions":
        loaded, metadata = arrays.load(path, KIND)
        return cls(**loaded, **metadata)


def decide(
    units: Sequence[Path | Fingerprints], settings: Dedup, read_texts: near.ReadTexts, memory_bytes: int, scratch: Path,
    progress: Progress = lambda _: None,
) -> Decisions:  # fmt: skip
    """read_texts: the texts of documents, given as (unit, position): of one unit at a time, ascending, each asked for at most once.
    memory_bytes: for the index; Python, numpy and a batch of texts take some 200 MB besides.
    scratch: a folder for files while this runs; they are removed at the end, and overwritten after a kill.
    progress: called with shares of the whole work, which add up to 1.
    """
    memory = Memory(memory_bytes, Path(scratch))
    index = Index(units, settings, memory)
    try:
        verdicts = memory.array("verdicts", len(index), np.uint8)
        originals = memory.array("originals", len(index), np.uint32)
        if settings.exact:
            mark_exact_copies(index, verdicts, originals)
        progress(0.05)
        pairs = {"candidates": 0, "compared": 0}
        if settings.near:
            pairs = near.find_near_copies(index, verdicts, originals, read_texts, lambda part: progress(0.9 * part))
        else:
            progress(0.9)
        lines = find_boilerplate_lines(index, verdicts) if settings.lines else np.zeros(0, np.uint64)
        progress(0.05)
    finally:
        memory.close()
    copies = {name: int(np.count_nonzero(verdicts == kind)) for name, kind in (("exact", EXACT), ("near", NEAR))}
    n = max(1, len(index))
    sizes = {"fingerprints": index.bytes / n, "memory": memory.most / n, "scratch": memory.most_scratch / n}
    counts = {"documents": len(index), **copies, **pairs, "lines": len(lines)}
    return Decisions(verdicts, originals, index.starts, lines, counts, {name: round(size, 1) for name, size in sizes.items()})


def mark_exact_copies(index: Index, verdicts: np.ndarray, originals: np.ndarray) -> None:
    for documents, _ in groups(index, lambda _, unit: (np.arange(len(unit)), unit.exact[:, 0])):
        documents.sort()
        hashes = np.zeros((len(documents), 2), np.uint64)
        for number, unit in index.units():
            here = slice(*np.searchsorted(documents, index.starts[number : number + 2]))
            hashes[here] = unit.exact[documents[here] - index.starts[number]]
        order = np.lexsort((documents, hashes[:, 1], hashes[:, 0]))
        documents, hashes = documents[order], hashes[order]
        begins = np.append(True, (hashes[1:] != hashes[:-1]).any(axis=1))[: len(documents)]
        firsts = documents[begins][np.cumsum(begins) - 1]
        verdicts[documents[~begins]], originals[documents[~begins]] = EXACT, firsts[~begins]


def find_boilerplate_lines(index: Index, verdicts: np.ndarray) -> np.ndarray:
    """Counted in documents that stay: the lines of a text with many near copies are not boilerplate for that."""

    def lines(number: int, unit: Fingerprints) -> np.ndarray:
        return unit.lines[np.repeat(verdicts[index.numbers(number)] == KEEP, unit.line_counts)]

    return repeated(index, lines, index.settings.lines)
