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
                os.posix_fallocate(
                    file.fileno(), 0, size
                )  # a full disk is an error here, but a dead process when the map is written
            else:
                file.truncate(size)
        return np.memmap(self._files[-1], dtype, "r+", shape=shape)

    def file(self, name: str, size: int = 0) -> Path:
        """The path of a file that goes at `close`."""
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

    def __init__(self, units: Sequence[Path | Fingerprints], settings: Dedup):
        self._units = units
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
        for number, unit in enumerate(self._units):
            yield number, unit if isinstance(unit, Fingerprints) else Fingerprints.load(unit)

    def unit(self, number: int) -> Fingerprints:
        unit = self._units[number]
        return unit if isinstance(unit, Fingerprints) else Fingerprints.load(unit)

    def numbers(self, unit: int) -> slice:
        """Of the unit's documents, among all."""
        return slice(int(self.starts[unit]), int(self.starts[unit + 1]))


def groups(
    index: Index, memory: Memory, hashes: Callable[[Fingerprints], np.ndarray], among: Callable[[int, Fingerprints], np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(documents, sizes): the documents that share a hash, group after group in the order of the hash, ascending in each.

    hashes: (n,) uint64 of a unit. among: (n,) bool, the documents that count. Hash and number share 64 bits, so of the hash
    only the upper 40 are compared with 16 million documents: what is found is a candidate.
    """
    low, passes = np.uint64(index.number_bits), memory.parts(len(index), SORTED_BYTES)
    for number in range(passes):
        parts = [np.zeros(0, np.uint64)]
        for n, unit in index.units():
            chosen, values = among(n, unit), hashes(unit)
            if passes > 1:
                chosen &= _in_pass(values, number, passes)
            documents = np.flatnonzero(chosen)
            parts.append(values[documents] >> low << low | (documents + index.starts[n]).astype(np.uint64))
        keys = np.concatenate(parts)
        del parts
        keys.sort()
        memory.worked_on(len(keys) * SORTED_BYTES)
        begins = _begins(keys >> low)
        members = np.flatnonzero(~begins | ~np.append(begins[1:], True))
        firsts = np.flatnonzero(begins[members])
        keys = keys[members] & np.uint64((1 << index.number_bits) - 1)
        yield keys.astype(np.uint32), np.diff(firsts, append=len(members))


def repeated(index: Index, memory: Memory, hashes: Callable[[int, Fingerprints], np.ndarray], times: int) -> np.ndarray:
    """Sorted, the hashes that occur `times` or more over all units."""
    found, passes = [np.zeros(0, np.uint64)], memory.parts(index.lines, SORTED_BYTES)
    for number in range(passes):
        parts = [np.zeros(0, np.uint64)]
        for n, unit in index.units():
            values = hashes(n, unit)
            parts.append(values[_in_pass(values, number, passes)] if passes > 1 else values)
        keys = np.concatenate(parts)
        del parts
        keys.sort()
        memory.worked_on(len(keys) * SORTED_BYTES)
        firsts = np.flatnonzero(_begins(keys))
        found.append(keys[firsts[np.diff(firsts, append=len(keys)) >= times]])
    return np.concatenate(found)


def _begins(keys: np.ndarray) -> np.ndarray:
    """Where a run of equal keys begins."""
    begins = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=begins[1:])
    return begins


def _in_pass(hashes: np.ndarray, number: int, passes: int) -> np.ndarray:
    """A pass takes an interval of hashes, so that all passes together give the order of one."""
    return (hashes >> np.uint64(32)) * np.uint64(passes) >> np.uint64(32) == np.uint64(number)
