"""TPUs by torch_xla's SPMD: one process a host, weights and optimizer state cut over all chips, each step one program.

The program is traced as if for a single device; marks say how its tensors are cut (cngpt/plan/mesh.py), and the compiler cuts the
rest and puts in the collectives, as in FSDP: a weight is gathered where it is used, a gradient summed into its pieces.
With PJRT_DEVICE=CPU CPU_NUM_DEVICES=4 the same code runs on a CPU as on four chips.

Avoid recompilation: shapes and constants must not change between steps. Hence what changes from step to step (rates, positions) is
an input of the program, no shape grows, every batch begins with all work handed over, and no cut tensor is read as a whole: for each
such reading torch_xla compiles a small program, and forgets it. A plain subclass of Lightning's strategy builds its steps from two
programs; but each checkpoint of a model with 4 layers costs 102 more, and the end 136, as all is moved to the CPU.
"""

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch_xla
import torch_xla.core.xla_model as xm
import torch_xla.distributed.spmd as xs
import torch_xla.runtime as xr
from pytorch_lightning.accelerators import Accelerator
from pytorch_lightning.plugins.precision import MixedPrecision
from pytorch_lightning.strategies import SingleDeviceStrategy
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module
from torch_xla.utils.checkpoint import checkpoint as xla_checkpointing

from cngpt import files
from cngpt.checkpoints import training_checkpoint
from cngpt.checkpoints.distributed_write import save
from cngpt.checkpoints.xla import parts_of, whole
from cngpt.errors import ConfigError, UserError
from cngpt.model.gpt import GPT
from cngpt.plan import machine
from cngpt.plan import mesh as plan
from cngpt.plan.settings import Trainer
from cngpt.runs import INDEX
from cngpt.training import optim
from cngpt.training.settings import Adafactor as AdafactorSettings
from cngpt.training.settings import AdamW, Optimizer
from cngpt.training.strategies.base import Strategy
from cngpt.training.strategies.xla_optim import AdafactorOnDevice

CACHE = Path("~/.cache/cngpt/xla").expanduser()  # compiled programs, of this host
WHOLE_BATCH = (plan.ROWS, plan.COLUMNS)  # the batch is cut over both sides of the mesh


class PJRT(Accelerator):
    """What PJRT_DEVICE names, seen by Lightning as one device: the process drives all of them. Lightning's own counts PCI chips."""

    def setup_device(self, device: torch.device) -> None:
        pass

    def teardown(self) -> None:
        pass

    def get_device_stats(self, device) -> dict:
        return xm.get_memory_info(device)

    @staticmethod
    def parse_devices(devices) -> int:
        return 1

    @staticmethod
    def get_parallel_devices(devices: int) -> list[torch.device]:
        return [torch.device("xla", 0)]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return "tpu"


