"""Which window of tokens is read n-th: a pure function of (seed, n), so resuming is only a starting number.

Every epoch reads each window once, in a new shuffle. The shuffle is a Feistel network over window numbers (Luby & Rackoff
1988) with cycle-walking, so no list of billions is ever made.
"""

from dataclasses import dataclass

import numpy as np

from cngpt.errors import ConfigError

ROUNDS = 6
MASK = (1 << 64) - 1


def mix(x: int) -> int:
    """64 bits in, 64 well-stirred bits out (splitmix64's finaliser)."""
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def stir(x: np.ndarray, key: int) -> np.ndarray:
    """The round function: `mix` on an array of uint64."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(key)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def shuffle(index: np.ndarray, count: int, key: int) -> np.ndarray:
    """A permutation of range(count), evaluated at `index` (any shape, int64)."""
    half = max(1, -(-(count - 1).bit_length() // 2))
    low = np.uint64((1 << half) - 1)
    keys = [mix(key ^ mix(r)) for r in range(ROUNDS)]

    def once(x: np.ndarray) -> np.ndarray:
        left, right = x >> np.uint64(half), x & low
        for k in keys:
            left, right = right, left ^ (stir(right, k) & low)
        return (left << np.uint64(half)) | right

    x = once(np.asarray(index).astype(np.uint64))
    while (outside := x >= count).any():  # walk on until inside; the domain is at most four times `count`
        x[outside] = once(x[outside])
    return x.astype(np.int64)


def window(n, seed: int, count: int):
    """The number of the window read n-th, of `count`; n an int or an int64 array of any shape."""
    n = np.asarray(n, dtype=np.int64)
    epoch, place = np.divmod(n, count)
    result = np.empty(n.shape, dtype=np.int64)
    for e in np.unique(epoch):
        here = epoch == e
        result[here] = shuffle(place[here], count, mix(seed) ^ mix(int(e) + (1 << 32)))
    return result if result.ndim else int(result)


@dataclass(frozen=True)
class Batches:
    """How one optimizer step's windows are dealt: rank r of `world` reads its slice of the global batch, in
    `accumulate` micro-batches of `micro` windows. The global order is the same for every world and accumulation."""

    micro: int
    accumulate: int
    world: int = 1

    @property
    def windows(self) -> int:
        """Windows in one optimizer step, over all ranks."""
        return self.micro * self.accumulate * self.world

    def numbers(self, step: int, part: int, rank: int) -> np.ndarray:
        """(micro,) places in the order for micro-batch `part` of `step` on `rank`."""
        start = step * self.windows + (rank * self.accumulate + part) * self.micro
        return np.arange(start, start + self.micro)


def divide(tokens_per_step: int, n_ctx: int, world: int, micro_batch: int | str, micro_batch_tokens: int) -> Batches:
    """The micro-batch and accumulation that make `tokens_per_step` on `world` devices.

    micro_batch="auto" takes the most windows that divide a device's share and hold at most `micro_batch_tokens` tokens.
    ConfigError names the nearest sizes where nothing divides.
    """
    unit = world * n_ctx * (1 if micro_batch == "auto" else micro_batch)
    if tokens_per_step % unit or tokens_per_step < unit:
        low = max(1, tokens_per_step // unit) * unit
        by = f"{world} devices x " + ("" if micro_batch == "auto" else f"{micro_batch} windows x ") + f"{n_ctx} tokens"
        near = f"{low}, {low + unit}" if tokens_per_step > unit else f"{low}"
        raise ConfigError(f"tokens_per_step={tokens_per_step} does not divide by {by}; nearest: {near}")
    share = tokens_per_step // (world * n_ctx)
    if micro_batch == "auto":
        limit = max(1, micro_batch_tokens // n_ctx)
        micro_batch = max(n for n in range(1, share + 1) if share % n == 0 and n <= limit)
    return Batches(micro=micro_batch, accumulate=share // micro_batch, world=world)
