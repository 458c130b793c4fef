"""Tensors of torch_xla that are cut over devices: what this host holds of them, and how they become whole."""

import torch
import torch_xla.distributed.spmd as xs
import torch_xla.runtime as xr
from torch import Tensor

from cngpt.checkpoints.distributed_write import Parts


def parts_of(tensor: Tensor) -> Parts:
    """What lies on this host, on the CPU."""
    cut = xs.wrap_if_sharded(tensor)
    if isinstance(cut, xs.XLAShardedTensor) and cut.sharding_type != xs.ShardingType.REPLICATED:
        shards = [shard for shard in cut.local_shards if shard.replica_id == 0]
        return Parts(tensor.shape, {tuple(i.start for i in shard.indices): shard.data for shard in shards})
    return Parts(tensor.shape, {(0,) * tensor.ndim: tensor.cpu()})


def whole(tensor: Tensor) -> Tensor:
    """A tensor on the CPU. Where other hosts have parts of it all of them must call it, and a small program is compiled."""
    if xr.process_count() > 1:
        return tensor.cpu()
    parts = parts_of(tensor)
    made = torch.empty(parts.size, dtype=tensor.dtype)
    for offsets, part in parts.parts.items():
        made[tuple(slice(o, o + n) for o, n in zip(offsets, part.shape, strict=True))] = part
    return made
