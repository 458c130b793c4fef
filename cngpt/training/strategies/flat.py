"""Tensors that were flattened and cut over the ranks, as torch's distributed checkpoint writes them (cngpt/pieces.py reads)."""

from torch import Size, Tensor
from torch.distributed.checkpoint import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType


class Flat:
    """A flattened tensor of `size` numbers, of which this rank holds `parts`: {first number: (n,)}."""

    def __init__(self, size: int, parts: dict[int, Tensor]):
        self.size, self.parts = size, parts

    def __create_write_items__(self, name: str, thing: object) -> list[WriteItem]:
        """By this name torch asks a thing what is to be written (torch/distributed/_checkpointable.py)."""
        items = []
        for first, part in self.parts.items():
            chunk, properties = ChunkStorageMetadata(Size([first]), part.shape), TensorProperties(dtype=part.dtype)
            data = TensorWriteData(chunk, properties, Size([self.size]))
            items.append(WriteItem(MetadataIndex(name, chunk.offsets), WriteItemType.SHARD, tensor_data=data))
        return items


class Planner(DefaultSavePlanner):
    """Finds the part that belongs to an item of the plan: torch's own looks into tensors only."""

    def lookup_object(self, index: MetadataIndex):
        thing = self.state_dict[index.fqn]
        return thing.parts[index.offset[0]] if isinstance(thing, Flat) else super().lookup_object(index)
