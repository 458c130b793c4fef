"""Optimizers: torch's AdamW and Adafactor, and the seed's own Adafactor."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cngpt.model.gpt import GPT
from cngpt.training.settings import Adafactor, AdamW, Gpt2mlAdafactor
from cngpt.training.settings import Optimizer as OptimizerSettings


def decay_groups(gpt: GPT, weight_decay: float) -> list[dict]:
    """Two groups of parameters: matrices and embeddings decay, biases and norms do not."""
    params = [p for p in gpt.parameters() if p.requires_grad]
    return [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]


def adamw(gpt: GPT, s: AdamW, fused: bool | None = None, capturable: bool = False) -> Optimizer:
    """`capturable`: the count of steps lies on the device."""
    if fused is None:
        fused = all(p.device.type in ("cpu", "cuda") for p in gpt.parameters())
    groups = decay_groups(gpt, s.weight_decay)
    return torch.optim.AdamW(groups, lr=s.lr, betas=tuple(s.betas), eps=s.eps, fused=fused, capturable=capturable)


def adafactor(gpt: GPT, s: Adafactor) -> Optimizer:
    groups = decay_groups(gpt, s.weight_decay)
    # one tensor after the other: all at once takes the size of the model again, 5.6 GB for 1.5B
    return torch.optim.Adafactor(groups, lr=s.lr, beta2_decay=s.beta2_decay, d=s.clip_update, foreach=False)


def gpt2ml_adafactor(gpt: GPT, s: Gpt2mlAdafactor) -> Optimizer:
    groups, parts = decay_groups(gpt, s.weight_decay), seed_tensors(gpt)
    for group in groups:
        group["parts"] = [parts.get(id(p), [[0, p.shape[0]]]) for p in group["params"]]
    return SeedAdafactor(groups, lr=s.lr, beta2=s.beta2, clip_update=s.clip_update)


BUILDERS: dict[type[OptimizerSettings], Callable[..., Optimizer]] = {
    AdamW: adamw,
    Adafactor: adafactor,
    Gpt2mlAdafactor: gpt2ml_adafactor,
}


def build(gpt: GPT, settings: OptimizerSettings, **options) -> Optimizer:
    """The optimizer of these settings over the groups of `decay_groups`; `options` of its builder."""
    return BUILDERS[type(settings)](gpt, settings, **options)


def numbers(shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """By name of a parameter the number under which `build`'s optimizer keeps its state; `shapes` in the model's order."""
    return {name: n for n, name in enumerate(sorted(shapes, key=lambda name: len(shapes[name]) < 2))}


def seed_tensors(gpt: GPT) -> dict[int, list[list[int]]]:
    """By id of a parameter, the row ranges that are tensors of their own in the seed.

    Its queries, keys and values are three tensors, ours one; and its embedding has no padding rows.
    """
    D, V = gpt.shape.width, gpt.shape.vocab_size
    parts = {id(gpt.tok.weight): [[0, V]]}
    for module in gpt.modules():
        if isinstance(module, nn.Linear) and module.out_features == 3 * module.in_features:
            parts[id(module.weight)] = parts[id(module.bias)] = [[0, D], [D, 2 * D], [2 * D, 3 * D]]
    return parts


class SeedAdafactor(Optimizer):
    """The seed's Adafactor (optimization_adafactor.py, from Grover): a constant beta2 where Shazeer & Stern 2018 let it
    grow, no scaling by the parameter's size, no first moment, weight decay added to the clipped update.

    A group's `parts` lists for each parameter the row ranges treated as separate tensors (second moments, clipping).
    """

    EPS = 1e-30

    def __init__(self, groups, lr: float, beta2: float = 0.999, clip_update: float = 1.0, weight_decay: float = 0.0):
        super().__init__(
            groups, {"lr": lr, "beta2": beta2, "clip_update": clip_update, "weight_decay": weight_decay, "parts": None}
        )

    @torch.no_grad()
    def step(self, closure=None):
        """One update of every parameter that has a gradient; returns what the closure returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for i, p in enumerate(group["params"]):
                if p.grad is None:
                    continue
                parts = group["parts"][i] if group["parts"] else [[0, p.shape[0]]]
                state = self.state[p]
                if not state:
                    self._start(state, p, parts)
                for n, (first, end) in enumerate(parts):
                    self._update(p[first:end], p.grad[first:end], state, n, group)
        return loss

    @staticmethod
    def _start(state: dict, p: Tensor, parts: list) -> None:
        for n, (first, end) in enumerate(parts):
            if p.ndim == 2:
                state[f"rows_{n}"] = p.new_zeros(end - first, dtype=torch.float32)
                state[f"columns_{n}"] = p.new_zeros(p.shape[1], dtype=torch.float32)
            else:
                state[f"square_{n}"] = p.new_zeros(end - first, dtype=torch.float32)

    def _update(self, p: Tensor, grad: Tensor, state: dict, n: int, group: dict) -> None:
        grad = grad.float()
        square, decay = grad.square() + self.EPS, 1 - group["beta2"]
        if p.ndim == 2:
            rows, columns = state[f"rows_{n}"], state[f"columns_{n}"]
            rows.lerp_(square.mean(1), decay)
            columns.lerp_(square.mean(0), decay)
            update = grad * (rows / rows.mean() + self.EPS).rsqrt()[:, None] * (columns + self.EPS).rsqrt()
        else:
            state[f"square_{n}"].lerp_(square, decay)
            update = grad * (state[f"square_{n}"] + self.EPS).rsqrt()
        update /= (update.square().mean().sqrt() / group["clip_update"]).clamp(min=1.0)
        update += group["weight_decay"] * p
        p -= group["lr"] * update
