"""How the next token is chosen: pure functions on logits. B rows, V vocabulary."""

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cngpt.generation.settings import Sampling


def generator(seed: int, sample: int, prompt: Sequence[int]) -> np.random.Generator:
    """The random numbers of one text: a function of (seed, which sample of this prompt, the prompt's ids) and of nothing else."""
    digest = hashlib.sha256(f"{seed} {sample} {' '.join(map(str, prompt))}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest)))


def choose(
    logits: Tensor, sampling: Sampling, banned: Tensor, seen_tokens: Tensor | None, generators: list[np.random.Generator]
) -> Tensor:
    """(B, V) of any float type -> (B,): the next token of each row.

    banned (V,) is True for ids that never come, seen_tokens (B, V) for those that the row has already; it is read only where
    there is a repetition penalty. Each row takes one number from its own generator, none when temperature is 0.
    """
    logits = logits.float()
    if sampling.repetition_penalty != 1:
        logits = repetition_penalty(logits, seen_tokens, sampling.repetition_penalty)
    logits = logits.masked_fill(banned, -math.inf)
    if sampling.temperature == 0:
        return logits.argmax(-1)
    logits = logits / sampling.temperature
    if sampling.top_k:
        logits = top_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        logits = top_p(logits, sampling.top_p, keep_crossing=not sampling.as_gpt2ml)
    return draw(logits, [g.random() for g in generators])


def repetition_penalty(logits: Tensor, seen_tokens: Tensor, penalty: float) -> Tensor:
    """(B, V), (B, V) bool -> (B, V). Keskar et al. 2019 (CTRL), section 4.1, which divides the logits of seen tokens by the
    penalty; here, as everywhere since, negative logits are multiplied, because dividing them would make the tokens likelier."""
    return torch.where(seen_tokens, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def top_k(logits: Tensor, k: int) -> Tensor:
    """(B, V) -> (B, V): all but the k highest become -inf; equals of the k-th stay."""
    lowest = logits.topk(min(k, logits.shape[-1])).values[:, -1:]
    return logits.masked_fill(logits < lowest, -math.inf)


def top_p(logits: Tensor, p: float, keep_crossing: bool = True) -> Tensor:
    """(B, V) -> (B, V): all outside the nucleus become -inf; the likeliest always stays, and equals of the last that stays.

    The nucleus is the fewest tokens whose probabilities sum up to p or more (Holtzman et al. 2020). Without keep_crossing the token
    that crosses p is dropped, as in the sample.py of gpt2-ml.
    """
    probabilities = logits.softmax(-1)
    ordered = descending(probabilities)
    total = ordered.cumsum(-1)
    inside = total - ordered < p if keep_crossing else total < p
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
    # A GPU adds in parallel, so its sums may grow over probabilities of zero: never take one of those.
    token = torch.where(probabilities.gather(-1, token) > 0, token, probabilities.argmax(-1, keepdim=True))
    return token[:, 0]
