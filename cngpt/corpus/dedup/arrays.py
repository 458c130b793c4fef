"""Several named arrays in one file, read back as views of the mapped file: nothing is in memory until it is looked at."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cngpt import files
from cngpt.errors import UserError

ALIGN = 64


@dataclass(frozen=True)
class Pieces:
    """An array that is written piece by piece, as it lies in memory."""

    dtype: np.dtype
    shape: tuple[int, ...]
    pieces: Sequence[np.ndarray]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize


def save(path: str | Path, kind: str, arrays: Mapping[str, np.ndarray | Pieces], **about) -> None:
    """A line of JSON, padded with spaces, then the arrays one after another. The file appears whole or not at all."""
    rows = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
    head = json.dumps({"kind": kind, "arrays": rows, **about}).encode()
    with files.atomic_write(path) as file:
        file.write(head + b" " * (-(len(head) + 1) % ALIGN) + b"\n")
        for array in arrays.values():
            for piece in array.pieces if isinstance(array, Pieces) else [array]:
                file.write(np.ascontiguousarray(piece).data)
            file.write(bytes(-array.nbytes % ALIGN))


def load(path: str | Path, kind: str) -> tuple[dict[str, np.ndarray], dict]:
    """(arrays, the rest of what was saved). UserError for a file that is not of this kind, or not whole."""
    try:
        with open(path, "rb") as file:
            head = file.readline(1 << 20)
            about = json.loads(head)
        if about.pop("kind") != kind:
            raise ValueError
        whole = np.memmap(path, np.uint8, "r")
        arrays, at = {}, len(head)
        for name, (dtype, shape) in about.pop("arrays").items():
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            if at + size > len(whole):
                raise ValueError
            arrays[name] = whole[at : at + size].view(dtype).reshape(shape)
            at += size + -size % ALIGN
    except (ValueError, KeyError, AttributeError):
        raise UserError(f"{path} is not a whole file of {kind}; remove it and run again") from None
    return arrays, about
