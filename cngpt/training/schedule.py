"""The learning rate as a factor on its peak: step number in, factor out. The group `schedule` names one of these."""

import math
from typing import Annotated, Literal

from cngpt.errors import ConfigError
from cngpt.settings import Field, Hints, Positive, Settings, Text

Warmup = Annotated[int, Hints("warmup")]


def warmup(step: int, warmup_steps: int) -> float:
    """Rises in a straight line to 1 at `warmup_steps`; the first step already learns."""
    return min(1.0, (step + 1) / (warmup_steps + 1))


class Schedule(Settings, group="schedule"):
    """What every schedule has."""

    name: Text = Field(description="which curve the rate follows")
    warmup_steps: Warmup = Field(ge=0, description="steps until the rate is at its peak")

    def factor(self, step: int) -> float:
        """The factor of this step, from 0 to 1."""
        raise NotImplementedError

    def fitted(self) -> "Schedule":
        """The same with a warmup that fits into the steps: a tenth of them, where the recipe's does not."""
        total = getattr(self, "total_steps", None)
        if total is None or self.warmup_steps < total:
            return self
        return self.model_copy(update={"warmup_steps": total // 10})

    def check(self) -> None:
        """ConfigError where the peak is never reached."""
        total = getattr(self, "total_steps", None)
        if total is not None and self.warmup_steps >= total:
            raise ConfigError(
                f"schedule.warmup_steps={self.warmup_steps}: must be below schedule.total_steps={total}, else the peak is never reached"
            )


class Constant(Schedule):
    """Warmup, then 1."""

    name: Literal["constant"] = "constant"

    def factor(self, step: int) -> float:
        return warmup(step, self.warmup_steps)


class Cosine(Schedule):
    """Warmup, then half a cosine from 1 down to `final` at `total_steps`, and `final` after."""

    name: Literal["cosine"] = "cosine"
    total_steps: Positive = Field(description="steps until the rate has come down")
    final: float = Field(0.1, ge=0, le=1, description="of the peak, at the end")

    def factor(self, step: int) -> float:
        if step < self.warmup_steps:
            return warmup(step, self.warmup_steps)
        done = min(1.0, (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done))


class Linear(Schedule):
    """Warmup, then a straight line from 1 down to 0 at `total_steps`."""

    name: Literal["linear"] = "linear"
    total_steps: Positive = Field(description="steps until the rate has come down")

    def factor(self, step: int) -> float:
        if step < self.warmup_steps:
            return warmup(step, self.warmup_steps)
        return max(0.0, (self.total_steps - step) / max(1, self.total_steps - self.warmup_steps))


class Wsd(Schedule):
    """Warmup, stable, decay (Hu et al. 2024, MiniCPM): 1 until the last `decay_fraction` of the steps, then down to 0."""

    name: Literal["wsd"] = "wsd"
    total_steps: Positive = Field(description="steps until the rate has come down")
    decay_fraction: float = Field(0.1, ge=0, le=1, description="of the steps, in which the rate comes down")

    def factor(self, step: int) -> float:
        decay_steps = max(1, round(self.total_steps * self.decay_fraction))
        return min(warmup(step, self.warmup_steps), max(0.0, (self.total_steps - step) / decay_steps))


class Gpt2ml(Schedule):
    """The seed's (optimization_adafactor.py): a straight line from 1 at step 0 down to 0; while step < warmup_steps,
    step / warmup_steps instead, so the first step learns nothing and the rate falls a little where warmup ends."""

    name: Literal["gpt2ml"] = "gpt2ml"
    total_steps: Positive = Field(description="steps until the rate has come down")

    def factor(self, step: int) -> float:
        if step < self.warmup_steps:
            return step / self.warmup_steps
        return 1 - min(step, self.total_steps) / self.total_steps


SCHEDULES: dict[str, type[Schedule]] = {
    "cosine": Cosine,
    "linear": Linear,
    "wsd": Wsd,
    "constant": Constant,
    "gpt2ml": Gpt2ml,
}
