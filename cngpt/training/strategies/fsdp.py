"""FSDP2, and tensor parallelism within it: weights, gradients and optimizer state cut over a mesh of devices."""

from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from cngpt.training import optim
from cngpt.training.checkpoint import read


class FSDP(ModelParallelStrategy):
    """Lightning's strategy, which resumes from a checkpoint of any strategy, in any number of processes."""

    def load_checkpoint(self, checkpoint_path, weights_only=None) -> dict:
        checkpoint = read(Path(self.broadcast(checkpoint_path)))
        gpt, (optimizer,) = self.lightning_module.gpt, self.optimizers
        numbers = optim.numbers({name: p.shape for name, p in gpt.named_parameters()})
        weights, (state,) = checkpoint["state_dict"], checkpoint["optimizer_states"]
        with torch.no_grad():
            for name, p in gpt.named_parameters():
                p.to_local().copy_(part(weights[f"gpt.{name}"], p))
                for slot, value in state["state"].get(numbers[name], {}).items():
                    optimizer.state[p][slot] = like(value, p)
        return checkpoint

    def clip(self, module) -> None:
        """Clips by the global norm. torch's clip_grad_norm_ takes gradients of one mesh; with tensor parallelism there are two:
        matrices of the MLPs lie on the whole mesh, the rest on its data_parallel dimension."""
        self._average_copies(module.gpt)
        meshes: dict = {}
        for p in module.gpt.parameters():
            meshes.setdefault(p.device_mesh, []).append(p.grad)
        norms = [torch.nn.utils.get_total_norm(grads).full_tensor() for grads in meshes.values()]
        module.grad_norm = torch.linalg.vector_norm(torch.stack(norms))
        if module.clip_norm is not None:
            scale = (module.clip_norm / (module.grad_norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_([grad.to_local() for grads in meshes.values() for grad in grads], scale)

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


def shard(module: pl.LightningModule) -> None:
    """Cuts the model's weights over the strategy's device mesh, block by block, from `configure_model`.

    Tensor parallelism cuts the MLPs, two thirds of a block, and leaves attention whole: its queries, keys and values are rows
    of one matrix, so that a plain cut would go through the heads.
    """
    mesh, cut = module.device_mesh["data_parallel"], module.device_mesh["tensor_parallel"]
    if cut.size() > 1:
        for block in module.gpt.blocks:
            parallelize_module(block.mlp, cut, {"up": ColwiseParallel(), "down": RowwiseParallel()})
    for block in module.gpt.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(module.gpt, mesh=mesh)


def part(whole: Tensor, p: DTensor) -> Tensor:
    """What this rank holds of a tensor that is cut as `p` is."""
    sizes, offsets = compute_local_shape_and_global_offset(whole.shape, p.device_mesh, p.placements)
    return whole[tuple(slice(o, o + n) for o, n in zip(offsets, sizes, strict=True))]


def like(value: Tensor, p: DTensor) -> Tensor:
    """A slot as AdamW would have made it: cut as its weight is; its count of steps is a plain number."""
    if value.ndim == 0:
        return value.to(p.device, copy=True)
    own = part(value, p).to(p.device, p.dtype, copy=True).contiguous()
    return DTensor.from_local(own, p.device_mesh, p.placements, run_check=False, shape=value.shape, stride=value.stride())
