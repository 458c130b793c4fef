"""What is planned: a model, how it is trained, and the machine; plain values, checked elsewhere."""

from dataclasses import dataclass

from cngpt.model.shape import Shape


@dataclass(frozen=True)
class Setup:
    """A model and how it is spread. `micro` is in windows of n_ctx tokens."""

    shape: Shape
    accelerator: str = "cpu"  # cpu gpu mps tpu
    strategy: str = "single"  # a name in plan.strategies.STRATEGIES
    precision: str = "32-true"
    optimizer: str = "adamw"
    micro: int = 1
    accumulate: int = 1
    devices: int = 1  # over all hosts
    hosts: int = 1
    activation_checkpointing: bool = False
    offload: bool = False
    tensor_parallel: int = 1

    @property
    def readers(self) -> int:
        """Devices that read windows of their own: those of one tensor-parallel group read the same."""
        return self.devices // self.tensor_parallel

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch on one device."""
        return self.micro * self.shape.n_ctx

    @property
    def windows(self) -> int:
        """Windows that a device reads in one step."""
        return self.micro * self.accumulate

    @property
    def weight_bytes(self) -> int:
        """Bytes of one weight as it is stored."""
        return 2 if self.precision == "bf16-true" else 4

    @property
    def compute_bytes(self) -> int:
        """Bytes of one number that goes into a matrix product."""
        return 4 if self.precision == "32-true" else 2