class SPMD(Strategy, SingleDeviceStrategy):
    """`devices`: "auto" and any number above 1 mean all of the slice; 1 is a single device, whole weights on it."""

    @classmethod
    def for_trainer(cls, trainer: Trainer) -> Self:
        return cls(trainer.devices)

    @staticmethod
    def trainer_arguments(trainer: Trainer) -> dict[str, Any]:
        # one process drives all devices of a host; tensors of inference mode are not for torch_xla
        return {"accelerator": PJRT(), "devices": 1, "num_nodes": 1, "precision": trainer.precision, "inference_mode": False}

    def __init__(self, devices: int | str):
        # (the CPU's programs cannot be read back)
        if "XLA_PERSISTENT_CACHE_PATH" not in os.environ and os.environ.get("PJRT_DEVICE") != "CPU":
            xr.initialize_cache(str(CACHE))  # a run that goes on, or a second one of the same shape, compiles nothing
        self.cut = devices != 1
        if self.cut:
            xr.use_spmd()  # before the first use of a device
        super().__init__(torch_xla.device())
        self.devices = xr.global_runtime_device_count() if self.cut else 1
        # by the worker's number, which the machine's metadata knows, and not by xr.process_index(), which does not follow it:
        # the process that wrote config.yaml before torch_xla was started must be the one that writes the rest
        self.global_rank, self.world_size = xr.host_index(), xr.process_count()
        rank_zero_only.rank = self.global_rank
        self._devices_per_process = self.devices // self.world_size
        if not self.cut and self.world_size > 1:
            raise ConfigError("trainer.devices=1: this is one host of several, which train together: trainer.devices=auto")
        if isinstance(devices, int) and devices not in (1, self._devices_per_process):
            raise ConfigError(
                f"trainer.devices={devices}: {self._devices_per_process} here; the whole slice (trainer.devices=auto) or 1"
            )
        if self.world_size > 1:
            # for barriers and for the plan of a checkpoint; what is trained on goes over the chips' own links
            torch.distributed.init_process_group("gloo", init_method="xla://")
        self.mesh: xs.Mesh | None = None

    # ── what is asked about this process

    @property
    def devices_per_process(self) -> int:
        return self._devices_per_process

    @property
    def dropout_rank(self) -> int:
        return 0  # one program of all hosts, who must draw alike

    @property
    def sum_dtype(self) -> torch.dtype:
        return torch.float32

    def device_name(self) -> str:
        return machine.tpu_slice()

    @property
    def precision_plugin(self):
        return super().precision_plugin

    @precision_plugin.setter
    def precision_plugin(self, plugin) -> None:
        if isinstance(plugin, MixedPrecision):
            plugin.device = "xla"  # Lightning knows autocast for cpu, cuda and mps alone
        self._precision_plugin = plugin

    @property
    def is_global_zero(self) -> bool:
        return self.global_rank == 0

    def barrier(self, name: str | None = None) -> None:
        if self.world_size > 1:
            torch.distributed.barrier()

    def broadcast(self, obj, src: int = 0):
        if self.world_size == 1:
            return obj
        # gloo's ranks follow xr.process_index(): the first worker must not be its rank 0
        everyone: list = [None] * self.world_size
        torch.distributed.all_gather_object(everyone, (self.global_rank, obj))
        return dict(everyone)[src]

    def reduce(self, tensor, *args, **kwargs):
        # as it is: the program computes over the batch of all hosts. On the CPU, for what is reduced is read next
        return tensor.cpu() if isinstance(tensor, Tensor) else tensor

    def reduce_boolean_decision(self, decision: bool, all: bool = True) -> bool:
        if self.world_size == 1:
            return decision
        decisions: list = [None] * self.world_size
        torch.distributed.all_gather_object(decisions, decision)
        return min(decisions) if all else max(decisions)

    # ── tensors to the devices

    def model_to_device(self) -> None:
        module = self.lightning_module
        module.gpt.checkpoint = recomputed
        if self.cut:
            shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
            self.rectangle = plan.choose(shapes, self.devices)
            self.mesh = xs.Mesh(np.arange(self.devices), self.rectangle, (plan.ROWS, plan.COLUMNS))
            for block in module.gpt.blocks:
                self._gather_to_use(block, [name for name, _ in block.named_parameters()])
                block.register_forward_hook(self._mark_activations)
            self._gather_to_use(module.gpt, [name for name, _ in module.gpt.named_parameters() if not name.startswith("blocks.")])
            module.gpt.register_forward_hook(self._mark_logits)
        for part in module.modules():
            if isinstance(part, nn.LayerNorm):
                part.forward = partial(layer_norm, part)
            for name, p in part.named_parameters(recurse=False):
                setattr(part, name, nn.Parameter(self.shard_to_devices(p.detach()), p.requires_grad))

    def spec(self, shape) -> tuple:
        return plan.spec(tuple(shape), self.rectangle)

    def shard_to_devices(self, tensor: Tensor) -> Tensor:
        """A whole tensor of the CPU, the same on every host, to its parts on the devices."""
        if self.mesh is None:
            return tensor.to(self.root_device)
        sharding = Sharding(self.mesh, self.spec(tensor.shape)) if tensor.ndim else None
        return xm.send_cpu_data_to_device([tensor.contiguous()], self.root_device, sharding)[0]

    def mark(self, tensor: Tensor, spec: tuple) -> None:
        if self.mesh is not None and tensor.device.type == "xla":
            xs.mark_sharding(tensor, self.mesh, spec)

    def annotated(self, tensor: Tensor, spec: tuple) -> Tensor:
        """The same numbers, cut otherwise from here on."""
        tensor = tensor.clone()
        xs.annotate_custom_sharding(tensor, self.mesh, spec)
        return tensor

    def batch_to_device(self, batch: tuple[Tensor, ...], device=None, dataloader_idx: int = 0) -> tuple[Tensor, ...]:
        torch_xla.sync()  # what came before is one program, whose shape does not depend on how many batches there were
        if self.mesh is None:
            return tuple(t.to(self.root_device) for t in batch)
        several = self.world_size > 1  # each host has a part of the batch
        sharding = Sharding(self.mesh, (WHOLE_BATCH, None), minibatch=several)
        return tuple(xm.send_cpu_data_to_device(list(batch), self.root_device, sharding))

    # As FSDP does it: weights are gathered for a block, activations stay cut along the batch. Left to itself the compiler would
    # rather multiply with a part of each weight and move the activations, of the whole batch, around.

    def _gather_to_use(self, module: nn.Module, names: list[str]) -> None:
        forward = module.forward

        def forward_with_whole_weights(*args):
            cut = dict(module.named_parameters())
            whole = {name: Gathered.apply(cut[name], self, in_use(name, cut[name])) for name in names}
            with _reparametrize_module(module, whole):
                return forward(*args)

        module.forward = forward_with_whole_weights

    # A few prompts that are continued (there is a cache) are written by every device alike.

    def _mark_activations(self, block: nn.Module, args: tuple, x: Tensor) -> None:
        self.mark(x, (WHOLE_BATCH, None, None) if args[-1] is None else (None, None, None))

    def _mark_logits(self, gpt: nn.Module, args: tuple, logits: Tensor) -> None:
        if len(args) == 1:
            self.mark(logits, (WHOLE_BATCH, None, None))
            return
        for tensor in (logits, *args[1].tensors()):
            self.mark(tensor, (None,) * tensor.ndim)

    # ── a step

    def post_backward(self, closure_loss: Tensor) -> None:
        for p in self.lightning_module.parameters():
            if p.grad is not None:
                self.mark(p.grad, self.spec(p.shape) if self.cut else ())

    def optimizer_step(self, optimizer, closure, model=None, **kwargs):
        with rates_on_device(optimizer, self.root_device):
            result = super().optimizer_step(optimizer, closure, model, **kwargs)
        for slots in optimizer.state.values():
            for value in slots.values():
                if self.cut and value.ndim:
                    self.mark(value, self.spec(value.shape))
        torch_xla.sync()
        return result

    def teardown(self) -> None:
        """Without the parent's moving of weights and optimizer state to the CPU, whole, which nobody asks for."""
        self.precision_plugin.teardown()
        self.accelerator.teardown()
        self.checkpoint_io.teardown()

    def seed(self, number: int) -> None:
        torch_xla.manual_seed(number)

    # ── checkpoints

    restore_checkpoint_after_setup = True

    def lightning_module_state_dict(self) -> dict:
        return {}  # `save_checkpoint` takes tensors from where they lie

    def optimizer_state(self, optimizer) -> dict:
        return {}

    def save_checkpoint(self, checkpoint: dict, filepath, storage_options=None) -> None:
        weights = {f"gpt.{name}": p for name, p in self.lightning_module.gpt.named_parameters()}
        (optimizer,) = self.optimizers
        names = {p: name for name, p in weights.items()}
        slots = {names[p]: {k: parts_of(v) for k, v in state.items()} for p, state in optimizer.state.items()}
        groups = [{**group, "params": [names[p] for p in group["params"]]} for group in optimizer.param_groups]
        weights = {name: parts_of(p) for name, p in weights.items()}
        alone = self.world_size == 1
        save(filepath, checkpoint, weights, slots, groups, write_rest=self.is_global_zero, no_dist=alone)
        if not files.exists(files.join(filepath, INDEX)):
            raise UserError(
                f"{filepath}: each host has written there, and they do not see one folder: callbacks.checkpoint.folder=gs://..."
            )

    def load_checkpoint(self, checkpoint_path, weights_only=None) -> dict:
        return training_checkpoint.read(Path(checkpoint_path))

    def load_model_state_dict(self, checkpoint: dict, strict: bool = True) -> None:
        for name, p in self.lightning_module.gpt.named_parameters():
            p.data = self.shard_to_devices(checkpoint["state_dict"][f"gpt.{name}"])

    def load_optimizer_state_dict(self, checkpoint: dict) -> None:
        (optimizer,), (state,) = self.optimizers, checkpoint["optimizer_states"]
        gpt = self.lightning_module.gpt
        numbers = optim.numbers({name: p.shape for name, p in gpt.named_parameters()})
        for name, p in gpt.named_parameters():
            saved = state["state"].get(numbers[name], {})
            optimizer.state[p] = {slot: self.shard_to_devices(value) for slot, value in saved.items()}

    def build_optimizer(self, gpt: GPT, settings: Optimizer) -> torch.optim.Optimizer:
        if isinstance(settings, AdamW):
            # the number of the step, too, lies on the device: it would be a constant to compile
            return optim.build(gpt, settings, fused=False, capturable=True)
        if isinstance(settings, AdafactorSettings):
            options = {"lr": settings.lr, "beta2_decay": settings.beta2_decay, "d": settings.clip_update}
            return AdafactorOnDevice(optim.decay_groups(gpt, settings.weight_decay), **options)
        return optim.build(gpt, settings)

    def whole_weights(self, gpt: GPT) -> dict[str, Tensor]:
        """Every process has all of them."""
        return {name: whole(p.detach()) for name, p in gpt.named_parameters()}


