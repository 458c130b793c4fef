"""Writes TensorFlow's V2 checkpoints and pieces of them, wrong ones too, for tests. It shares no code with the reader."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import cramjam
import numpy as np
from google_crc32c import extend, value

NUMBERS = {
    "float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "int64": 9, "bool": 10, "uint16": 17, "float16": 19,
    "uint32": 22, "uint64": 23,
}  # fmt: skip
MAGIC = bytes.fromhex("57fb808b247547db")
PIECE = 1 << 24  # bytes written at a time


def write_bundle(prefix: str | Path, variables, compress: bool = False, shards: int = 1, block_size: int = 1 << 18) -> None:
    """`variables`: {name: array}, or (name, dtype, shape, array or a callable that makes it when its turn has come).

    Laid out in the order of names, the n-th in data file n modulo `shards`. One tensor at a time is in memory.
    """
    if isinstance(variables, dict):
        variables = [(name, array.dtype, array.shape, array) for name, array in variables.items()]
    pairs = [(b"", header(shards))]
    with ExitStack() as stack:
        files = [stack.enter_context(open(f"{prefix}.data-{n:05d}-of-{shards:05d}", "wb")) for n in range(shards)]
        for n, (name, dtype, shape, array) in enumerate(sorted(variables, key=lambda variable: variable[0].encode())):
            array = np.ascontiguousarray(array() if callable(array) else array).reshape(shape)
            assert array.dtype == np.dtype(dtype)
            data, offset, crc = array.reshape(-1).view(np.uint8), files[n % shards].tell(), 0
            for start in range(0, len(data), PIECE):
                files[n % shards].write(data[start : start + PIECE])
                crc = extend(crc, data[start : start + PIECE])
            pairs.append((name.encode(), entry(array.dtype.name, shape, n % shards, offset, len(data), crc)))
    Path(f"{prefix}.index").write_bytes(table(pairs, compress, block_size))


def header(shards: int = 1, big_endian: bool = False, min_consumer: int = 0) -> bytes:
    """A BundleHeaderProto."""
    return number(1, shards) + number(2, big_endian) + submessage(3, number(1, 1) + number(2, min_consumer))


def entry(dtype: str | int, shape: Iterable[int], shard: int, offset: int, size: int, crc: int, more: bytes = b"") -> bytes:
    """A BundleEntryProto; `more` is appended."""
    dims = b"".join(submessage(2, number(1, n)) for n in shape)
    fields = number(1, NUMBERS.get(dtype, dtype)) + submessage(2, dims) + number(3, shard) + number(4, offset) + number(5, size)
    return fields + b"\x35" + mask(crc) + more


def table(pairs: Iterable[tuple[bytes, bytes]], compress: bool = False, block_size: int = 1 << 18) -> bytes:
    """A table of sorted pairs in blocks of about `block_size` bytes."""
    out, index, waiting, size = b"", [], [], 0
    for key, item in [*pairs, (None, b"")]:
        if waiting and (key is None or size >= block_size):
            handle, out = _add(out, _block(waiting), compress)
            index.append((waiting[-1][0], handle))
            waiting, size = [], 0
        waiting.append((key, item))
        size += len(key or b"") + len(item)
    meta, out = _add(out, _block([]), compress)
    handle, out = _add(out, _block(index, interval=1), compress)
    return out + (meta + handle).ljust(40, b"\0") + MAGIC


def _block(pairs: list[tuple[bytes, bytes]], interval: int = 16) -> bytes:
    out, restarts, before = b"", [], b""
    for n, (key, item) in enumerate(pairs):
        shared = 0
        if n % interval:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        else:
            restarts.append(len(out))
        out += varint(shared) + varint(len(key) - shared) + varint(len(item)) + key[shared:] + item
        before = key
    restarts = restarts or [0]
    return out + b"".join(n.to_bytes(4, "little") for n in [*restarts, len(restarts)])


def _add(out: bytes, contents: bytes, compress: bool) -> tuple[bytes, bytes]:
    handle = varint(len(out))
    block = bytes(cramjam.snappy.compress_raw(contents)) + b"\1" if compress else contents + b"\0"
    return handle + varint(len(block) - 1), out + block + mask(value(block))


def mask(crc: int) -> bytes:
    return ((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def varint(n: int) -> bytes:
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def number(field: int, n: int) -> bytes:
    """Absent where 0, as protobuf writes it; negative numbers as 64 bits of two's complement."""
    return varint(field << 3) + varint(n % (1 << 64)) if n else b""


def submessage(field: int, inside: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(inside)) + inside
