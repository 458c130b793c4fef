"""What each way to spread a model over devices cuts, buffers, sends and refuses: asked by `train` and `plan` alike.

cngpt/training/strategies has the class of the same name that does it.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from cngpt.model.shape import Tensors, count, cut_axis, tensors
from cngpt.plan import mesh
from cngpt.plan.optimizers import optimizer_bytes
from cngpt.plan.setup import Setup

# numbers in DeepSpeed's buckets, of which each process sets two aside (training/strategies/deepspeed.py), by kind of device
BUCKET = {"gpu": 200_000_000, "cpu": 5_000_000}
# numbers of gathered weights that ZeRO-3 keeps at most, DeepSpeed's default
LIVE = 1_000_000_000
# a checkpoint in one file is put together in memory, and moved while it grows: so many times its size at the highest
ONE_FILE = 1.5


@dataclass(frozen=True)
class Package:
    """What a strategy needs installed, and how that is done."""

    name: str
    remedy: str


@dataclass(frozen=True)
class Spread:
    """What decides whether a strategy can do it. `devices` over all hosts; None where that is not known yet."""

    accelerator: str
    devices: int | None
    optimizer: str
    mlp_width: int
    offload: bool = False
    tensor_parallel: int = 1
    compile: bool = False


class Strategy:
    """One way to spread a model; the base keeps all of it on every device."""

    accelerators: ClassVar[tuple[str, ...]] = ("cpu", "gpu")
    package: ClassVar[Package | None] = None
    can_offload: ClassVar[bool] = False
    can_cut_matrices: ClassVar[bool] = False  # tensor parallelism
    can_compile: ClassVar[bool] = True
    whole_matrices: ClassVar[bool] = True  # on each device: optimizers that look at rows and columns need them
    one_file: ClassVar[bool] = True  # a checkpoint

    def refuses(self, name: str, s: Spread) -> str | None:
        """The first rule that a run would break, in one line, if any; `name`: of this strategy."""
        if s.offload and not self.can_offload:
            return f"trainer.offload=true goes with {_trainers(lambda strategy: strategy.can_offload)}, not with {name}"
        if s.tensor_parallel > 1 and not self.can_cut_matrices:
            return f"trainer.tensor_parallel={s.tensor_parallel} goes with {_trainers(lambda strategy: strategy.can_cut_matrices)}, not with {name}"
        if s.tensor_parallel > 1 and ((s.devices or 0) % s.tensor_parallel or s.mlp_width % s.tensor_parallel):
            return (
                f"trainer.tensor_parallel={s.tensor_parallel} must divide the number of devices ({s.devices})"
                f" and the width of an MLP ({s.mlp_width})"
            )
        if s.compile and not self.can_compile:
            return f"trainer.compile=true does not go with trainer.strategy={name}; trainer=fsdp can be compiled"
        if not self.whole_matrices and s.optimizer != "adamw":
            return (
                f"optim={s.optimizer} needs whole matrices, and trainer.strategy={name} cuts them: use trainer=ddp or optim=adamw"
            )
        return None

    def states(self, s: Setup) -> tuple[float, float, float]:
        """Bytes of weights, gradients and optimizer state that one device holds between two steps."""
        held = self.held(s)
        size = count(held) * s.weight_bytes
        return size, size, optimizer_bytes(s.optimizer, s.shape, held, s.weight_bytes)

    def held(self, s: Setup) -> Tensors:
        """The tensors, whole or cut, that one device keeps."""
        return tensors(s.shape)

    def buffers(self, s: Setup) -> float:
        """Bytes for communication, and of weights gathered for use."""
        return 0

    def sent(self, s: Setup) -> float:
        """Bytes that a device sends in a step for each weight, before the share (n - 1) / n of a ring."""
        return 0

    def update_shares(self, s: Setup) -> int:
        """Devices that share the update of one tensor."""
        return 1

    def offloaded(self, s: Setup) -> float:
        """Bytes in one host's memory instead of its devices'."""
        return 0

    def checkpoint_bytes(self, s: Setup) -> float:
        """Main memory that writing a checkpoint takes on one host: Lightning puts one file together before it writes it;
        strategies that cut write what each process holds."""
        whole = tensors(s.shape)
        size = count(whole) * s.weight_bytes + optimizer_bytes(s.optimizer, s.shape, whole, s.weight_bytes)
        return ONE_FILE * size if self.one_file else size / s.hosts

    def keeps_casts(self, s: Setup) -> tuple[bool, bool]:
        """bf16-mixed: whether the bfloat16 weights of all blocks are there at the loss, and until the backward pass used them."""
        return True, not s.activation_checkpointing

    def autocasts(self) -> bool:
        """Whether bf16-mixed is torch's autocast, which leaves the residual stream in float32."""
        return True


