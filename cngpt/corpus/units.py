"""Sources cut into units of work: what one process reads at a time, and what is committed as a whole.

Where a unit begins and ends follows from the files alone, never from the number of processes: that is why the shards do not depend
on it. Small files go together, a large json-lines file that is not compressed is cut at line ends.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cngpt import files
from cngpt.corpus.document import Document, Progress, Tally
from cngpt.corpus.readers import Reader
from cngpt.corpus.readers.raw import Raw, sliced
from cngpt.errors import UserError

UNIT_BYTES = 16 << 20  # on disk
UNIT_FILES = 20_000


@dataclass(frozen=True, slots=True)
class Unit:
    """Consecutive files of one source, or a slice of one file."""

    number: int
    reader: Reader
    raws: tuple[Raw, ...]
    stamp: str  # of the names, sizes and times of its files when the work was planned

    @property
    def size(self) -> int:
        return sum(raw.size for raw in self.raws)

    @property
    def content(self) -> float:
        """Bytes to read, about, compressed ones counted as what is in them."""
        return sum(raw.content for raw in self.raws)

    def documents(self, skipped: Tally, progress: Progress = lambda _: None) -> Iterator[Document]:
        """All its documents in order. UserError where a file is not what it was when the work was planned."""
        for raw in self.raws:
            yield from self.reader.documents_of(raw, skipped, progress)
        if stamp_of(self.raws) != self.stamp:
            raise UserError(
                f"{self.reader.root}: {self.raws[0].name} or a file after it changed while it was read; run the command again"
            )


def plan(readers: Sequence[Reader], skipped: Tally) -> list[Unit]:
    """The units of all sources, in order. ConfigError where a source has nothing to read."""
    units: list[tuple[Reader, list[Raw]]] = []
    for reader in readers:
        raws, size = [], UNIT_BYTES + 1  # the first part begins a unit
        for part in (part for raw in reader.all_raws(skipped) for part in sliced(raw, UNIT_BYTES)):
            if len(raws) >= UNIT_FILES or size + part.size > UNIT_BYTES:
                raws, size = [], 0
                units.append((reader, raws))
            raws.append(part)
            size += part.size
    return [Unit(number, reader, tuple(raws), stamp_of(raws)) for number, (reader, raws) in enumerate(units)]


def digest(units: Sequence[Unit]) -> str:
    """What tells this plan from that of other files, or of files that have changed since."""
    return hashlib.sha256("\n".join(unit.stamp for unit in units).encode()).hexdigest()


def stamp_of(raws: Sequence[Raw]) -> str:
    """A hash of the files' names, sizes and times of change."""
    lines = (f"{raw.name} {raw.size} {_modified(raw)}\n" for raw in raws)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _modified(raw: Raw) -> str:
    """Size and time of the file on disk, a zip's for its members."""
    if files.is_remote(raw.path):
        return ""
    try:
        status = os.stat(raw.path)
    except OSError:
        return "gone"
    return f"{status.st_size} {status.st_mtime_ns}"
