"""Which window of tokens is read n-th: a pure function of (seed, n), so resuming needs only the number to start at.

Every epoch reads each window once, in a new shuffle. The shuffle is a Feistel network over window numbers (Luby & Rackoff
1988) with cycle-walking, so it needs no list of all windows.
"""

from dataclasses import dataclass

import numpy as np

from cngpt.errors import ConfigError

ROUNDS = 6
MASK = (1 << 64) - 1


def mix(x: int) -> int:
    """A hash of 64 bits to 64 bits: one step of splitmix64."""
    return _scramble((x + 0x9E3779B97F4A7C15) & MASK)


def _scramble(x: int | np.ndarray) -> int | np.ndarray:
    """The output function of splitmix64; an int below 2^64, or an array of uint64."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def shuffle(index: np.ndarray, count: int, key: int) -> np.ndarray:
    """A permutation of range(count), evaluated at `index` (any shape, int64)."""
    half = max(1, -(-(count - 1).bit_length() // 2))
    low = np.uint64((1 << half) - 1)
    keys = [np.uint64(mix(key ^ mix(r))) for r in range(ROUNDS)]

    def once(x: np.ndarray) -> np.ndarray:
        left, right = x >> np.uint64(half), x & low
        with np.errstate(over="ignore"):
            for k in keys:
                left, right = right, left ^ (_scramble(right + k) & low)
        return (left << np.uint64(half)) | right

    x = once(np.asarray(index).astype(np.uint64))
    # cycle-walking: what falls outside is permuted again; the domain is at most four times `count`
    while (outside := x >= count).any():
        x[outside] = once(x[outside])
    return x.astype(np.int64)


def window(n, seed: int, count: int):
    """The number of the window read n-th, of `count`; n an int or an int64 array of any shape."""
    n = np.asarray(n, dtype=np.int64)
    epoch, position = np.divmod(n, count)
    result = np.empty(n.shape, dtype=np.int64)
    for e in np.unique(epoch):
        of_epoch = epoch == e
        result[of_epoch] = shuffle(position[of_epoch], count, mix(seed) ^ mix(int(e) + (1 << 32)))
    return result if result.ndim else int(result)


@dataclass(frozen=True)
class Batches:
    """How the windows of one optimizer step are distributed: each of `world` ranks reads its slice of the global batch, in
    `accumulate` micro-batches of `micro` windows. The global order is the same for every world size and accumulation."""

    micro: int
    accumulate: int
    world: int = 1

    @property
    def per_device(self) -> tuple[int, int]:
        """(micro-batch, accumulation): what the planner asks."""
        return self.micro, self.accumulate

    @property
    def windows(self) -> int:
        """Windows in one optimizer step, over all ranks."""
        return self.micro * self.accumulate * self.world

    def numbers(self, step: int, part: int, rank: int) -> np.ndarray:
        """(micro,): which numbers n of the order micro-batch `part` of `step` reads on `rank`."""
        start = step * self.windows + (rank * self.accumulate + part) * self.micro
        return np.arange(start, start + self.micro)


def divide(tokens_per_step: int, n_ctx: int, world: int, micro_batch: int | str, micro_batch_tokens: int) -> Batches:
    """The micro-batch and accumulation that make `tokens_per_step` on `world` devices.

    micro_batch="auto" takes the most windows that divide a device's share and hold at most `micro_batch_tokens` tokens.
    Raises ConfigError, with the nearest sizes, where tokens_per_step does not divide.
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
