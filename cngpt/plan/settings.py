"""The groups `trainer` and `plan`: how a model is spread over a machine. Training reads the same class."""

from typing import Annotated, Literal

from cngpt.plan import machine
from cngpt.plan.strategies import STRATEGIES
from cngpt.settings import Field, Hints, OneOf, Positive, PositiveNumber, PositiveOrAuto, Settings


class Trainer(Settings, group="trainer"):
    """How a model is spread over devices, and what one step does there."""

    accelerator: Literal["cpu", "gpu", "mps", "tpu"] = Field(description="kind of device")
    devices: Annotated[PositiveOrAuto, Hints("gpus", "num_gpus", "nproc", "workers")] = Field(
        description="processes, or accelerators, on each host; auto: all"
    )
    num_nodes: Annotated[Positive, Hints("nodes", "hosts")] = Field(1, description="hosts")
    strategy: Annotated[str, OneOf(STRATEGIES)] = Field(description="how the model is spread over the devices")
    precision: Annotated[
        Literal["32-true", "bf16-mixed", "bf16-true", "auto"], Hints("fp16", "bf16", "dtype", "amp", "half", "mixed_precision")
    ] = Field(description="bf16-mixed: weights in float32, products in bfloat16; auto: that where it is fast")
    micro_batch: Annotated[PositiveOrAuto, Hints("micro_batch_size", "per_device_batch_size")] = Field(
        "auto", description="windows a device reads at once; auto: the most that divide, up to micro_batch_tokens"
    )
    micro_batch_tokens: Positive = Field(2048, description="tokens a device reads at once at most, with micro_batch=auto")
    clip_norm: Annotated[PositiveNumber | None, Hints("grad_clip", "gradient_clip_val", "max_grad_norm")] = Field(
        1.0, description="of the gradients of one step; null: off"
    )
    compile: bool = Field(False, description="torch.compile: 20 to 50 s at the start, then faster in bf16")
    activation_checkpointing: Annotated[bool, Hints("gradient_checkpointing")] = Field(
        False, description="recompute activations in the backward pass: a third slower, far less memory"
    )
    tensor_parallel: Positive = Field(1, description="fsdp: devices that cut the matrices of each MLP and read the same windows")
    offload: bool = Field(
        False, description="deepspeed_*: optimizer state (zero3: weights too) waits in the host's memory; far slower"
    )
    num_workers: int = Field(0, ge=0, description="extra processes that read data; reading is rarely the brake")

    @property
    def spans_hosts(self) -> bool:
        """Whether several hosts may run it, which do not tell each other before training starts."""
        return self.num_nodes > 1 or self.accelerator == "tpu"

    def settled(self, here: bool = True) -> "Trainer":
        """The same with `auto` of what depends on the machine decided: precision. `here`: for this machine, not for a planned one."""
        if self.precision != "auto":
            return self
        fast = not here and self.accelerator != "mps"
        return self.model_copy(update={"precision": "bf16-mixed" if fast else machine.precision(self.accelerator)})


class Plan(Settings, group="plan"):
    """What train asks of the planner first."""

    enforce: bool = Field(
        True, description="refuse a run that surely does not fit the device at hand; false: try it all the same"
    )
