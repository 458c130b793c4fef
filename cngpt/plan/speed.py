"""Time, traffic and cost of training, from arithmetic and a machine's data sheet."""

from dataclasses import dataclass

from cngpt.plan import tensors
from cngpt.plan.flops import flops_per_token
from cngpt.plan.memory import compute_bytes, weight_bytes
from cngpt.plan.setup import Hardware, Setup


@dataclass(frozen=True)
class Speed:
    """None: not known."""

    step_seconds: float | None
    tokens_per_second: float | None
    moved: float  # bytes that a device sends in a step
    moving_seconds: float | None  # if nothing hides it
    days: float | None
    cost: float | None  # dollars


def speed(setup: Setup, hardware: Hardware, tokens_per_step: int, max_steps: int) -> Speed:
    moved = bytes_moved(setup)
    known = hardware.interconnect and (setup.hosts == 1 or setup.accelerator == "tpu")  # a GPU's links end at its host
    moving = moved / hardware.interconnect if known else None
    peak = hardware.peak(setup.precision)
    if not peak or not hardware.mfu:
        return Speed(None, None, moved, moving, None, None)
    again = 4 / 3 if setup.activation_checkpointing and not hardware.mfu_recomputes else 1
    computing = flops_per_token(**setup.model) * tokens_per_step * again / (setup.devices * peak * hardware.mfu)
    seconds = max(computing, moving or 0)  # traffic and arithmetic overlap; the slower one decides
    days = seconds * max_steps / 86400
    cost = days * 24 * setup.devices * hardware.price if hardware.price else None
    return Speed(seconds, tokens_per_step / seconds, moved, moving, days, cost)


def mfu_of(model: dict, tokens_per_step: int, steps_per_second: float, devices: int, peak: float) -> float:
    """The share of the peak that a run of known speed reached."""
    return flops_per_token(**model) * tokens_per_step * steps_per_second / (devices * peak)


def bytes_moved(setup: Setup) -> float:
    """Bytes that one device sends in an optimizer step: a ring passes (n - 1) / n of what is gathered, reduced or scattered."""
    n, k = setup.readers, setup.accumulate
    P, w, c = tensors.count(tensors.shapes(**setup.model)), weight_bytes(setup), compute_bytes(setup)
    passes = {
        "single": 0,
        "ddp": 2 * w,  # gradients, scattered and gathered, once a step
        "fsdp": 3 * w * k,  # weights for forward and backward, gradients; for each micro-batch
        # in the type of the products, and once more where activations are computed again; gradients
        "xla": (c * (2 if setup.activation_checkpointing else 1) + w) * k,
        "deepspeed_zero2": c * k + c,
        "deepspeed_zero3": 3 * c * k,
    }[setup.strategy]
    return passes * P / setup.tensor_parallel * (n - 1) / n
