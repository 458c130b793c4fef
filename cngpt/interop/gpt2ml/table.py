"""Reads the tables of sorted (key, value) pairs that TensorFlow took over from LevelDB: the `.index` of a checkpoint is one.

    data block ...  metaindex block (empty)  index block  footer of 48 bytes

A block is its contents, one byte for the compression (0 none, 1 Snappy) and the masked CRC32C of both. Contents are entries
(bytes shared with the key before, further bytes of the key, bytes of the value, as varints; the rest of the key; the value), then
the offsets of the entries that share nothing, then their count. The index block has an entry a data block: a key from its last one
up to, and without, the next block's first, and the handle (offset, size). The footer has the handles of the last two blocks, zeros up to
byte 40, and MAGIC. Sources: TensorFlow's core/lib/io/format.h, block.cc and table_builder.cc; LevelDB's doc/table_format.md.
"""

import mmap
import struct
from collections.abc import Iterator

import cramjam
from google_crc32c import value as crc32c

from cngpt.interop.gpt2ml.wire import WireError, unmasked, varint

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
FOOTER = 48  # bytes
TRAILER = 5  # bytes after a block's contents
# a copy of 64 bytes takes three; a block that claims more would only fill the memory
SNAPPY_RATIO = 64


def pairs(data: bytes | mmap.mmap) -> Iterator[tuple[bytes, bytes]]:
    """The (key, value) pairs of a table, keys strictly ascending, read block by block.

    Every byte must belong to a block or to the footer, and every checksum must match: else WireError, some of it only when
    the last pair has been read.
    """
    if len(data) < FOOTER or data[-8:] != MAGIC:
        raise WireError("it does not end as a table does")
    (meta, meta_size), at = _handle(footer := data[-FOOTER:], 0)
    (index, index_size), at = _handle(footer, at)
    if any(footer[at:-8]):
        raise WireError("its footer has more in it than it should")
    if index + index_size + TRAILER + FOOTER != len(data) or meta + meta_size + TRAILER != index:
        raise WireError("its blocks and its footer do not fill it exactly")
    if any(True for _ in _entries(_contents(data, meta, meta_size))):
        raise WireError("it has a metaindex, which TensorFlow never wrote")
    end, last = 0, None
    for separator, handle in _entries(_contents(data, index, index_size)):
        (offset, size), at = _handle(handle, 0)
        if at != len(handle) or offset != end or (end := offset + size + TRAILER) > meta:
            raise WireError("its blocks do not lie end to end")
        for key, value in _entries(_contents(data, offset, size)):
            if last is not None and key <= last:
                raise WireError("its keys are out of order")
            last = key
            yield key, value
        if last is None or separator < last:
            raise WireError("its keys are out of order")
        # below all keys of the next block
        last = separator
    if end != meta:
        raise WireError("its blocks do not lie end to end")


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return (offset, size), at


def _contents(data: bytes | mmap.mmap, offset: int, size: int) -> bytes:
    block, stored = data[offset : offset + size + 1], data[offset + size + 1 : offset + size + TRAILER]
    if crc32c(block) != unmasked(int.from_bytes(stored, "little")):
        raise WireError(f"the checksum of the block at byte {offset} does not match")
    contents, compression = block[:-1], block[-1]
    if compression == 0:
        return contents
    if compression != 1:
        raise WireError(f"the block at byte {offset} has the unknown compression {compression}")
    if varint(contents, 0)[0] > SNAPPY_RATIO * size:
        raise WireError(f"the block at byte {offset} claims more than Snappy can hold")
    try:
        return bytes(cramjam.snappy.decompress_raw(contents))
    except cramjam.DecompressionError:
        raise WireError(f"the block at byte {offset} does not decompress") from None


def _entries(contents: bytes) -> Iterator[tuple[bytes, bytes]]:
    (count,) = struct.unpack("<I", contents[-4:]) if len(contents) >= 4 else (0,)
    limit = len(contents) - 4 - 4 * count
    if count < 1 or limit < 0:
        raise WireError("a block is shorter than its list of restarts")
    restarts = struct.unpack(f"<{count}I", contents[limit:-4])
    at, key, starts = 0, b"", set()
    while at < limit:
        start = at
        shared, at = varint(contents, at)
        fresh, at = varint(contents, at)
        length, at = varint(contents, at)
        if shared > len(key) or at + fresh + length > limit:
            raise WireError("an entry reaches beyond its block")
        if not shared:
            starts.add(start)
        key = key[:shared] + contents[at : at + fresh]
        at += fresh + length
        yield key, contents[at - length : at]
    if list(restarts) != sorted(starts & set(restarts) | {0}):
        raise WireError("the restarts of a block are not where its entries begin")
