"""FSDP2, and tensor parallelism within it: weights, gradients and optimizer state cut over a mesh of devices."""

from pathlib import Path
from typing import Self

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from cngpt.checkpoints.training_checkpoint import read
from cngpt.model.gpt import GPT
from cngpt.plan.settings import Trainer
from cngpt.training import optim
from cngpt.training.strategies.base import Strategy


class FSDP(Strategy, ModelParallelStrategy):
    """Lightning's strategy, which resumes from a checkpoint of any strategy, in any number of processes."""

    @classmethod
    def for_trainer(cls, trainer: Trainer) -> Self:
        devices = trainer.devices if trainer.devices != "auto" else torch.accelerator.device_count()
        world, cut = devices * trainer.num_nodes, trainer.tensor_parallel
        backend = "gloo" if trainer.accelerator == "cpu" else None
        # by number, as Lightning's "auto" would cut each host's weights over the number of hosts
        return cls(data_parallel_size=world // cut, tensor_parallel_size=cut, process_group_backend=backend)

    @property
    def data_rank(self) -> int:
        return self.distributed_sampler_kwargs["rank"]

    @property
    def data_world_size(self) -> int:
        return self.distributed_sampler_kwargs["num_replicas"]

    def load_checkpoint(self, checkpoint_path, weights_only=None) -> dict:
        checkpoint = read(Path(self.broadcast(checkpoint_path)))
        gpt, (optimizer,) = self.lightning_module.gpt, self.optimizers
        numbers = optim.numbers({name: p.shape for name, p in gpt.named_parameters()})
        weights, (state,) = checkpoint["state_dict"], checkpoint["optimizer_states"]
        with torch.no_grad():
            for name, p in gpt.named_parameters():
                p.to_local().copy_(local_part(weights[f"gpt.{name}"], p))
                for slot, value in state["state"].get(numbers[name], {}).items():
                    optimizer.state[p][slot] = cut_like(value, p)
        return checkpoint

    def clip_gradients(self, module: pl.LightningModule, limit: float | None) -> Tensor:
        """torch's clip_grad_norm_ takes gradients of one mesh; with tensor parallelism there are two:
        matrices of the MLPs lie on the whole mesh, the rest on its data_parallel dimension."""
        self._average_copies(module.gpt)
        meshes: dict = {}
        for p in module.gpt.parameters():
            meshes.setdefault(p.device_mesh, []).append(p.grad)
        norms = [torch.nn.utils.get_total_norm(grads).full_tensor() for grads in meshes.values()]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        if limit is not None:
            scale = (limit / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_([grad.to_local() for grads in meshes.values() for grad in grads], scale)
        return norm

    def shard(self, module: pl.LightningModule) -> None:
        """Over the device mesh, block by block. Tensor parallelism cuts the matrices that the block's layout names: of the GPT-2 blocks the
        MLPs, two thirds of them, and not attention, whose queries, keys and values are rows of one matrix: a cut would go through the heads.
        """
        mesh, cut = module.device_mesh["data_parallel"], module.device_mesh["tensor_parallel"]
        layout = module.gpt.shape.layout
        plan = {name: ColwiseParallel() for name in layout.cut_by_columns} | {
            name: RowwiseParallel() for name in layout.cut_by_rows
        }
        for block in module.gpt.blocks:
            if cut.size() > 1:
                parallelize_module(block, cut, plan)
            fully_shard(block, mesh=mesh)
        fully_shard(module.gpt, mesh=mesh)

    def whole_weights(self, gpt: GPT) -> dict[str, Tensor]:
        """Gathered tensor by tensor, into the first process's memory alone."""
        return get_model_state_dict(gpt, options=StateDictOptions(full_state_dict=True, cpu_offload=True))

    def _average_copies(self, gpt) -> None:
        """Each device of a tensor_parallel group has its copy of what is not cut there, and computes the same gradient for it:
        but for the order of sums on a GPU, by which the copies would drift apart."""
        mesh = self.device_mesh["tensor_parallel"]
        if mesh.size() > 1:
            for p in gpt.parameters():
                if "tensor_parallel" not in p.device_mesh.mesh_dim_names:
                    grad = p.grad.to_local()
                    torch.distributed.all_reduce(grad, group=mesh.get_group())
                    grad /= mesh.size()


def local_part(whole: Tensor, p: DTensor) -> Tensor:
    """What this rank holds of a tensor that is cut as `p` is."""
    sizes, offsets = compute_local_shape_and_global_offset(whole.shape, p.device_mesh, p.placements)
    return whole[tuple(slice(o, o + n) for o, n in zip(offsets, sizes, strict=True))]


def cut_like(value: Tensor, p: DTensor) -> Tensor:
    """A slot as AdamW would have made it: cut as its weight is; its count of steps is a plain number."""
    if value.ndim == 0:
        return value.to(p.device, copy=True)
    own = local_part(value, p).to(p.device, p.dtype, copy=True).contiguous()
    return DTensor.from_local(own, p.device_mesh, p.placements, run_check=False, shape=value.shape, stride=value.stride())