class Single(Strategy):
    accelerators = ("cpu", "gpu", "mps")

    def refuses(self, name, s):
        if (s.devices or 1) > 1:
            return f"trainer.strategy={name} with {s.devices} devices: use trainer=ddp or trainer=fsdp"
        return super().refuses(name, s)


class DDP(Strategy):
    def buffers(self, s):
        return count(tensors(s.shape)) * s.weight_bytes  # a second copy of all gradients

    def sent(self, s):
        return 2 * s.weight_bytes  # gradients, scattered and gathered, once a step


def blocks_and_rest(s: Setup) -> tuple[int, int]:
    """Numbers in one block, and outside of all blocks: embeddings and what stands before and after."""
    block = count(s.shape.layout.block(s.shape))
    return block, count(tensors(s.shape)) - s.shape.n_layer * block


class FSDP(Strategy):
    """FSDP2: the first dimension of every tensor, rounded up; tensor parallelism cuts the MLPs, and copies the rest."""

    can_cut_matrices = True
    whole_matrices = one_file = False

    def refuses(self, name, s):
        if s.devices == 1:
            return (
                f"trainer.strategy={name} on one device has nothing to share out: use trainer=gpu, or trainer.devices=2 and more"
            )
        return super().refuses(name, s)

    def held(self, s):
        others = s.devices // s.tensor_parallel
        shares = {name: s.devices if cut_axis(s.shape, name) is not None else others for name in tensors(s.shape)}
        return {name: (-(-size[0] // shares[name]), *size[1:]) for name, size in tensors(s.shape).items()}

    def buffers(self, s):
        block, rest = blocks_and_rest(s)  # the rest stays gathered from forward to backward
        return (rest + 3 * block) * s.weight_bytes  # a block in use, the next one, the gradient of the last

    def sent(self, s):
        return 3 * s.weight_bytes * s.accumulate  # weights for forward and backward, gradients; for each micro-batch

    def update_shares(self, s):
        return s.devices


class XLA(Strategy):
    """torch_xla's SPMD: each dimension over the sides of the two-dimensional mesh that cut it."""

    accelerators = ("tpu",)
    package = Package("torch_xla", "in an environment of its own: pip install -e '.[tpu]' -c constraints-tpu.txt")
    one_file = False

    def refuses(self, name, s):
        if s.compile:
            return "trainer.compile=true: torch_xla compiles by itself; leave it out"
        return super().refuses(name, s)

    def held(self, s):
        return _meshed(tuple(tensors(s.shape).items()), s.devices)

    def buffers(self, s):
        block, rest = blocks_and_rest(s)
        return (rest + 2 * block) * s.compute_bytes

    def sent(self, s):
        # in the type of the products, and once more where activations are computed again; gradients
        return (s.compute_bytes * (2 if s.activation_checkpointing else 1) + s.weight_bytes) * s.accumulate

    def update_shares(self, s):
        return s.devices

    def keeps_casts(self, s):
        # the compiler frees a cast where it has been used
        return (not s.activation_checkpointing,) * 2


@functools.lru_cache(maxsize=64)
def _meshed(whole: tuple[tuple[str, tuple[int, ...]], ...], devices: int) -> Tensors:
    sizes = dict(whole)
    grid = mesh.choose(sizes, devices)
    parts = {size: [mesh.parts(axis, grid) for axis in mesh.spec(size, grid)] for size in set(sizes.values())}
    return {name: tuple(n // k for n, k in zip(size, parts[size], strict=True)) for name, size in sizes.items()}


class ZeRO2(Strategy):
    """DeepSpeed's stage 2: optimizer state and gradients cut flattened; whole weights, and float32 ones besides with bfloat16."""

    package = Package("deepspeed", "pip install -e '.[deepspeed]'")
    can_offload = True
    whole_matrices = one_file = can_compile = False

    def refuses(self, name, s):
        if s.devices == 1 and not s.offload:
            return (
                f"trainer.strategy={name} on one device has nothing to share out: use trainer.offload=true to keep the"
                " optimizer's state in the host's memory, or trainer.devices=2 and more, or trainer=gpu"
            )
        return super().refuses(name, s)

    def states(self, s):
        whole = tensors(s.shape)
        share, held = count(whole) / s.devices, 0 if s.offload else 1
        state = share * (4 if s.compute_bytes < 4 else 0) + optimizer_bytes(s.optimizer, s.shape, whole, 4) / s.devices
        return self.weights(s), share * 4 * held, state * held  # gradients are summed in float32

    def weights(self, s: Setup) -> float:
        return count(tensors(s.shape)) * s.compute_bytes

    def buffers(self, s):
        return 2 * min(count(tensors(s.shape)), BUCKET.get(s.accelerator, BUCKET["cpu"])) * s.compute_bytes

    def sent(self, s):
        return s.compute_bytes * (s.accumulate + 1)

    def update_shares(self, s):
        return s.devices

    def offloaded(self, s):
        """Gradients, optimizer and float32 weights."""
        if not s.offload:
            return 0
        whole = tensors(s.shape)
        return (8 * count(whole) + optimizer_bytes(s.optimizer, s.shape, whole, 4)) / s.hosts

    def autocasts(self):
        return False


class ZeRO3(ZeRO2):
    """Stage 3: weights cut as well."""

    def weights(self, s):
        return 0 if s.offload else count(tensors(s.shape)) / s.devices * s.compute_bytes

    def buffers(self, s):
        return super().buffers(s) + min(count(tensors(s.shape)), LIVE) * s.compute_bytes

    def sent(self, s):
        return 3 * s.compute_bytes * s.accumulate

    def offloaded(self, s):
        return super().offloaded(s) + (count(tensors(s.shape)) * s.compute_bytes / s.hosts if s.offload else 0)


STRATEGIES: dict[str, Strategy] = {
    "single": Single(),
    "ddp": DDP(),
    "fsdp": FSDP(),
    "deepspeed_zero2": ZeRO2(),
    "deepspeed_zero3": ZeRO3(),
    "xla": XLA(),
}


def _trainers(able: Callable[[Strategy], bool]) -> str:
    return "trainer=" + " and ".join(name for name, strategy in STRATEGIES.items() if able(strategy))


def strategy_of(s: Setup) -> Strategy:
    return STRATEGIES[s.strategy]


def refusal(name: str, spread: Spread) -> str | None:
    """Why a run would be refused, in one line, if it would be."""
    strategy = STRATEGIES[name]
    if spread.accelerator not in strategy.accelerators:
        kinds = " and ".join(strategy.accelerators)
        better = {"tpu": "trainer=tpu", "mps": "trainer=mps"}.get(spread.accelerator, "trainer=cpu, gpu or ddp")
        return f"trainer.strategy={name} is for trainer.accelerator={kinds}, not {spread.accelerator}: use {better}"
    return strategy.refuses(name, spread)
