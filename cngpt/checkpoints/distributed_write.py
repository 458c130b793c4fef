"""Writing a distributed checkpoint: tensors that lie in parts on many processes, each of which writes its own.

No tensor is put together for it, neither on a device nor on a host: of an 18 GB state 32 hosts write 0.6 GB each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Size, Tensor
from torch.distributed.checkpoint import DefaultSavePlanner, FileSystemWriter
from torch.distributed.checkpoint import save as save_distributed
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

from cngpt import files
from cngpt.checkpoints.distributed import FLAT, OPTIMIZER, REST, WEIGHTS


@dataclass(frozen=True)
class Parts:
    """What this process holds of a tensor: {offsets of its first number: part}, of a whole of the shape `size`.

    A tensor that was cut flattened has one dimension here; its true shape goes into `save`'s `flat_shapes`.
    """

    size: Size
    parts: Mapping[tuple[int, ...], Tensor]

    def __create_write_items__(self, name: str, value: object) -> list[WriteItem]:
        """By this name torch asks a value what is to be written (torch/distributed/_checkpointable.py)."""
        items = []
        for offsets, part in self.parts.items():
            chunk, properties = ChunkStorageMetadata(Size(offsets), part.shape), TensorProperties(dtype=part.dtype)
            data = TensorWriteData(chunk, properties, self.size)
            items.append(WriteItem(MetadataIndex(name, chunk.offsets), WriteItemType.SHARD, tensor_data=data))
        return items


def flat_parts(size: int, parts: Mapping[int, Tensor]) -> Parts:
    """Of a flattened tensor of `size` numbers: {first number: part}."""
    return Parts(Size([size]), {(first,): part for first, part in parts.items()})


class Planner(DefaultSavePlanner):
    """Finds the part that belongs to an item of the plan: torch's own looks into tensors only."""

    def lookup_object(self, index: MetadataIndex):
        value = self.state_dict[index.fqn]
        return value.parts[tuple(index.offset)] if isinstance(value, Parts) else super().lookup_object(index)


def save(
    path: str | Path,
    checkpoint: dict,
    weights: Mapping[str, Tensor | Parts],
    slots: Mapping[str, Mapping[str, object]],
    groups: list[dict],
    *,
    write_rest: bool,
    flat_shapes: Mapping[str, list[int]] | None = None,
    no_dist: bool = False,
) -> None:
    """Every process writes its parts; the one with `write_rest` also what is no tensor. The index comes last.

    weights, slots: by the name of a weight. groups: the optimizer's, with the names of weights as `params`.
    """
    import fsspec
    import torch

    if write_rest:
        rest = {key: value for key, value in checkpoint.items() if key not in ("state_dict", "optimizer_states")}
        rest |= {FLAT: dict(flat_shapes)} if flat_shapes else {}
        with fsspec.open(files.join(path, REST), "wb", auto_mkdir=True) as file:
            torch.save(rest, file)
    state = {WEIGHTS: dict(weights), OPTIMIZER: {"state": slots, "param_groups": groups}}
    save_distributed(state, storage_writer=_writer(path), planner=Planner(), no_dist=no_dist)


def _writer(path: str | Path):
    if not files.is_remote(path):
        return FileSystemWriter(path)
    from torch.distributed.checkpoint._fsspec_filesystem import FsspecWriter

    return FsspecWriter(str(path))