def in_use(name: str, weight: Tensor) -> torch.dtype:
    """In which type a weight is needed: matrices of a block in that of autocast, half the bytes to gather."""
    matrix = weight.ndim == 2 and name not in ("tok.weight", "pos.weight")
    return torch.get_autocast_dtype("xla") if matrix and torch.is_autocast_enabled("xla") else weight.dtype


class Gathered(torch.autograd.Function):
    """A cut weight -> the whole of it on every device, in `dtype`; backwards, the gradient is summed into the pieces in float32."""

    @staticmethod
    def forward(ctx, weight: Tensor, strategy: SPMD, dtype: torch.dtype) -> Tensor:
        ctx.strategy, ctx.dtype = strategy, weight.dtype
        return strategy.annotated(weight.to(dtype), (None,) * weight.ndim)

    @staticmethod
    def backward(ctx, grad: Tensor):
        # through a whole gradient on purpose: asked for pieces alone, the compiler gathers the activations of the whole batch, and
        # computes each piece from those. A TPU makes one reduce-scatter of the two
        whole = ctx.strategy.annotated(grad.to(ctx.dtype), (None,) * grad.ndim)
        return ctx.strategy.annotated(whole, ctx.strategy.spec(grad.shape)), None, None


class Sharding(xs.ShardingSpec):
    """Also for tensors that one side of the mesh cuts and the other repeats, which torch_xla's class sends wrongly."""

    def __post_init__(self):
        arguments = self.mesh._get_op_sharding_args(self.partition_spec)
        self._tile_assignment, self._group_assignment, self._replication_groups, self._sharding_type = arguments


@contextlib.contextmanager
def rates_on_device(optimizer: torch.optim.Optimizer, device: torch.device) -> Iterator[None]:
    """Learning rates as tensors: inputs of the program, where numbers might be constants of it. The scheduler keeps its numbers."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = torch.tensor(rate, dtype=torch.float32).to(device)
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """(..., D) -> (..., D). torch_xla's own works on (1, positions, D), which the compiler cannot cut: every device would normalise
    the whole batch."""
    x = x.float()
    centred = x - x.mean(-1, keepdim=True)
    return centred * (centred.square().mean(-1, keepdim=True) + norm.eps).rsqrt() * norm.weight + norm.bias


def recomputed(block: nn.Module, *args):
    """A block whose activations are computed again in the backward pass. By torch_xla's own checkpoint, which keeps the compiler
    from noticing that it computes the same twice; of a method it knows the weights too."""
    return xla_checkpointing(block.__call__, *args)
