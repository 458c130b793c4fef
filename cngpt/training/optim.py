"""Optimizers: torch's AdamW and Adafactor, and the seed's own Adafactor."""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cngpt.errors import ConfigError
from cngpt.model import GPT


def build(gpt: GPT, name: str, lr: float, weight_decay: float, **options) -> Optimizer:
    """An optimizer over two groups: matrices and embeddings decay, biases and norms do not."""
    params = [p for p in gpt.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]
    if name == "adamw":
        fused = all(p.device.type in ("cpu", "cuda") for p in params)
        on_device = all(p.device.type == "xla" for p in params)  # the number of the step, too: it would be a constant to compile
        betas = tuple(options["betas"])
        return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=options["eps"], fused=fused, capturable=on_device)
    if name == "adafactor":
        if all(p.device.type == "xla" for p in params):
            return AdafactorOnDevice(groups, lr=lr, beta2_decay=options["beta2_decay"], d=options["clip_update"])
        # one tensor after the other: all at once takes the size of the model again, 5.6 GB for 1.5B
        return torch.optim.Adafactor(groups, lr=lr, beta2_decay=options["beta2_decay"], d=options["clip_update"], foreach=False)
    if name == "gpt2ml_adafactor":
        parts = seed_tensors(gpt)
        for group in groups:
            group["parts"] = [parts.get(id(p), [[0, p.shape[0]]]) for p in group["params"]]
        return Gpt2mlAdafactor(groups, lr=lr, beta2=options["beta2"], clip_update=options["clip_update"])
    raise ConfigError(f"optim.name={name}: one of adamw, adafactor, gpt2ml_adafactor")


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


class AdafactorOnDevice(torch.optim.Adafactor):
    """torch's Adafactor (torch/optim/_adafactor.py, same state) without its reading of norms from the device, two a tensor:
    what is read ends a program of XLA's, and would be a constant of the next."""

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, group)
        return loss

    def _update(self, p: Tensor, grad: Tensor, group: dict) -> None:
        state, d, (eps1, eps2) = self.state[p], group["d"], group["eps"]
        eps1 = torch.finfo(p.dtype).eps if eps1 is None else eps1
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
            if p.ndim > 1:
                state["row_var"], state["col_var"] = p.new_zeros(*p.shape[:-1], 1), p.new_zeros(*p.shape[:-2], 1, p.shape[-1])
            else:
                state["variance"] = torch.zeros_like(p)
        state["step"] += 1
        forget = state["step"] ** group["beta2_decay"]
        rate = rms(p).clamp(min=eps2) * torch.minimum(torch.as_tensor(group["lr"], device=p.device), state["step"].rsqrt())
        p.mul_(1 - group["lr"] * group["weight_decay"])
        square = grad.square()
        if p.ndim > 1:
            rows, columns = state["row_var"], state["col_var"]
            rows.lerp_(square.mean(-1, keepdim=True), forget)
            columns.lerp_(square.mean(-2, keepdim=True), forget)
            estimate = rows * columns / rows.mean(-2, keepdim=True).clamp(min=eps1)
        else:
            estimate = state["variance"].lerp_(square, forget)
        update = estimate.clamp(min=eps1 * eps1).rsqrt() * grad
        p.sub_(update * (rate / (rms(update) / d).clamp(min=1.0)))


def rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


class Gpt2mlAdafactor(Optimizer):
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
        square, forget = grad.square() + self.EPS, 1 - group["beta2"]
        if p.ndim == 2:
            rows, columns = state[f"rows_{n}"], state[f"columns_{n}"]
            rows.lerp_(square.mean(1), forget)
            columns.lerp_(square.mean(0), forget)
            update = grad * (rows / rows.mean() + self.EPS).rsqrt()[:, None] * (columns + self.EPS).rsqrt()
        else:
            state[f"square_{n}"].lerp_(square, forget)
            update = grad * (state[f"square_{n}"] + self.EPS).rsqrt()
        update /= (update.square().mean().sqrt() / group["clip_update"]).clamp(min=1.0)
        update += group["weight_decay"] * p
        p -= group["lr"] * update
