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
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cngpt.errors import UserError, nearest
from cngpt.interop.gpt2ml import table
from cngpt.interop.gpt2ml.find import AGAIN, DATA_FILE, V1, beside, data_files, find, is_v1, mistaken, refuse_remote
from cngpt.interop.gpt2ml.wire import BYTES, FIXED32, VARINT, WireError, crc32c, explained, last, message, unmasked

DTYPES = {  # by DataType of types.proto
    number: np.dtype(name)
    for number, name in {
        1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 5: "<i2", 6: "i1", 9: "<i8", 10: "?", 17: "<u2", 19: "<f2", 22: "<u4", 23: "<u8",
    }.items()
}  # fmt: skip
OTHER_DTYPES = {7: "string", 8: "complex64", 14: "bfloat16", 18: "complex128", 20: "resource", 21: "variant"}
LAST_SHARD = 99999  # the names of data files have five digits

# Fields of messages and their wire types
HEADER = {1: VARINT, 2: VARINT, 3: BYTES}  # BundleHeaderProto: num_shards, endianness, version
VERSION = {1: VARINT, 2: VARINT, 3: VARINT}  # VersionDef: producer, min_consumer, bad_consumers
# BundleEntryProto: dtype, shape, shard_id, offset, size, crc32c, slices
ENTRY = {1: VARINT, 2: BYTES, 3: VARINT, 4: VARINT, 5: VARINT, 6: FIXED32, 7: BYTES}
SHAPE = {2: BYTES, 3: VARINT}  # TensorShapeProto: dim, unknown_rank
DIM = {1: VARINT, 2: BYTES}  # TensorShapeProto.Dim: size, name


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


class Bundle:
    """A checkpoint that is open for reading; use it in `with`, or `close` it.

    `entries`: name -> Entry in the order of names. `files`: the data files, which are mapped, not read; each has exactly the
    bytes that its entries need. All that can go wrong is a UserError: one line with the file and the remedy.
    """

    def __init__(self, entries: Iterable[Entry], files: list[Path]):
        self.entries = {entry.name: entry for entry in entries}
        self.files = files
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
        prefix, given = find(path)
        index = beside(prefix, ".index")
        shards, entries = read_index(index)
        files = [beside(prefix, f".data-{n:05d}-of-{shards:05d}") for n in range(shards)]
        needs = f"{index.name} needs {shards} data file{'s' if shards > 1 else ''}"
        with explained(index):
            here = data_files(prefix)
        if given and given not in files:
            raise UserError(f"{given} is of another checkpoint than {index.name}: {needs}; copy them together again")
        if missing := {file.name for file in files} - set(here):
            there = f" and there is {', '.join(here[:3])}" if here else ""
            raise UserError(f"{index.parent / min(missing)} is missing: {needs}{there}; copy it beside")
        return cls(entries, files)

    @classmethod
    def from_layout(cls, data: str | Path, variables: Iterable[tuple[str, tuple[int, ...], str]]) -> "Bundle":
        """A lone data file whose .index is lost, by what its variables are: (name, shape, dtype).

        They lie end to end, sorted by the bytes of their names, as tf.train.Saver writes them. The size of the file must agree;
        without an index there are no checksums. A name that comes twice and a type that no checkpoint has raise ValueError.
        """
        refuse_remote(data)
        data = Path(data)
        match = DATA_FILE.fullmatch(data.name)
        if match and int(match[3]) != 1:
            raise UserError(
                f"{data} is one of {int(match[3])} data files, which cannot be read without the .index: copy that too"
            )
        return cls(layout(variables), [data])

    def read(self, name: str) -> np.ndarray:
        """The tensor, read-only, compared with its checksum: a view on the mapped file, or a copy where it lies unaligned.

        Pages of tensors read before go back to the system, so that reading one after another takes the memory of the largest.
        Views still in use stay valid, also after `close`.
        """
        if name not in self.entries:
            raise UserError(f"{self.files[0]} holds no tensor {name!r}.{nearest(name, self.entries)}")
        entry = self.entries[name]
        file, mapped = self.files[entry.shard], self._maps[entry.shard]
        data = np.empty(0, np.uint8)
        if mapped is not None:
            with explained(file):
                if mapped.size() != len(mapped):  # touching what is no more would end the process
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

    def close(self) -> None:
        """Lets go of the files."""
        self._maps.clear()  # a map ends when the last view on it does

    def __enter__(self) -> "Bundle":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def read_index(path: str | Path) -> tuple[int, list[Entry]]:
    """(number of data files, entries in the order of names) of an .index file, without its data files.

    Names ascend strictly, sizes are those of type and shape, and in each data file the tensors lie end to end: else UserError.
    """
    refuse_remote(path)
    shards, entries = 0, []
    try:
        for key, value in _pairs(Path(path)):
            if key == b"":
                shards = _shards(path, value)
            elif key.startswith(b"\0"):  # so begin the keys of slices
                raise _in_slices(path, "variables")
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


