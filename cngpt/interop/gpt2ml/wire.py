"""What TensorFlow's files are made of: varints, protobuf fields and masked CRC32C.

Sources: protobuf.dev/programming-guides/encoding; TensorFlow's core/lib/hash/crc32c.h for the mask.
What does not decode raises WireError; the caller knows which file it was and tells the user.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cngpt.errors import UserError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types of protobuf


class WireError(ValueError):
    """Bytes that are not what they should be. The message goes on from "... is damaged: "."""


@contextmanager
def explained(path: str | Path) -> Iterator[None]:
    """Turns what the system says about a file, such as "permission denied", into UserError."""
    known = {
        FileNotFoundError: "does not exist: check the path",
        PermissionError: "may not be read by this user: chmod +r it, or copy it",
        IsADirectoryError: "is a folder where a file was expected: give a file",
    }
    try:
        yield
    except OSError as error:
        unknown = f"cannot be read ({error.strerror or error}): copy it elsewhere and try there"
        raise UserError(f"{error.filename or path} {known.get(type(error), unknown)}") from None


def unmasked(stored: int) -> int:
    """The CRC32C that stands behind a stored one: TensorFlow rotates it by 15 bits and adds a constant."""
    rotated = (stored - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def varint(data: bytes, at: int) -> tuple[int, int]:
    """(number below 2^64, where the next byte is). Only the shortest form of a number counts."""
    value = 0
    for n, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << 7 * n
        if byte < 0x80:
            if (n and not byte) or value >= 1 << 64:
                raise WireError("a number is not written as it should be")
            return value, at + n + 1
    raise WireError("a number has no end")


def fields(message: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """(field number, wire type, value) of each field in turn: an int, or bytes where the type is BYTES."""
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = varint(message, at)
        else:
            if kind == BYTES:
                size, at = varint(message, at)
            elif kind in (FIXED32, FIXED64):
                size = 4 if kind == FIXED32 else 8
            else:
                raise WireError(f"a field has the unknown wire type {kind}")
            if at + size > len(message):
                raise WireError("a field is longer than its message")
            value, at = message[at : at + size], at + size
            if kind != BYTES:
                value = int.from_bytes(value, "little")
        yield number, kind, value


def message(data: bytes, kinds: dict[int, int]) -> dict[int, list]:
    """Field number -> all its values, for each field of `kinds` (number -> wire type). Any other field raises WireError."""
    values = {number: [] for number in kinds}
    for number, kind, value in fields(data):
        if kinds.get(number) != kind:
            raise WireError(f"a message has the unexpected field {number} of wire type {kind}")
        values[number].append(value)
    return values


def last(values: list) -> int:
    """The value of a field that is there once, or not at all where it is 0."""
    return values[-1] if values else 0


def varints(packed: bytes) -> np.ndarray:
    """All numbers of a packed list of int64, (n,) int64."""
    data = np.frombuffer(packed, np.uint8)
    ends = np.flatnonzero(data < 0x80)
    if not len(data):
        return np.empty(0, np.int64)
    if not len(ends) or ends[-1] != len(data) - 1:
        raise WireError("a number has no end")
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    lengths = ends - starts
    values = (data[starts] & 0x7F).astype(np.uint64)
    for n in range(1, int(lengths.max()) + 1):
        longer = np.flatnonzero(lengths >= n)
        byte = data[starts[longer] + n].astype(np.uint64)
        # the tenth byte has the last of 64 bits
        if n == 9 and (byte > 1).any():
            raise WireError("a number is not written as it should be")
        values[longer] |= (byte & np.uint64(0x7F)) << np.uint64(7 * n)
    return values.view(np.int64)
