"""Optimizers whose every number stays on the device: what is read from it ends a program of XLA's, and would be a constant of the next."""

import torch
from torch import Tensor


class AdafactorOnDevice(torch.optim.Adafactor):
    """torch's Adafactor (torch/optim/_adafactor.py, same state) without its reading of norms from the device, two a tensor."""

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
        decay = state["step"] ** group["beta2_decay"]
        rate = rms(p).clamp(min=eps2) * torch.minimum(torch.as_tensor(group["lr"], device=p.device), state["step"].rsqrt())
        p.mul_(1 - group["lr"] * group["weight_decay"])
        square = grad.square()
        if p.ndim > 1:
            rows, columns = state["row_var"], state["col_var"]
            rows.lerp_(square.mean(-1, keepdim=True), decay)
            columns.lerp_(square.mean(-2, keepdim=True), decay)
            estimate = rows * columns / rows.mean(-2, keepdim=True).clamp(min=eps1)
        else:
            estimate = state["variance"].lerp_(square, decay)
        update = estimate.clamp(min=eps1 * eps1).rsqrt() * grad
        p.sub_(update * (rate / (rms(update) / d).clamp(min=1.0)))


def rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()
