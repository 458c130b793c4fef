"""DeepSpeed's ZeRO-2 and ZeRO-3 under Lightning, on GPUs and, so that it can be tested anywhere, on CPUs over gloo.

Lightning's own strategy refuses a CPU and leaves the checkpoint to DeepSpeed: pickles of its classes, for one number of
processes. Here a checkpoint is the folder that FSDP writes too (cngpt/checkpoints/distributed.py): any strategy reads it, in any number
of processes. Weights in it are the float32 ones that the optimizer keeps, whatever the precision of training.
"""

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

import torch
from pytorch_lightning.strategies import DeepSpeedStrategy
from torch import Tensor

from cngpt.checkpoints.distributed_write import flat_parts, save
from cngpt.checkpoints.training_checkpoint import read
from cngpt.plan.settings import Trainer
from cngpt.plan.strategies import BUCKET
from cngpt.training import optim
from cngpt.training.strategies.base import Strategy


class ZeRO(Strategy, DeepSpeedStrategy):
    """`stage` 2 cuts the optimizer's state and gradients over the devices, 3 the weights as well."""

    @classmethod
    def for_trainer(cls, trainer: Trainer, stage: int) -> Self:
        return cls(stage, trainer.offload, trainer.clip_norm, trainer.accelerator)

    def __init__(self, stage: int, offload: bool, clip_norm: float | None, accelerator: str):
        if accelerator == "cpu":
            os.environ["DS_ACCELERATOR"] = "cpu"  # it takes a GPU where it sees one
        super().__init__(
            stage=stage,
            offload_optimizer=offload,
            offload_parameters=offload and stage == 3,
            reduce_bucket_size=BUCKET[accelerator],
            allgather_bucket_size=BUCKET[accelerator],
            logging_batch_size_per_gpu=1,  # else it looks for a batch sampler, which our loader has not
            process_group_backend="gloo" if accelerator == "cpu" else None,
        )
        self.config["gradient_clipping"] = clip_norm or 0.0
        # with offload too the update is torch's: DeepSpeed's own has to be compiled first, three minutes long
        self.config["zero_force_ds_cpu_optimizer"] = False

    # ── set-up, where the parent knows CUDA alone

    def setup_environment(self) -> None:
        super(DeepSpeedStrategy, self).setup_environment()

    def setup_distributed(self) -> None:
        import deepspeed

        # all-reduce through shared memory: compiled on the first use, a minute long, and gloo does it as well
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        if self.root_device.type == "cuda":
            super().setup_distributed()
        else:  # the same without a look at the numbers of the devices, which CPUs have not
            self.set_world_ranks()
            self._init_deepspeed_distributed()

    def _format_config(self) -> None:
        super()._format_config()
        if self.config.get("bf16", {}).get("enabled"):  # else gradients of many micro-batches are summed in bfloat16
            self.config["data_types"] = {"grad_accum_dtype": "fp32"}

    def _setup_model_and_optimizer(self, model, optimizer, lr_scheduler=None):
        import deepspeed

        engine, optimizer, _, _ = deepspeed.initialize(
            args=argparse.Namespace(device_rank=self.local_rank),  # the parent gives root_device.index, None on a CPU
            config=self.config,
            model=model,
            model_parameters=[p for p in model.parameters() if p.requires_grad],
            optimizer=optimizer,
            lr_scheduler=lr_scheduler,
            dist_init_required=False,
        )
        if self.zero_stage_3:
            # the tied head uses the embedding's weights outside of the embedding's own forward
            deepspeed.zero.register_external_parameter(model.gpt, model.gpt.tok.weight)
        return engine, optimizer

    # ── a step

    def backward(self, closure_loss: Tensor, optimizer, *args, **kwargs) -> Tensor:
        # Lightning has divided by the accumulated micro-batches already
        return super().backward(closure_loss, optimizer, *args, scale_wrt_gas=False, **kwargs)

    def clip_gradients(self, module, limit: float | None) -> None:
        """Nothing yet: DeepSpeed clips in its step, by "gradient_clipping", and has the norm after it."""

    def optimizer_step(self, optimizer, closure, model=None, **kwargs):
        result = super().optimizer_step(optimizer, closure, model, **kwargs)
        norm = self.deepspeed_engine.get_global_grad_norm()  # before it was clipped; of the last whole step
        if norm is not None:
            self.lightning_module.grad_norm = torch.as_tensor(norm)
        return result

    # ── checkpoints

    def lightning_module_state_dict(self) -> dict:
        return {}  # `save_checkpoint` takes tensors from where they lie

    def optimizer_state(self, optimizer) -> dict:
        return {}

    def save_checkpoint(self, checkpoint: dict, filepath, storage_options=None) -> None:
        """Every rank writes its parts of weights and optimizer state, rank 0 the rest."""
        path = Path(self.broadcast(filepath))
        gpt, options = self.lightning_module.gpt, self.deepspeed_engine.optimizer.param_groups
        shapes = {f"gpt.{name}": list(shape_of(p)) for name, p in gpt.named_parameters()}
        names = [n for n in shapes if len(shapes[n]) >= 2], [n for n in shapes if len(shapes[n]) < 2]  # as optim.build
        groups = [
            {**{k: v for k, v in group.items() if k != "params"}, "params": own}
            for group, own in zip(options, names, strict=True)
        ]
        with self._all_partitioned():
            weights, slots = {}, {}
            for name, p in gpt.named_parameters():
                key, size = f"gpt.{name}", shape_of(p).numel()
                parts = list(self._parts(p))
                weights[key] = flat_parts(size, {part.first: part.of(part.flat) for part in parts})
                slots[key] = self._slots(size, parts)
            save(path, checkpoint, weights, slots, groups, write_rest=self.is_global_zero, flat_shapes=shapes)

    def _slots(self, size: int, parts: "list[Part]") -> dict:
        """The optimizer's state of one weight: what is as large as the weight, in parts; single numbers as they are."""
        # every rank must name every slot, one that holds nothing of this weight too: all have some weight
        keys = {k: v for state in self._state.values() for k, v in state.items()}
        slots = {}
        for key, example in keys.items():
            if example.ndim:
                slots[key] = flat_parts(size, {part.first: part.of(self._state[part.flat][key]) for part in parts})
            else:
                slots[key] = example
        return slots

    def load_checkpoint(self, checkpoint_path, weights_only=None) -> dict:
        """A checkpoint of any strategy, a file or a folder, into the parts of this rank."""
        checkpoint = read(Path(self.broadcast(checkpoint_path)))
        gpt = self.lightning_module.gpt
        numbers = optim.numbers({name: shape_of(p) for name, p in gpt.named_parameters()})
        weights, (state,) = checkpoint["state_dict"], checkpoint["optimizer_states"]
        with self._all_partitioned(), torch.no_grad():
            for name, p in gpt.named_parameters():
                parts = list(self._parts(p))
                whole = weights[f"gpt.{name}"].flatten()
                for part in parts:
                    part.of(part.flat).copy_(part.cut(whole))
                for key, value in state["state"].get(numbers[name], {}).items():
                    for part in parts:
                        slots = self._state[part.flat]
                        if value.ndim == 0:
                            slots[key] = value.to(part.flat.device, torch.float32)
                        else:
                            slots.setdefault(key, torch.zeros_like(part.flat))
                            part.of(slots[key]).copy_(part.cut(value.flatten()))
            self._refresh_weights()
        return checkpoint

    def load_model_state_dict(self, checkpoint, strict: bool = True) -> None:
        pass  # done by `load_checkpoint`

    def whole_weights(self, gpt) -> dict[str, Tensor]:
        """The float32 weights on rank 0's CPU, gathered one by one; every rank must call it."""
        from deepspeed.utils import safe_get_full_fp32_param

        weights = {}
        for name, p in gpt.named_parameters():
            whole = safe_get_full_fp32_param(p)
            if self.is_global_zero:
                weights[name] = whole.cpu()
        return weights

    # ── where DeepSpeed keeps things

    @property
    def _state(self) -> dict:
        """{flat float32 tensor: {slot: tensor}} of torch's optimizer, on this rank."""
        return self.deepspeed_engine.optimizer.optimizer.state

    def _parts(self, p: Tensor) -> "Iterator[Part]":
        """What this rank holds of a weight: nothing, or one part."""
        zero = self.deepspeed_engine.optimizer
        if self.zero_stage_3:
            group, at, size = zero.grad_position[zero.get_param_id(p)]
            first = size * self.global_rank
            if (held := min(size, p.ds_numel - first)) > 0:  # the last ranks' parts are filled up
                yield Part(zero.fp32_partitioned_groups_flat[group], at, first, held)
        elif (mapping := p._hp_mapping) is not None:
            flat = zero.single_partition_of_fp32_groups[mapping.param_group_index]
            there, here = mapping.hp_fragment_address, mapping.lp_fragment_address
            yield Part(flat, there.start, here.start, here.numel)

    @contextlib.contextmanager
    def _all_partitioned(self):
        """ZeRO-3 keeps small weights whole between steps; within this context they lie in their parts like the others."""
        zero = self.deepspeed_engine.optimizer
        if self.zero_stage_3:
            zero.checkpoint_event_prologue()
        yield
        if self.zero_stage_3:
            zero.checkpoint_event_epilogue()

    def _refresh_weights(self) -> None:
        """The weights that the model computes with, from the optimizer's float32 ones."""
        zero = self.deepspeed_engine.optimizer
        if self.zero_stage_3:
            for n in range(len(zero.fp32_partitioned_groups_flat)):
                zero._reassign_or_swap_out_partitioned_parameters(n)
        else:
            zero.update_lp_params()


class Part(NamedTuple):
    """Numbers `first` to `first + held` of a flattened weight, which lie in `flat` from `at` on."""

    flat: Tensor
    at: int
    first: int
    held: int

    def of(self, like_flat: Tensor) -> Tensor:
        return like_flat.detach().narrow(0, self.at, self.held)

    def cut(self, whole: Tensor) -> Tensor:
        return whole.narrow(0, self.first, self.held)


def shape_of(p: Tensor) -> torch.Size:
    """The shape of a whole weight: under ZeRO-3 the tensor itself is empty."""
    return getattr(p, "ds_shape", p.shape)
