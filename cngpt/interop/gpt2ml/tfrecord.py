"""Reads the TFRecord files that gpt2-ml's prepare_data.py wrote: rows of token ids.

A record is its length (8 bytes), the masked CRC32C of these (4), a tf.train.Example, and its masked CRC32C (4), little-endian.
Sources: TensorFlow's core/lib/io/record_writer.h; core/example/example.proto and feature.proto.
"""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from google_crc32c import value as crc32c

from cngpt.errors import UserError
from cngpt.files import open_read
from cngpt.interop.gpt2ml.wire import BYTES, VARINT, WireError, explained, fields, message, unmasked, varints

FEATURE = "input_ids"
GZIP = b"\x1f\x8b\x08"
HEAD = 12  # bytes: the length and its checksum
LONGEST = 1 << 31  # bytes of a protobuf message
AGAIN = "make or copy it again"


def rows(path: str | Path) -> Iterator[np.ndarray]:
    """The ids of each record in turn as they are stored, with their pads: (n,) int64. Plain files or gzip, local or remote.

    Both checksums of every record are compared. What is damaged or cut off, and a record without an int64 feature `input_ids`,
    raises UserError with the number of the record, counted from 1; so does an empty file. (What was cut off just between two
    records cannot be told from a whole file.)
    """
    with explained(path), open_read(path) as file:
        number, head = 1, file.read(HEAD)
        file.seek(0)
        # a plain record of 559,903 bytes begins like gzip, too
        if head.startswith(GZIP) and not _is_head(head):
            file = gzip.GzipFile(fileobj=file)
        try:
            while (record := _record(file)) is not None:
                yield _ids(record)
                number += 1
        except (WireError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UserError(f"{path} is damaged at record {number}: {error}; {AGAIN}") from None
        except _NoIds as error:
            raise UserError(f"{path}: record {number} {error}: give files of gpt2-ml's prepare_data.py") from None
        if number == 1:
            raise UserError(f"{path} is empty: {AGAIN}")


class _NoIds(Exception):
    """A sound record of something else."""


def _is_head(head: bytes) -> bool:
    return len(head) == HEAD and crc32c(head[:8]) == unmasked(int.from_bytes(head[8:], "little"))


def _record(file: IO[bytes]) -> bytes | None:
    """The bytes of the next record; None at the end of the file."""
    head = file.read(HEAD)
    if not head:
        return None
    if len(head) < HEAD:
        raise WireError("it is cut off")
    if not _is_head(head):
        raise WireError("the checksum of its length does not match, if this is a TFRecord at all")
    length = int.from_bytes(head[:8], "little")
    if length >= LONGEST:
        raise WireError(f"{length} bytes are more than a record can have")
    rest = file.read(length + 4)
    if len(rest) < length + 4:
        raise WireError("it is cut off")
    record = rest[:length]
    if crc32c(record) != unmasked(int.from_bytes(rest[length:], "little")):
        raise WireError("its checksum does not match")
    return record


def _ids(record: bytes) -> np.ndarray:
    """`input_ids` of a tf.train.Example."""
    features = {}
    # Example.features, and Features.feature, a map
    for map_ in message(record, {1: BYTES})[1]:
        for pair in message(map_, {1: BYTES})[1]:
            pair = message(pair, {1: BYTES, 2: BYTES})
            name = b"".join(pair[1][-1:]).decode(errors="replace")
            if name in features:
                raise WireError(f"it has the feature {name!r} twice")
            features[name] = b"".join(pair[2])
    if FEATURE not in features:
        raise _NoIds(f"has no feature {FEATURE!r}, only {', '.join(map(repr, sorted(features))) or 'nothing'}")
    # bytes_list, float_list, int64_list
    feature = message(features[FEATURE], {1: BYTES, 2: BYTES, 3: BYTES})
    if feature[1] or feature[2] or not feature[3]:
        raise _NoIds(f"has a feature {FEATURE!r} that is no list of int64")
    return _int64(b"".join(feature[3]))


def _int64(proto: bytes) -> np.ndarray:
    """All numbers of an Int64List, packed (as TensorFlow writes them) or one by one."""
    numbers = []
    for field, kind, value in fields(proto):
        if field != 1 or kind not in (BYTES, VARINT):
            raise WireError(f"a list of int64 has the unexpected field {field}")
        numbers.append(varints(value) if kind == BYTES else np.array([value], np.uint64).view(np.int64))
    return numbers[0] if len(numbers) == 1 else np.concatenate([np.empty(0, np.int64), *numbers])
