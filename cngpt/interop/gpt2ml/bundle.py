"""Reads TensorFlow's checkpoints (format V2, the "tensor bundle") without TensorFlow.

    model.ckpt-5.index                  a table (table.py) of name -> type, shape, which data file, offset, size, CRC32C
    model.ckpt-5.data-00000-of-00001    the tensors, little-endian, end to end

Sources: TensorFlow's core/protobuf/tensor_bundle.proto, core/framework/types.proto and tensor_shape.proto, and
core/util/tensor_bundle/tensor_bundle.h. Whatever is missing, damaged, or not plain tensors that fill their files exactly raises
UserError: no damaged checkpoint is ever converted.
"""

import math
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google_crc32c import value as crc32c

from cngpt.errors import UserError, nearest
from cngpt.interop.gpt2ml import find, table
from cngpt.interop.gpt2ml.find import AGAIN
from cngpt.interop.gpt2ml.wire import BYTES, FIXED32, VARINT, WireError, explained, last, message, unmasked

# by DataType of types.proto
NAMES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 17: "<u2", 19: "<f2", 22: "<u4", 23: "<u8"}
DTYPES = {number: np.dtype(name) for number, name in NAMES.items()}
OTHER_DTYPES = {7: "string", 8: "complex64", 14: "bfloat16", 18: "complex128", 20: "resource", 21: "variant"}
IN_SLICES = "in slices (a partitioner), which are not supported: load it in TensorFlow and save it whole"
LAST_SHARD = 99999  # the names of data files have five digits

# Fields of messages and their wire types
HEADER = {1: VARINT, 2: VARINT, 3: BYTES}  # BundleHeaderProto: num_shards, endianness, version
VERSION = {1: VARINT, 2: VARINT, 3: VARINT}  # VersionDef: producer, min_consumer, bad_consumers
# BundleEntryProto: dtype, shape, shard_id, offset, size, crc32c, slices
ENTRY = {1: VARINT, 2: BYTES, 3: VARINT, 4: VARINT, 5: VARINT, 6: FIXED32, 7: BYTES}
# TensorShapeProto: dim, unknown_rank; TensorShapeProto.Dim: size, name
SHAPE, DIM = {2: BYTES, 3: VARINT}, {1: VARINT, 2: BYTES}


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: `size` bytes from `offset` in the data file number `shard`."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    checksum: int | None  # CRC32C of the bytes; None: not known


class Bundle(AbstractContextManager):
    """A checkpoint that is open for reading; to be used in `with`.

    `entries`: name -> Entry in the order of names. `files`: the data files, which are mapped, not read; each has exactly the
    bytes that its entries need. All that can go wrong is a UserError: one line with the file and the remedy.
    """

    def __init__(self, entries: Iterable[Entry], files: list[Path]):
        self.entries, self.files = {entry.name: entry for entry in entries}, files
        sizes = [0] * len(files)
        for entry in self.entries.values():
            sizes[entry.shard] += entry.size
        self._maps = [_map(file, size) for file, size in zip(files, sizes, strict=True)]

    @classmethod
    def open(cls, path: str | Path) -> "Bundle":
        """The checkpoint at `path`, any of

        - the prefix of its files (".../model.ckpt-5"), its .index file, or a .data file with the .index beside it
        - a folder with one checkpoint, or with a file `checkpoint` that names the newest; that file itself
        """
        prefix, given_file = find.find_checkpoint(path)
        index = find.index_of(prefix)
        shards, entries = read_index(index)
        files = [Path(f"{prefix}.data-{n:05d}-of-{shards:05d}") for n in range(shards)]
        needed = f"{index.name} needs {shards} data file{'s' if shards > 1 else ''}"
        with explained(index):
            present = find.data_files(prefix)
        if given_file and given_file not in files:
            raise UserError(f"{given_file} is of another checkpoint than {index.name}: {needed}; copy them together again")
        if missing := {file.name for file in files} - set(present):
            others = f" and there is {', '.join(present[:3])}" if present else ""
            raise UserError(f"{index.parent / min(missing)} is missing: {needed}{others}; copy it beside")
        return cls(entries, files)

    @classmethod
    def from_layout(cls, data: str | Path, variables: Iterable[tuple[str, tuple[int, ...], str]]) -> "Bundle":
        """A lone data file whose .index is lost, by what its variables are: (name, shape, dtype).

        They lie end to end, sorted by the bytes of their names, as tf.train.Saver writes them. The size of the file must agree;
        without an index there are no checksums. A name that comes twice and a type that no checkpoint has raise ValueError.
        """
        find.refuse_one_of_several(data)
        return cls(layout(variables), [Path(data)])

    def read(self, name: str) -> np.ndarray:
        """The tensor, read-only, compared with its checksum: a view on the mapped file, or a copy where it lies unaligned.

        Pages of tensors read before go back to the system, so that reading one after another takes the memory of the largest.
        Views still in use stay valid, also after the `with`: a map of a file ends when the last view on it does.
        """
        if name not in self.entries:
            raise UserError(f"{self.files[0]} holds no tensor {name!r}.{nearest(name, self.entries)}")
        entry = self.entries[name]
        file, mapped = self.files[entry.shard], self._maps[entry.shard]
        data = np.empty(0, np.uint8)
        if mapped is not None:
            with explained(file):
                # touching bytes that were cut off would end the process
                if mapped.size() != len(mapped):
                    raise UserError(f"{file} changed while it was read: {AGAIN}")
            if hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)
            data = np.frombuffer(mapped, np.uint8)[entry.offset : entry.offset + entry.size]
        if entry.checksum is not None and crc32c(data) != entry.checksum:
            raise UserError(f"{file} is damaged: the checksum of tensor {name!r} does not match; {AGAIN}")
        tensor = data.view(entry.dtype).reshape(entry.shape)
        if not tensor.flags.aligned:
            tensor = tensor.copy()
        tensor.flags.writeable = False
        return tensor

    def __exit__(self, *_) -> None:
        self._maps.clear()


