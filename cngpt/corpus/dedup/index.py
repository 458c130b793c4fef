"""The ground of the index: numbered documents over many files, arrays within a budget, equal hashes by sorting."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from cngpt.corpus.dedup.fingerprints import Fingerprints
from cngpt.corpus.dedup.settings import Dedup
from cngpt.errors import UserError

MOST_PARTS = 256  # a smaller budget than needs more is not kept
SORTED_BYTES = 40  # a hash needs so much while equal ones are sought


class Memory:
    """A budget in bytes. Half is for arrays that stay, which become files where it ends; half for what is sorted for a while."""

    def __init__(self, budget: int, scratch: Path):
        self._left = self._transient = budget // 2
        self._scratch, self._files = scratch, []
        self._lasting, self.most, self.most_scratch = 0, 0, 0
        scratch.mkdir(parents=True, exist_ok=True)

    def array(self, name: str, shape: int | tuple[int, ...], dtype: type) -> np.ndarray:
        """Zeros, in memory or in a mapped file."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if size <= self._left:
            self._left -= size
            self._lasting += size
            self.most = max(self.most, self._lasting)
            return np.zeros(shape, dtype)
        with open(self.file(name, size), "wb") as file:
            if hasattr(os, "posix_fallocate"):
                # a full disk is an error here, but a dead process when the map is written
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        return np.memmap(self._files[-1], dtype, "r+", shape=shape)

    def file(self, name: str, size: int = 0) -> Path:
        self._files.append(self._scratch / f"dedup-{name}")
        self.most_scratch += size
        return self._files[-1]

    def parts(self, items: int, each: int) -> int:
        """In how many parts `items` that need `each` bytes while they are worked on fit the budget."""
        return max(1, min(MOST_PARTS, -(-items * each // max(1, self._transient))))

    def worked_on(self, size: int) -> None:
        """Accounts for bytes that were needed for a while."""
        self.most = max(self.most, self._lasting + size)

    def close(self) -> None:
        for path in self._files:
            with suppress(OSError):  # arrays outlive their file's name, except on Windows, where the file stays
                path.unlink()


class Index:
    """The units' fingerprints, read anew each time they are wanted, and the numbers of their documents."""

    def __init__(self, units: Sequence[Path | Fingerprints], settings: Dedup, memory: Memory):
        self._units, self.settings, self.memory = units, settings, memory
        sizes, self.bytes, self.lines = [], 0, 0
        for number, unit in self.units():
            if not unit.made_with(settings):
                name = "" if isinstance(units[number], Fingerprints) else f" ({units[number]})"
                raise UserError(f"the fingerprints of unit {number}{name} were made with other settings of dedup; make them anew")
            sizes.append(len(unit))
            self.bytes += sum(array.nbytes for array in vars(unit).values())
            self.lines += len(unit.lines)
        self.starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        if len(self) >= 1 << 32:
            raise UserError(f"{len(self)} documents are too many to deduplicate at once: at most {(1 << 32) - 1}")

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def number_bits(self) -> int:
        return max(1, (len(self) - 1).bit_length())

    def units(self) -> Iterator[tuple[int, Fingerprints]]:
        return ((number, self.unit(number)) for number in range(len(self._units)))

    def unit(self, number: int) -> Fingerprints:
        unit = self._units[number]
        return unit if isinstance(unit, Fingerprints) else Fingerprints.load(unit)

    def numbers(self, unit: int) -> slice:
        return slice(int(self.starts[unit]), int(self.starts[unit + 1]))


def groups(index: Index, hashes: Callable[[int, Fingerprints], tuple]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(documents, sizes): the documents that share a hash, group after group in the order of the hash, ascending in each.

    hashes: (positions, uint64 hashes) of those documents of a unit that count. Hash and number share 64 bits, so of the hash only the
    upper 40 are compared with 16 million documents: what they give is a candidate.
    """
    low = np.uint64(index.number_bits)

    def numbered(n: int, unit: Fingerprints) -> np.ndarray:
        positions, values = hashes(n, unit)
        return values >> low << low | (positions + index.starts[n]).astype(np.uint64)

    for number in range(passes := index.memory.parts(len(index), SORTED_BYTES)):
        keys = _sorted(index, numbered, number, passes)
        begins = _begins(keys >> low)
        members = np.flatnonzero(~begins | ~np.append(begins[1:], True))
        firsts = np.flatnonzero(begins[members])
        keys = keys[members] & np.uint64((1 << index.number_bits) - 1)
        yield keys.astype(np.uint32), np.diff(firsts, append=len(members))


def repeated(index: Index, hashes: Callable[[int, Fingerprints], np.ndarray], times: int) -> np.ndarray:
    """Sorted, the hashes that occur `times` or more over all units."""
    often = [np.zeros(0, np.uint64)]
    for number in range(passes := index.memory.parts(index.lines, SORTED_BYTES)):
        keys = _sorted(index, hashes, number, passes)
        firsts = np.flatnonzero(_begins(keys))
        often.append(keys[firsts[np.diff(firsts, append=len(keys)) >= times]])
    return np.concatenate(often)


def _sorted(index: Index, keys_of: Callable[[int, Fingerprints], np.ndarray], number: int, passes: int) -> np.ndarray:
    """The keys of all units in one interval of hashes: all passes together give the order of one."""
    parts = [np.zeros(0, np.uint64)]
    for n, unit in index.units():
        keys, half = keys_of(n, unit), np.uint64(32)
        parts.append(keys[(keys >> half) * np.uint64(passes) >> half == np.uint64(number)] if passes > 1 else keys)
    keys = np.concatenate(parts)
    keys.sort()
    index.memory.worked_on(len(keys) * SORTED_BYTES)
    return keys


def _begins(keys: np.ndarray) -> np.ndarray:
    """Where a run of equal keys begins."""
    return np.append(True, keys[1:] != keys[:-1])[: len(keys)]
