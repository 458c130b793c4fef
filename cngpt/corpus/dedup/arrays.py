"""Several named arrays in one file, read back as views of the mapped file: nothing is in memory until it is looked at."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cngpt import files
from cngpt.errors import UserError

ALIGN = 64


def save(path: str | Path, kind: str, arrays: Mapping[str, Sequence[np.ndarray]], **metadata) -> None:
    """A line of JSON, padded with spaces, then the arrays one after another, each given in parts that follow one another along its
    first axis, or the second of three. The file appears whole or not at all."""
    rows = {}
    for name, parts in arrays.items():
        shape, axis = list(parts[0].shape), _axis(parts)
        shape[axis] = sum(part.shape[axis] for part in parts)
        rows[name] = [parts[0].dtype.str, shape]
    head = json.dumps({"kind": kind, "arrays": rows, **metadata}).encode()
    with files.atomic_write(path) as file:
        file.write(head + b" " * (-(len(head) + 1) % ALIGN) + b"\n")
        for parts in arrays.values():
            for part in [part[n] for n in range(len(parts[0])) for part in parts] if _axis(parts) else parts:
                file.write(np.ascontiguousarray(part).data)
            file.write(bytes(-sum(part.nbytes for part in parts) % ALIGN))


def join(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The array that `save` would write."""
    return np.concatenate(parts, _axis(parts))


def _axis(parts: Sequence[np.ndarray]) -> int:
    return int(parts[0].ndim == 3)


def load(path: str | Path, kind: str) -> tuple[dict[str, np.ndarray], dict]:
    """(arrays, metadata). UserError for a file that is not of this kind, or not whole."""
    try:
        with open(path, "rb") as file:
            head = file.readline(1 << 20)
            metadata = json.loads(head)
        if metadata.pop("kind") != kind:
            raise ValueError
        whole = np.memmap(path, np.uint8, "r")
        arrays, at = {}, len(head)
        for name, (dtype, shape) in metadata.pop("arrays").items():
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            if at + size > len(whole):
                raise ValueError
            arrays[name] = whole[at : at + size].view(dtype).reshape(shape)
            at += size + -size % ALIGN
    except (ValueError, KeyError, AttributeError):
        raise UserError(f"{path} is not a whole file of {kind}; remove it and run again") from None
    return arrays, metadata
