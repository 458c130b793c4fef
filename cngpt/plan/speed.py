"""Time, traffic and cost of training, from arithmetic and a machine's data sheet."""

from dataclasses import dataclass

from cngpt.model.shape import count, flops_per_token, tensors
from cngpt.plan.hardware import Hardware
from cngpt.plan.setup import Setup
from cngpt.plan.strategies import strategy_of


@dataclass(frozen=True)
class Speed:
    """None: not known."""

    step_seconds: float | None
    tokens_per_second: float | None
    moved: float  # bytes that a device sends in a step
    moving_seconds: float | None  # if nothing hides it
    days: float | None
    cost: float | None  # dollars


def speed(s: Setup, hardware: Hardware, tokens_per_step: int, max_steps: int) -> Speed:
    moved = bytes_moved(s)
    known = hardware.interconnect and (s.hosts == 1 or s.accelerator == "tpu")  # a GPU's links end at its host
    moving = moved / hardware.interconnect if known else None
    peak = hardware.peak(s.precision)
    if not peak or not hardware.mfu:
        return Speed(None, None, moved, moving, None, None)
    again = 4 / 3 if s.activation_checkpointing and not hardware.mfu_recomputes else 1
    computing = flops_per_token(s.shape) * tokens_per_step * again / (s.devices * peak * hardware.mfu)
    seconds = max(computing, moving or 0)  # traffic and arithmetic overlap; the slower one decides
    days = seconds * max_steps / 86400
    cost = days * 24 * s.devices * hardware.price if hardware.price else None
    return Speed(seconds, tokens_per_step / seconds, moved, moving, days, cost)


def bytes_moved(s: Setup) -> float:
    """Bytes that one device sends in an optimizer step: a ring passes (n - 1) / n of what is gathered, reduced or scattered."""
    n = s.readers
    return strategy_of(s).sent(s) * count(tensors(s.shape)) / s.tensor_parallel * (n - 1) / n
