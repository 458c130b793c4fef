"""model.safetensors, written one tensor after another: the library's own writer wants all of them in memory at once.

8 bytes length, a JSON header, the tensors end to end: https://huggingface.co/docs/safetensors has the format.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Sizes = dict[str, tuple[torch.dtype, tuple[int, ...]]]


def sizes_of(tensors: "dict[str, Tensor]") -> "Sizes":
    """Type and shape of each, ordered so that every tensor of a file will be aligned, as the format asks."""
    return {name: (t.dtype, tuple(t.shape)) for name, t in sorted(tensors.items(), key=lambda item: -item[1].itemsize)}


def bytes_of(sizes: "Sizes") -> int:
    """Of all tensors together."""
    return sum(math.prod(size) * dtype.itemsize for dtype, size in sizes.values())


def write_weights(path: Path, sizes: "Sizes", tensors: "Iterable[Tensor]") -> str:
    """Writes the file of tensors that come in the order of `sizes`; returns its sha256."""
    import torch

    codes = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, size) in sizes.items():
        start, end = end, end + math.prod(size) * dtype.itemsize
        header[name] = {"dtype": codes[dtype], "shape": list(size), "data_offsets": [start, end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    digest = hashlib.sha256()
    with open(path, "wb") as file:

        def put(block) -> None:
            digest.update(block)
            file.write(block)

        put(len(head).to_bytes(8, "little"))
        put(head)
        for (name, (dtype, size)), tensor in zip(sizes.items(), tensors, strict=True):
            if (tensor.dtype, tuple(tensor.shape)) != (dtype, size):
                raise ValueError(f"{name}: {tensor.dtype} {tuple(tensor.shape)} came, {dtype} {size} was announced")
            put(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()
