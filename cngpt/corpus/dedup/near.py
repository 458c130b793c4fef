"""Near copies: buckets of documents that agree in a band, and the walk through them that decides who stays.

A document goes only when its true similarity to one that stays reaches the threshold, so a chain a ~ b ~ c never takes c for a's
sake. Documents are compared with those that stay, never with copies: a hundred thousand copies of a page are as many comparisons.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain

import numpy as np

from cngpt.corpus.dedup.fingerprints import Fingerprints, jaccard, shingle_sets
from cngpt.corpus.dedup.index import Index, Memory, groups
from cngpt.corpus.dedup.normal import MULTIPLIER, mixed
from cngpt.corpus.dedup.settings import EXACT, KEEP, NEAR, Dedup
from cngpt.corpus.document import Progress, batches

BUCKET = 256  # documents of a bucket that later ones are compared with: the first that stay
COMPARED = 32  # of these, by signature, a document's true similarity is computed with so many, the likeliest first
MEMBERSHIP_BYTES = 32  # a membership in a bucket needs so much while they are sorted
TEXT_CHARACTERS = 1 << 23  # read at once
SHINGLED_CHARACTERS = 1 << 18

ReadTexts = Callable[[list[tuple[int, int]]], Sequence[str]]


def find_near_copies(
    index: Index, verdicts: np.ndarray, originals: np.ndarray, read_texts: ReadTexts, progress: Progress
) -> dict[str, int]:
    """Marks near copies in `verdicts` and `originals`; how many documents were candidates, and how many pairs were compared."""
    buckets = Buckets(index, verdicts, lambda part: progress(0.3 * part))
    kept, compared = KeptDocuments(buckets.candidates, index.settings, index.memory), 0
    try:
        for unit, numbers, rows in buckets.documents(progress=lambda part: progress(0.7 * part)):
            positions = numbers - index.starts[unit]
            signatures = index.unit(unit).signature[:, positions].swapaxes(0, 1).reshape(len(numbers), -1)
            texts = read_texts([(unit, position) for position in positions.tolist()])
            batched = batches(texts, SHINGLED_CHARACTERS)
            sets = chain.from_iterable(shingle_sets(batch, index.settings.shingle) for batch in batched)
            for number, signature, shingles, row in zip(numbers.tolist(), signatures, sets, rows, strict=True):
                original, n = kept.similar_to(signature, shingles, buckets.kept_in(row))
                compared += n
                if original is None:
                    buckets.add(row, kept.add(number, signature, shingles))
                else:
                    verdicts[number], originals[number] = NEAR, original
    finally:
        kept.close()
    exact = np.flatnonzero(verdicts == EXACT)
    # copies of one that went itself: what stays is its original
    indirect = exact[verdicts[originals[exact]] == NEAR]
    originals[indirect] = originals[originals[indirect]]
    return {"candidates": buckets.candidates, "compared": compared}


class Buckets:
    """Every group of two or more documents that agree in a band, and who of them stays."""

    def __init__(self, index: Index, verdicts: np.ndarray, progress: Progress):
        settings, memory = index.settings, index.memory
        self._index, self._low = index, np.uint64(64 - index.number_bits)

        def hashes(band: int, number: int, unit: Fingerprints) -> tuple[np.ndarray, np.ndarray]:
            positions = np.flatnonzero((verdicts[index.numbers(number)] == KEEP) & (unit.sizes >= settings.shingle))
            return positions, _hashes(unit, band)[positions]

        # a document's memberships go to the file of its range of numbers: read range by range, they come in its order
        ranges = memory.parts(len(index) * settings.bands, MEMBERSHIP_BYTES)
        self._files = [memory.file(f"members-{r}") for r in range(ranges)]
        is_candidate, sizes_path = memory.array("candidates", len(index), bool), memory.file("sizes")
        count = total = 0
        with ExitStack() as stack:
            files = [stack.enter_context(open(path, "wb")) for path in self._files]
            sizes_file = stack.enter_context(open(sizes_path, "wb"))
            for band in range(settings.bands):
                for documents, sizes in groups(index, partial(hashes, band)):
                    is_candidate[documents] = True
                    members = np.repeat(np.arange(count, count + len(sizes), dtype=np.uint64), sizes)
                    members |= documents.astype(np.uint64) << self._low
                    where = documents.astype(np.int64) * ranges // len(index) if ranges > 1 else None
                    for r, file in enumerate(files):
                        file.write((members if where is None else members[where == r]).data)
                    sizes = np.minimum(sizes, BUCKET)
                    sizes_file.write(sizes.astype(np.uint16).data)
                    count, total = count + len(sizes), total + int(sizes.sum())
                progress(1 / settings.bands)
        memory.most_scratch += sum(path.stat().st_size for path in (*self._files, sizes_path))
        self.candidates = int(np.count_nonzero(is_candidate))
        self._first = memory.array("first", count + 1, np.uint64)  # where in `_kept` each bucket begins
        if count:
            np.cumsum(np.memmap(sizes_path, np.uint16, "r"), out=self._first[1:])
        self._filled = memory.array("filled", count, np.uint16)
        self._kept = memory.array("kept", total, np.uint32)

    def documents(self, progress: Progress) -> Iterator[tuple[int, np.ndarray, list[np.ndarray]]]:
        """(unit, documents' numbers, the buckets of each), in order, for all that are in any; a unit's worth at most."""
        index = self._index
        if not self.candidates:
            progress(1)
        for path in self._files:
            members = np.fromfile(path, np.uint64)
            members.sort()
            index.memory.worked_on(len(members) * MEMBERSHIP_BYTES)
            numbers = (members >> self._low).astype(np.int64)
            members &= np.uint64((1 << int(self._low)) - 1)
            firsts = np.flatnonzero(np.diff(numbers, prepend=-1))
            numbers, stops = numbers[firsts], np.append(firsts[1:], len(members))
            for unit in np.unique(np.searchsorted(index.starts, numbers, "right") - 1).tolist():
                low, high = np.searchsorted(numbers, index.starts[unit : unit + 2])
                sizes = index.unit(unit).sizes[numbers[low:high] - index.starts[unit]]
                read = np.cumsum(sizes, dtype=np.int64) // TEXT_CHARACTERS
                for part in np.split(np.arange(low, high), np.flatnonzero(np.diff(read)) + 1):
                    rows = [members[firsts[n] : stops[n]].astype(np.int64) for n in part]
                    yield unit, numbers[part], rows
                    progress(len(part) / self.candidates)

    def kept_in(self, buckets: np.ndarray) -> np.ndarray:
        """What `add` put into any of these buckets, ascending."""
        filled = self._filled[buckets].astype(np.int64)
        buckets, filled = buckets[filled > 0], filled[filled > 0]
        starts = self._first[buckets].astype(np.int64)
        if len(filled) and filled.max() > 1:  # positions first, first + 1, ... of each bucket
            within = np.arange(filled.sum()) - np.repeat(np.cumsum(filled) - filled, filled)
            starts = np.repeat(starts, filled) + within
        return np.unique(self._kept[starts])

    def add(self, buckets: np.ndarray, document: int) -> None:
        filled = self._filled[buckets].astype(np.uint64)
        positions = self._first[buckets] + filled
        free = positions < self._first[buckets + 1]
        self._kept[positions[free]] = document
        self._filled[buckets[free]] += 1


class KeptDocuments:
    """The candidates that stay, numbered as they come: their signatures, and in a file their shingles."""

    def __init__(self, candidates: int, settings: Dedup, memory: Memory):
        self._threshold = settings.threshold
        # an estimate from k slots has a deviation of 0.5 / sqrt(k) at most: 4.5 of them below, a pair is not worth a look
        self._floor = (settings.threshold - 2.25 / settings.slots**0.5) * settings.slots
        self._signatures = memory.array("signatures", (candidates, settings.slots), np.uint16)
        self._documents = memory.array("documents", candidates, np.uint32)
        self._offsets = memory.array("offsets", candidates + 1, np.int64)  # in the file
        self._count = 0
        self._file = open(memory.file("shingles"), "w+b")  # noqa: SIM115
        self._memory = memory

    def similar_to(self, signature: np.ndarray, shingles: np.ndarray, among: np.ndarray) -> tuple[int | None, int]:
        """(the document of one that reaches the threshold, how many were compared)."""
        compared = 0
        if len(among):
            equal = np.count_nonzero(self._signatures[among] == signature, axis=1)
            for n in np.argsort(-equal, kind="stable")[:COMPARED]:
                if equal[n] < self._floor:
                    break
                kept = int(among[n])
                size = int(self._offsets[kept + 1] - self._offsets[kept]) // 4
                if min(size, len(shingles)) >= self._threshold * max(size, len(shingles)):
                    compared += 1
                    if jaccard(shingles, self._shingles(kept)) >= self._threshold:
                        return int(self._documents[kept]), compared
        return None, compared

    def add(self, document: int, signature: np.ndarray, shingles: np.ndarray) -> int:
        """Its number here."""
        number, end = self._count, int(self._offsets[self._count])
        self._signatures[number], self._documents[number] = signature, document
        self._file.seek(end)
        self._file.write(shingles.data)
        self._offsets[number + 1] = end + shingles.nbytes
        self._count += 1
        return number

    def close(self) -> None:
        self._memory.most_scratch += int(self._offsets[self._count])
        self._file.close()

    def _shingles(self, number: int) -> np.ndarray:
        start, stop = self._offsets[number : number + 2].tolist()
        self._file.seek(start)
        return np.frombuffer(self._file.read(stop - start), np.uint32)


def _hashes(unit: Fingerprints, band: int) -> np.ndarray:
    """(n,) uint64 of the documents' numbers in a band."""
    hashes = np.zeros(len(unit), np.uint64)
    for column in unit.signature[band].T:
        hashes *= np.uint64(MULTIPLIER)
        hashes += column
    return mixed(hashes)