def read_index(path: str | Path) -> tuple[int, list[Entry]]:
    """(number of data files, entries in the order of names) of an .index file, without its data files.

    Names ascend strictly, sizes are those of type and shape, and in each data file the tensors lie end to end: else UserError.
    """
    find.refuse_remote(path)
    shards, entries = 0, []
    try:
        for key, value in _pairs(Path(path)):
            if key == b"":
                shards = _shards(path, value)
            # the keys of slices
            elif key.startswith(b"\0"):
                raise UserError(f"{path} has variables {IN_SLICES}")
            else:
                entries.append(_entry(path, key, value))
        _check_layout(shards, entries)
    except WireError as error:
        raise UserError(f"{path} is damaged: {error}; {AGAIN}") from None
    return shards, entries


def layout(variables: Iterable[tuple[str, tuple[int, ...], str]]) -> list[Entry]:
    """The entries of a checkpoint with one data file, from (name, shape, dtype), as tf.train.Saver lays them out."""
    entries, offset = [], 0
    for name, shape, dtype in sorted(variables, key=lambda variable: variable[0].encode()):
        if np.dtype(dtype) not in DTYPES.values() or (entries and entries[-1].name == name):
            raise ValueError(f"variable {name!r} ({dtype}) comes twice or has a type that no checkpoint has")
        size = math.prod(shape) * np.dtype(dtype).itemsize
        entries.append(Entry(name, np.dtype(dtype), tuple(shape), 0, offset, size, None))
        offset += size
    return entries


def _map(path: Path, size: int) -> mmap.mmap | None:
    """The data file, which must have `size` bytes; None where that is 0, as an empty file cannot be mapped."""
    with explained(path), open(path, "rb") as file:
        actual = os.fstat(file.fileno()).st_size
        if actual == size:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else None
        find.refuse_mistaken(path)
        reason = "it is cut off" if actual < size else "it is of another checkpoint or was copied wrongly"
        raise UserError(f"{path} has {actual:,} bytes, and its tensors need {size:,}: {reason}; {AGAIN}")


def _pairs(path: Path) -> Iterator[tuple[bytes, bytes]]:
    with explained(path), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - len(table.MAGIC)))
        if file.read() != table.MAGIC:
            find.refuse_mistaken(path)
            raise UserError(f"{path} is cut off or no index: {AGAIN}")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield from table.pairs(data)


def _shards(path, header: bytes) -> int:
    """The number of data files, of a BundleHeaderProto that promises what is read here."""
    if find.is_v1(header):
        raise UserError(f"{path} is {find.V1}")
    fields = message(header, HEADER)
    shards = last(fields[1])
    if last(fields[2]):
        raise UserError(f"{path} is of a big-endian machine: load it in TensorFlow there and save it on a little-endian one")
    if any(last(message(version, VERSION)[2]) > 1 for version in fields[3]):
        raise UserError(f"{path} is of a newer format than this program reads: save it with TensorFlow 1.15")
    if not 0 < shards <= LAST_SHARD:
        raise WireError(f"it claims {shards} data files")
    return shards


def _entry(path, key: bytes, value: bytes) -> Entry:
    """Of a BundleEntryProto."""
    try:
        name = key.decode()
    except UnicodeDecodeError:
        raise WireError(f"the name {key!r} is not UTF-8") from None
    fields = message(value, ENTRY)
    number, shard, offset, size, checksum = (last(fields[field]) for field in (1, 3, 4, 5, 6))
    shapes = [message(proto, SHAPE) for proto in fields[2]]
    if any(last(shape[3]) for shape in shapes):
        raise WireError("a tensor has no definite shape")
    shape = tuple(last(message(dim, DIM)[1]) for shape in shapes for dim in shape[2])
    if fields[7]:
        raise UserError(f"{path} has the variable {name!r} {IN_SLICES}")
    if number not in DTYPES:
        kind = OTHER_DTYPES.get(number, "unknown")
        raise UserError(f"{path}: tensor {name!r} has the type {kind} ({number}), which is not supported: save the weights alone")
    # NumPy allows no more
    if len(shape) > 32 or math.prod(max(n, 1) for n in shape) >= 1 << 60:
        raise WireError(f"tensor {name!r} has an impossible shape")
    if size != math.prod(shape) * DTYPES[number].itemsize:
        raise WireError(f"tensor {name!r} has {size} bytes, which is not {DTYPES[number]} of shape {shape}")
    return Entry(name, DTYPES[number], shape, shard, offset, size, unmasked(checksum))


def _check_layout(shards: int, entries: list[Entry]) -> None:
    """In each data file, tensors must follow one another without overlap or gap from byte 0."""
    if not shards:
        raise WireError("it has no header")
    end = [0] * shards
    for entry in sorted(entries, key=lambda entry: (entry.offset, entry.size)):
        if entry.shard >= shards:
            raise WireError(f"tensor {entry.name!r} is in data file {entry.shard} (from 0) of {shards}")
        if entry.offset != end[entry.shard]:
            problem = "overlaps another" if entry.offset < end[entry.shard] else "leaves a gap before it"
            raise WireError(f"tensor {entry.name!r} {problem}")
        end[entry.shard] += entry.size
