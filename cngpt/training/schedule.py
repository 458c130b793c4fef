"""The learning rate as a factor on its peak: step number in, factor out."""

import math


def warmup(step: int, warmup_steps: int) -> float:
    """Rises in a straight line to 1 at `warmup_steps`; the first step already learns."""
    return min(1.0, (step + 1) / (warmup_steps + 1))


def cosine(step: int, warmup_steps: int, total_steps: int, final: float = 0.1) -> float:
    """Warmup, then half a cosine from 1 down to `final` at `total_steps`, and `final` after."""
    if step < warmup_steps:
        return warmup(step, warmup_steps)
    done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done))


def linear(step: int, warmup_steps: int, total_steps: int) -> float:
    """Warmup, then a straight line from 1 down to 0 at `total_steps`."""
    if step < warmup_steps:
        return warmup(step, warmup_steps)
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))


def wsd(step: int, warmup_steps: int, total_steps: int, decay_fraction: float = 0.1) -> float:
    """Warmup, stable, decay (Hu et al. 2024, MiniCPM): 1 until the last `decay_fraction` of the steps, then down to 0."""
    decay_steps = max(1, round(total_steps * decay_fraction))
    return min(warmup(step, warmup_steps), max(0.0, (total_steps - step) / decay_steps))


def constant(step: int, warmup_steps: int) -> float:
    """Warmup, then 1."""
    return warmup(step, warmup_steps)


def gpt2ml(step: int, warmup_steps: int, total_steps: int) -> float:
    """The seed's (optimization_adafactor.py): a straight line from 1 at step 0 down to 0; while step < warmup_steps,
    step / warmup_steps instead, so the first step learns nothing and the rate falls a little where warmup ends."""
    if step < warmup_steps:
        return step / warmup_steps
    return 1 - min(step, total_steps) / total_steps


SCHEDULES = {f.__name__: f for f in (cosine, linear, wsd, constant, gpt2ml)}
