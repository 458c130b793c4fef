"""How often each source is read in one pass over the shards: weights, the copies that follow from them, and what came of it."""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from cngpt.corpus.document import Progress
from cngpt.corpus.pool import unit_name
from cngpt.corpus.readers import weight_of
from cngpt.corpus.split import Split
from cngpt.tokens import Tokenizer
from cngpt.tokens.shards import dtype_for


def copies(hash: int, weight: float) -> int:
    """How often a document of train comes in one pass: of a fraction, the documents with the lowest hashes have one more, so
    that those of a lower weight are among those of a higher one."""
    whole = int(weight)
    # other bits than those that choose the documents for validation
    return whole + ((hash * 0x9E3779B97F4A7C15 >> 32 & 0xFFFFFFFF) < (weight - whole) * 2**32)


class MixtureWriter:
    """Tokenized units to a Split: each document once, in order; then the further copies of what weighs more than 1.

    tokens: the folder of the stage Tokenizing. owners: the number of each unit's source. weights: of each source.
    """

    def __init__(self, split: Split, tokens: Path, tokenizer: Tokenizer, owners: Sequence[int], weights: Sequence[float]):
        self._split, self._tokens, self._tokenizer = split, tokens, tokenizer
        self._owners, self._weights = owners, [weights[owner] for owner in owners]
        self._waiting = deque(range(len(owners)))

    def add_ready(self, progress: Progress) -> None:
        """Writes, in order, the units that have their tokens by now."""
        while self._waiting and (self._tokens / unit_name(self._waiting[0])).exists():
            unit = self._waiting.popleft()
            for hash, ids, characters in self._documents(unit):
                self._split.add(hash, ids, characters, self._owners[unit], copies(hash, self._weights[unit]) > 0)
                progress(3 * characters)

    def add_copies(self, progress: Progress) -> None:
        """The second and later copies, a pass over its source for each."""
        for nth in range(2, math.ceil(max(self._weights)) + 1):
            for unit in (n for n, weight in enumerate(self._weights) if weight > nth - 1):
                for hash, ids, characters in self._documents(unit):
                    if copies(hash, self._weights[unit]) >= nth:
                        self._split.add_copy(hash, ids, characters, self._owners[unit])
                    progress(3 * characters)

    def bytes_of_copies(self) -> int:
        """What `add_copies` will report."""
        heavier = [(n, math.ceil(weight) - 1) for n, weight in enumerate(self._weights) if weight > 1]
        return sum(3 * passes * int(self._rows(n)["characters"].sum()) for n, passes in heavier)

    def _rows(self, unit: int) -> np.ndarray:
        return np.load(self._tokens / unit_name(unit) / "documents.npy")

    def _documents(self, unit: int) -> Iterator[tuple[int, np.ndarray, int]]:
        """(hash, ids, characters) of each document."""
        rows, ids = self._rows(unit), np.zeros(0, np.uint16)
        if rows["tokens"].any():
            ids = np.memmap(self._tokens / unit_name(unit) / "ids.bin", dtype_for(self._tokenizer.vocab_size), mode="r")
        end = 0
        for first in range(0, len(rows), 1 << 16):  # of millions of documents, not all numbers as Python's own at once
            for hash, tokens, characters in rows[first : first + (1 << 16)].tolist():
                end += tokens
                yield hash, ids[end - tokens : end], characters


def names_of(sources: Sequence[Mapping]) -> list[str]:
    """What each is called in the report: its reader, and its root where several have the same one."""
    readers = [str(source["reader"]) for source in sources]
    return [r if readers.count(r) == 1 else f"{r}: {source['root']}" for r, source in zip(readers, sources, strict=True)]


def mixture(sources: Sequence[Mapping], counts: Mapping[tuple[int, str, str], int]) -> list[dict]:
    """A row a source: what it has (documents, tokens; valid's part of it), and what one pass over train reads of it."""
    rows = []
    for n, (name, source) in enumerate(zip(names_of(sources), sources, strict=True)):
        row = {"source": name, "weight": weight_of(source)}
        all_of_it, valid, train = (
            {key: counts[n, part, key] for key in ("documents", "tokens")} for part in ("all", "valid", "train")
        )
        own = all_of_it["tokens"] - valid["tokens"]
        times = round(train["tokens"] / own, 3) if own else 0.0
        rows.append({**row, **all_of_it, "valid": valid, "train": train, "times": times})
    return rows
