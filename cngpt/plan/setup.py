"""What is planned: a model, how it is trained, and the machine; plain values, checked elsewhere."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Setup:
    """A model and how it is spread. `micro` is in windows of n_ctx tokens."""

    model: dict = field(hash=False)  # what `Shape` takes: block vocab_size n_ctx n_layer n_head width dropout
    accelerator: str = "cpu"  # cpu gpu mps tpu
    strategy: str = "single"  # single ddp fsdp deepspeed_zero2 deepspeed_zero3 xla
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
        return self.micro * self.model["n_ctx"]


@dataclass(frozen=True)
class Hardware:
    """A machine as conf/hardware/ describes it. None: not known."""

    name: str
    accelerator: str
    devices: int  # of the machine or slice
    per_host: int
    memory: float | None  # bytes a device
    peak_bf16: float | None  # FLOP/s a device, dense
    peak_fp32: float | None
    memory_bandwidth: float | None  # bytes/s
    interconnect: float | None  # bytes/s a device, one way
    price: float | None  # dollars an hour and device
    mfu: float | None  # of the peak, in a training step
    mfu_recomputes: bool  # whether `mfu` was seen with activations computed twice
    mfu_source: str | None
    slice: str | None = None  # a TPU's accelerator type
    version: str | None = None  # of the TPU's software
    zone: str | None = None  # where such a slice is
    gpu: str | None = None

    def peak(self, precision: str) -> float | None:
        return self.peak_fp32 if precision == "32-true" else self.peak_bf16