def _map(file: Path, size: int) -> mmap.mmap | None:
    """The data file, which must have `size` bytes; None where that is 0, for nothing cannot be mapped."""
    with explained(file), open(file, "rb") as opened:
        has = os.fstat(opened.fileno()).st_size
        if has == size:
            return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) if size else None
        if what := mistaken(file):
            raise UserError(f"{file} is {what}")
        why = "it is cut off" if has < size else "it is of another checkpoint or was copied wrongly"
        raise UserError(f"{file} has {has:,} bytes, and its tensors need {size:,}: {why}; {AGAIN}")


def _pairs(path: Path) -> Iterator[tuple[bytes, bytes]]:
    with explained(path), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - len(table.MAGIC)))
        if file.read() != table.MAGIC:
            what = mistaken(path)
            raise UserError(f"{path} is {what}" if what else f"{path} is cut off or no index: {AGAIN}")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield from table.pairs(data)


def _shards(path, header: bytes) -> int:
    """The number of data files, of a BundleHeaderProto that promises what is read here."""
    if is_v1(header):
        raise UserError(f"{path} is {V1}")
    found = message(header, HEADER)
    shards = last(found[1])
    if last(found[2]):
        raise UserError(f"{path} is of a big-endian machine: load it in TensorFlow there and save it on a little-endian one")
    if any(last(message(version, VERSION)[2]) > 1 for version in found[3]):
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
    found = message(value, ENTRY)
    number, shard, offset, size, checksum = (last(found[field]) for field in (1, 3, 4, 5, 6))
    shape = tuple(n for dims in found[2] for n in _shape(dims))
    if found[7]:
        raise _in_slices(path, f"the variable {name!r}")
    if number not in DTYPES:
        what = OTHER_DTYPES.get(number, "unknown")
        raise UserError(f"{path}: tensor {name!r} has the type {what} ({number}), which is not supported: save the weights alone")
    if len(shape) > 32 or math.prod(max(n, 1) for n in shape) >= 1 << 60:  # more than NumPy allows
        raise WireError(f"tensor {name!r} has an impossible shape")
    if size != math.prod(shape) * DTYPES[number].itemsize:
        raise WireError(f"tensor {name!r} has {size} bytes, which is not {DTYPES[number]} of shape {shape}")
    return Entry(name, DTYPES[number], shape, shard, offset, size, unmasked(checksum))


def _shape(proto: bytes) -> Iterator[int]:
    """The sizes of a TensorShapeProto."""
    found = message(proto, SHAPE)
    if last(found[3]):
        raise WireError("a tensor has no definite shape")
    for dim in found[2]:
        yield last(message(dim, DIM)[1])


def _check_layout(shards: int, entries: list[Entry]) -> None:
    """In each data file, tensors must follow one another without overlap or gap from byte 0."""
    if not shards:
        raise WireError("it has no header")
    end = [0] * shards
    for entry in sorted(entries, key=lambda entry: (entry.offset, entry.size)):
        if entry.shard >= shards:
            raise WireError(f"tensor {entry.name!r} is in data file {entry.shard} (from 0) of {shards}")
        if entry.offset != end[entry.shard]:
            how = "overlaps another" if entry.offset < end[entry.shard] else "leaves a gap before it"
            raise WireError(f"tensor {entry.name!r} {how}")
        end[entry.shard] += entry.size


def _in_slices(path, what: str) -> UserError:
    return UserError(
        f"{path} has {what} in slices (a partitioner), which are not supported: load it in TensorFlow and save it whole"
    )
