"""Texts as one flat array of normalised characters, and 64-bit hashes of any stretch of it.

Normalised: white space, punctuation and invisible characters gone, ASCII letters small. What counts are UTF-16 units, so a rare
character beyond U+FFFF counts as two.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np

MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2**64
NEWLINE = ord("\n")


class Normal:
    """A batch of n texts. All positions count normalised characters of the whole batch."""

    def __init__(self, texts: Sequence[str]):
        encoded = [text.encode("utf-16-le", "surrogatepass") for text in texts]
        self._raw = np.frombuffer(b"".join(encoded), np.uint16)
        self._raw_stops = np.cumsum([len(e) // 2 for e in encoded], dtype=np.int64)
        folded = _folded()[self._raw]
        kept = folded != 0
        # of raw characters among the normalised ones
        self._position = np.concatenate([[0], np.cumsum(kept, dtype=np.int64)])
        self.characters = folded[kept]  # (characters,) uint16
        self.stops = self._position[self._raw_stops]  # (n,)
        self.starts = np.concatenate([[0], self.stops[:-1]]) if len(texts) else self.stops
        self._texts = texts

    def prefixes(self) -> np.ndarray:
        """(characters + 1,) uint64: the sum of value(c) * MULTIPLIER**i over the characters c before each position i."""
        sums = np.zeros(len(self.characters) + 1, np.uint64)
        np.cumsum(_values()[self.characters] * powers(len(self.characters), MULTIPLIER), out=sums[1:])
        return sums

    def shingles(self, prefixes: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Hashes of every `length` characters in a row, never across texts: (all of them, flat; how many in each text)."""
        counts = np.maximum(self.stops - self.starts - length + 1, 0)
        n = len(self.characters) - length + 1
        if n <= 0:
            return np.zeros(0, np.uint64), counts
        hashes = prefixes[length:] - prefixes[:-length]
        hashes *= powers(n, _INVERSE)
        inside = np.ones(n, bool)
        for back in range(1, length):
            crossing = self.stops - back
            inside[crossing[(crossing >= 0) & (crossing < n)]] = False
        return mixed(hashes[inside]), counts

    def lines(self, prefixes: np.ndarray, min_chars: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(hash, text, number counted through the batch) of each line that has `min_chars` normalised characters or more."""
        raw_stops = np.concatenate([np.flatnonzero(self._raw == NEWLINE), self._raw_stops])
        raw_stops.sort()
        stops = self._position[raw_stops]
        lengths = np.diff(stops, prepend=0)
        long = np.flatnonzero(lengths >= min_chars)
        text = np.searchsorted(self._raw_stops, raw_stops[long])  # the first text that ends at the line's end or later
        starts = stops[long] - lengths[long]
        hashes = (prefixes[stops[long]] - prefixes[starts]) * powers(len(self.characters) + 1, _INVERSE)[starts]
        return mixed(hashes + lengths[long].astype(np.uint64)), text, long

    def bytes_of(self, n: int) -> bytes:
        """What decides whether a text is the same as another; of a text without any letter, the text as it is."""
        if self.stops[n] == self.starts[n]:
            return b"\n" + self._texts[n].encode("utf-8", "surrogatepass")
        return self.characters[self.starts[n] : self.stops[n]].tobytes()


def mixed(hashes: np.ndarray) -> np.ndarray:
    """Every bit of the result depends on every bit of the argument, which is overwritten (the finalizer of splitmix64)."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes ^= hashes >> np.uint64(shift)
        hashes *= np.uint64(factor)
    hashes ^= hashes >> np.uint64(31)
    return hashes


def powers(n: int, base: int) -> np.ndarray:
    """(n,) uint64: base**0, base**1, ... modulo 2**64."""
    if base not in _powers or n > len(_powers[base]):
        table = np.full(max(n, 1 << 16), base, np.uint64)
        table[0] = 1
        _powers[base] = np.cumprod(table)
    return _powers[base][:n]


_INVERSE = pow(MULTIPLIER, -1, 1 << 64)
_powers: dict[int, np.ndarray] = {}


@cache
def _folded() -> np.ndarray:
    """(65536,) uint16: what a character counts as, 0 for those that count for nothing."""
    table = np.arange(1 << 16, dtype=np.uint16)
    for code in range(1 << 16):
        category = unicodedata.category(chr(code))
        if category[0] in "PZ" or category in ("Cc", "Cf", "Cn"):
            table[code] = 0
    table[ord("A") : ord("Z") + 1] += 32
    return table


@cache
def _values() -> np.ndarray:
    """(65536,) uint64: a character as a random number, the same in every process."""
    return mixed(np.arange(1, (1 << 16) + 1, dtype=np.uint64) * np.uint64(MULTIPLIER))
