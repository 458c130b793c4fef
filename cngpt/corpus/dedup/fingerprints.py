"""Texts -> fingerprints: all that deduplication keeps of a document, 264 bytes and 8 a line. Pure numpy, for worker processes.

Letters: n documents, b bands, r rows, k = b * r slots.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path

import numpy as np

from cngpt.corpus.dedup import arrays
from cngpt.corpus.dedup.normal import Normal, mixed
from cngpt.corpus.dedup.settings import Dedup
from cngpt.corpus.document import batches

BATCH_CHARACTERS = 1 << 18  # worked on at once: about 20 MB of arrays, whatever the number of texts
RANDOM_ROUNDS = 16  # of a signature; the slots still empty then are filled one by one
EMPTY = np.uint32(0xFFFFFFFF)
KIND = "fingerprints"
PART = 100_000  # documents whose fingerprints are in memory while a unit is read: 54 MB with dedup=default


@dataclass(frozen=True)
class Fingerprints:
    """Of the n documents of a work unit, in their order. What the settings leave out has no bytes."""

    exact: np.ndarray  # (n, 2) uint64: 128-bit hash of the normalised text; (0, 2) without dedup.exact
    sizes: np.ndarray  # (n,) uint32: normalised characters
    signature: np.ndarray  # (b, n, r) uint16: MinHash, band by band; (b, 0, r) without dedup.near
    line_counts: np.ndarray  # (n,) uint32: how many of `lines` belong to each document; (0,) without dedup.lines
    lines: np.ndarray  # (all lines,) uint64: the different long lines of each document

    def __len__(self) -> int:
        return len(self.sizes)

    def made_with(self, settings: Dedup) -> bool:
        """Whether what these settings need is here."""
        shape = (settings.bands, len(self) if settings.near else 0, settings.rows)
        rows = len(self.exact), len(self.line_counts)
        return self.signature.shape == shape and rows == (settings.exact * len(self), bool(settings.lines) * len(self))

    def save(self, path: str | Path) -> None:
        arrays.save(path, KIND, by_field([self]))

    @classmethod
    def load(cls, path: str | Path) -> "Fingerprints":
        return cls(**arrays.load(path, KIND)[0])

    def having(self, lines: np.ndarray) -> np.ndarray:
        """(n,) bool: which documents have any of these lines, sorted hashes."""
        has = np.zeros(len(self), bool)
        if len(lines):
            has[np.repeat(np.arange(len(self)), self.line_counts)[are_in(self.lines, lines)]] = True
        return has

    @classmethod
    def joined(cls, parts: Sequence["Fingerprints"], settings: Dedup) -> "Fingerprints":
        """Those of the batches of one unit, as one."""
        return cls(**{name: arrays.join(of_parts) for name, of_parts in by_field([_of_batch([], settings), *parts]).items()})


def by_field(parts: Sequence[Fingerprints]) -> dict[str, list[np.ndarray]]:
    return {f.name: [getattr(part, f.name) for part in parts] for f in fields(Fingerprints)}


class FingerprintWriter:
    """Those of a unit, batch by batch, into one file. However many documents there are, a part of them is in memory: the others wait
    in files beside, which `close` joins and removes."""

    def __init__(self, path: Path, settings: Dedup):
        self._path, self._settings = path, settings
        self._waiting: list[Fingerprints] = [_of_batch([], settings)]
        self._parts: list[Path] = []

    def add(self, texts: Sequence[str]) -> None:
        self._waiting.append(fingerprints(texts, self._settings))
        if sum(map(len, self._waiting)) >= PART:
            self._parts.append(self._path.with_name(f"{self._path.name}-{len(self._parts)}"))
            arrays.save(self._parts[-1], KIND, by_field(self._waiting))
            del self._waiting[1:]

    def close(self) -> None:
        arrays.save(self._path, KIND, by_field([*map(Fingerprints.load, self._parts), *self._waiting]))
        for path in self._parts:
            path.unlink()


def fingerprints(texts: Sequence[str], settings: Dedup) -> Fingerprints:
    parts = [_of_batch(batch, settings) for batch in batches(texts, BATCH_CHARACTERS)]
    return parts[0] if len(parts) == 1 else Fingerprints.joined(parts, settings)


def _of_batch(texts: Sequence[str], settings: Dedup) -> Fingerprints:
    normal, n = Normal(texts), len(texts)
    exact = b"".join(hashlib.blake2b(normal.bytes_of(i), digest_size=16).digest() for i in range(n)) if settings.exact else b""
    signature = np.zeros((settings.bands, 0, settings.rows), np.uint16)
    counts, lines = np.zeros(0, np.uint32), np.zeros(0, np.uint64)
    if settings.near or settings.lines:
        prefixes = normal.prefixes()
    if settings.near:
        minima = minhash(*normal.shingles(prefixes, settings.shingle), settings.slots)
        signature = np.ascontiguousarray(minima.reshape(n, settings.bands, settings.rows).swapaxes(0, 1))
    if settings.lines:
        lines, text, _ = normal.lines(prefixes, settings.min_line_chars)
        order = np.lexsort((lines, text))
        lines, text = lines[order], text[order]
        first = np.ones(len(lines), bool)
        first[1:] = (lines[1:] != lines[:-1]) | (text[1:] != text[:-1])
        lines, counts = lines[first], np.bincount(text[first], minlength=n).astype(np.uint32)
    sizes = (normal.stops - normal.starts).astype(np.uint32)
    return Fingerprints(np.frombuffer(exact, np.uint64).reshape(-1, 2), sizes, signature, counts, lines)


def minhash(hashes: np.ndarray, counts: np.ndarray, slots: int) -> np.ndarray:
    """(n, slots) uint16 of n sets of hashes that lie one after another, counts[i] of them in the i-th; the same value in
    a slot for two sets of Jaccard similarity s with probability s (+ 2**-16). Zeros for an empty set.

    Fast similarity sketching (Dahlgaard, Knudsen, Thorup 2017): a round throws every hash into one slot, where the least stays;
    further rounds fill only slots that are empty yet, at last one slot a round. A set of 1,000 needs one round.
    """
    n = len(counts)
    sketch = np.full(n * slots, EMPTY, np.uint32)
    base = np.repeat(np.arange(n, dtype=np.int64) * slots, counts)  # of each hash: its set's first slot
    full = np.zeros(n, bool)
    for turn in range(RANDOM_ROUNDS + slots):
        if turn:
            full = (sketch.reshape(n, slots) != EMPTY).all(axis=1) | (counts == 0)
            if full.all():
                break
            stays = ~full[base // slots]
            hashes, base = hashes[stays], base[stays]
        thrown = mixed(hashes + np.uint64(turn))
        if turn < RANDOM_ROUNDS:
            where = ((thrown >> np.uint64(32)) * np.uint64(slots) >> np.uint64(32)).astype(np.int64) + base
        else:
            where = base + (turn - RANDOM_ROUNDS)
        values = np.minimum(thrown.astype(np.uint32), EMPTY - np.uint32(1))
        if turn:
            free = sketch[where] == EMPTY
            where, values = where[free], values[free]
        np.minimum.at(sketch, where, values)
    sketch = sketch.reshape(n, slots)
    sketch[counts == 0] = 0
    return sketch.astype(np.uint16)  # the low half: of the least value, that is the random one


def shingle_sets(texts: Sequence[str], length: int) -> list[np.ndarray]:
    """The set of shingles of each text, as sorted 32-bit hashes: two that differ look alike once in 4 billion."""
    hashes, counts = (normal := Normal(texts)).shingles(normal.prefixes(), length)
    keys = np.repeat(np.arange(len(texts), dtype=np.uint64) << np.uint64(32), counts)
    keys |= hashes >> np.uint64(32)
    keys.sort()
    first = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    keys = keys[first]
    stops = np.searchsorted(keys, np.arange(1, len(texts), dtype=np.uint64) << np.uint64(32))
    return np.split(keys.astype(np.uint32), stops) if texts else []


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """Of two sorted sets without repeats: shared over all; 0 for two empty ones."""
    both = np.concatenate([a, b])
    both.sort()
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / max(1, len(both) - shared)


def without_lines(texts: Sequence[str], drop: np.ndarray, min_line_chars: int) -> list[str]:
    """The texts without the lines whose hash is in `drop`, which is sorted. `min_line_chars` as when the lines were hashed."""
    rest = list(texts)
    if not len(drop) or not rest:
        return rest
    normal = Normal(rest)
    hashes, owners, numbers = normal.lines(normal.prefixes(), min_line_chars)
    dropped = are_in(hashes, drop)
    firsts = list(accumulate((text.count("\n") + 1 for text in rest), initial=0))
    to_drop: dict[int, set[int]] = {}
    for owner, number in zip(owners[dropped].tolist(), numbers[dropped].tolist(), strict=True):
        to_drop.setdefault(owner, set()).add(number - firsts[owner])
    for owner, lines in to_drop.items():
        rest[owner] = "\n".join(line for number, line in enumerate(rest[owner].split("\n")) if number not in lines)
    return rest


def are_in(hashes: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Which of the hashes are among some, which are sorted and not none."""
    return some[np.minimum(np.searchsorted(some, hashes), len(some) - 1)] == hashes
