"""How the next token is chosen: pure functions on logits. B rows, V vocabulary."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cngpt.errors import ConfigError, nearest

MANNERS = ("usual", "gpt2ml")


@dataclass(frozen=True)
class Sampling:
    """The keys of conf/generation, checked: a wrong value raises ConfigError before anything slow."""

    temperature: float = 0.9  # 0: the likeliest token each time
    top_k: int = 0  # 0: off
    top_p: float = 0.9  # 1: off
    nucleus: str = "usual"  # or "gpt2ml", see `top_p`; there the pad is the only token that never comes
    stop: str = "usual"  # at EOS, which is left out. "gpt2ml": at an EOS beyond min_len, which stays, or when the context is full
    min_len: int = 0  # tokens, the prompt's included; for stop="gpt2ml"
    join: str = "usual"  # as a reader would print it. "gpt2ml": tokens without ##, [UNK] and any space
    repetition_penalty: float = 1.0
    min_new_tokens: int = 0  # 0: none, but 100 where the end of text is a full stop
    max_new_tokens: int = 200
    seed: int = 1

    def __post_init__(self):
        self._need("temperature", float, lambda t: 0 <= t < math.inf, "a number from 0 (the likeliest token each time)")
        self._need("top_k", int, lambda k: k >= 0, "a whole number from 0 (off)")
        self._need("top_p", float, lambda p: 0 <= p <= 1, "a number from 0 to 1 (off)")
        for key in ("nucleus", "stop", "join"):
            if (value := getattr(self, key)) not in MANNERS:
                raise ConfigError(f"generation.{key}={value}: must be one of {', '.join(MANNERS)}.{nearest(str(value), MANNERS)}")
        self._need("repetition_penalty", float, lambda r: 0 < r < math.inf, "a number above 0 (1: off)")
        self._need("max_new_tokens", int, lambda n: n >= 1, "a whole number from 1")
        self._need("min_new_tokens", int, lambda n: n >= 0, "a whole number from 0")
        if (low := self.min_new_tokens) > (high := self.max_new_tokens):
            raise ConfigError(f"generation.min_new_tokens={low}: must be at most max_new_tokens, {high}")
        self._need("min_len", int, lambda n: n >= 0, "a whole number from 0")
        if self.min_len and self.stop != "gpt2ml":
            raise ConfigError(f"generation.min_len={self.min_len}: goes with generation.stop=gpt2ml; else min_new_tokens=...")
        self._need("seed", int, lambda s: True, "a whole number")

    def _need(self, key: str, kind: type, allowed, what: str) -> None:
        value = getattr(self, key)
        number = isinstance(value, int | kind) and not isinstance(value, bool)
        if not number or not allowed(value):
            raise ConfigError(f"generation.{key}={value}: must be {what}")


def generator(seed: int, sample: int, prompt: Sequence[int]) -> np.random.Generator:
    """The random numbers of one text: a function of (seed, which sample of this prompt, the prompt's ids) and of nothing else."""
    digest = hashlib.sha256(f"{seed} {sample} {' '.join(map(str, prompt))}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest)))


def choose(
    logits: Tensor, sampling: Sampling, banned: Tensor, said: Tensor | None, generators: list[np.random.Generator]
) -> Tensor:
    """(B, V) of any float type -> (B,): the next token of each row.

    banned (V,) is True for ids that never come, said (B, V) for those that were already said (only read where there is a
    repetition penalty). Each row takes one number from its own generator, none when temperature is 0.
    """
    logits = logits.float()
    if sampling.repetition_penalty != 1:
        logits = repetition_penalty(logits, said, sampling.repetition_penalty)
    logits = logits.masked_fill(banned, -math.inf)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    logits = logits / sampling.temperature
    if sampling.top_k:
        logits = top_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        logits = top_p(logits, sampling.top_p, sampling.nucleus)
    return draw(logits, [g.random() for g in generators])


def repetition_penalty(logits: Tensor, said: Tensor, penalty: float) -> Tensor:
    """(B, V), (B, V) bool -> (B, V). Keskar et al. 2019 (CTRL), section 4.1, which divides the logits of what was said by the
    penalty; here, as everywhere since, negative logits are multiplied, for dividing them would make them likelier."""
    return torch.where(said, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def top_k(logits: Tensor, k: int) -> Tensor:
    """(B, V) -> (B, V): all but the k highest become -inf; equals of the k-th stay."""
    lowest = logits.topk(min(k, logits.shape[-1])).values[:, -1:]
    return logits.masked_fill(logits < lowest, -math.inf)


def top_p(logits: Tensor, p: float, nucleus: str = "usual") -> Tensor:
    """(B, V) -> (B, V): all outside the nucleus become -inf; the likeliest always stays, and equals of the last that stays.

    "usual" (Holtzman et al. 2020): the fewest tokens whose probabilities sum up to p or more. "gpt2ml" (the seed's
    sample.py): the token that crosses p is dropped.
    """
    probabilities = logits.softmax(-1)
    ordered = descending(probabilities)
    total = ordered.cumsum(-1)
    inside = total - ordered < p if nucleus == "usual" else total < p
    size = inside.sum(-1, keepdim=True).clamp(min=1)
    return logits.masked_fill(probabilities < ordered.gather(-1, size - 1), -math.inf)


def descending(values: Tensor) -> Tensor:
    """Each row sorted. NumPy, because torch's sort on a CPU takes 30 times as long (480 and 15 us for 8,704 numbers)."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=-1)).flip(-1)
    return values.sort(dim=-1, descending=True).values


def draw(logits: Tensor, uniform: list[float]) -> Tensor:
    """(B, V), B numbers in [0, 1) -> (B,): the token at which the cumulative probability passes the number."""
    exact = torch.float32 if logits.device.type == "mps" else torch.float64  # MPS has no float64
    probabilities = logits.softmax(-1, dtype=exact)
    total = probabilities.cumsum(-1)
    at = torch.tensor(uniform, dtype=exact, device=logits.device)[:, None] * total[:, -1:]
    token = torch.searchsorted(total, at, right=True).clamp(max=logits.shape[-1] - 1)
    # a GPU adds in parallel, so its sums may creep up over probabilities of zero: never take one of those
    token = torch.where(probabilities.gather(-1, token) > 0, token, probabilities.argmax(-1, keepdim=True))
    return token[:, 0]
