"""Streams of bytes over a file: a part of its lines, what it holds unpacked, how far it has been read."""

import io
import zipfile
import zlib
from collections.abc import Callable
from typing import IO

import zstandard

from cngpt.corpus.document import Progress

BROKEN = (OSError, EOFError, zlib.error, zipfile.BadZipFile, zstandard.ZstdError, RuntimeError, NotImplementedError)


class Wrapped(io.RawIOBase):
    """A file that is read through another one. A subclass says with `_take(size)` which bytes come next, up to so many."""

    def __init__(self, file: IO[bytes]):
        self._file = file

    def _take(self, size: int) -> bytes:
        raise NotImplementedError

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self._take(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


class LinesBetween(Wrapped):
    """The whole lines of a file that begin at `start` or later and before `end`."""

    def __init__(self, file: IO[bytes], start: int, end: int):
        super().__init__(file)
        self._end, self._last = end, b""
        if start:
            file.seek(start - 1)
            file.readline()  # the line that began before; nothing, where the one before ends just there
        self._at = file.tell()

    def _take(self, size: int) -> bytes:
        if self._at < self._end:
            data = self._file.read(min(size, self._end - self._at))
        else:  # the rest of the line that began before the end
            data = b"" if self._last in (b"", b"\n") else self._file.readline(size)
        self._at, self._last = self._at + len(data), data[-1:]
        return data


class Metered(Wrapped):
    """Tells `progress` how far the reading has come, in bytes on disk."""

    def __init__(self, file: IO[bytes], progress: Progress, expansion: float):
        super().__init__(file)
        self._progress, self._expansion = progress, max(expansion, 1e-9)

    def _take(self, size: int) -> bytes:
        data = self._file.read(size)
        self._progress(len(data) / self._expansion)
        return data


class Decompressed(Wrapped):
    """What is in the frames of zstd or gzip, one after another, known by their first bytes, not by the name; else the bytes as
    they are. An error while reading is kept in `broken`, and ends the file.
    """

    def __init__(self, file: io.BufferedReader):
        super().__init__(file)
        self._begin, self._frame = None, None
        self._ready, self._rest = b"", b""
        self._opened, self.broken = False, None

    def _take(self, size: int) -> bytes:
        try:
            while not self._ready:
                if self.broken is not None or not self._read_more():
                    return b""
        except BROKEN as error:
            self.broken = error
            return b""
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

    def _read_more(self) -> bool:
        """False at the end."""
        if not self._opened:
            self._begin, self._opened = decompressor(self._file.peek(4)), True
        if self._begin is None:
            self._ready = self._file.read1(1 << 18)
            return bool(self._ready)
        # small pieces, and a frame at a time: where the data are damaged, all that came of the same call is lost
        data, self._rest = self._rest or self._file.read1(1 << 13), b""
        if self._frame is None:
            data = data.lstrip(b"\0")  # gzip files may be padded
            self._frame = self._begin() if data else None
        elif not data:
            raise EOFError("the compressed data end too early")
        if self._frame is None:
            return bool(self._file.peek(1))
        self._ready = self._frame.decompress(data)
        if self._frame.eof:
            self._rest, self._frame = self._frame.unused_data, None
        return True


def decompressor(magic: bytes) -> Callable | None:
    """Neither gzip.GzipFile nor zstandard's own reader will do: an error takes along what they have gathered, and the latter
    does not tell a file that was cut off from one that ended."""
    if magic[:2] == b"\x1f\x8b":
        return lambda: zlib.decompressobj(wbits=31)
    if magic[:4] == b"\x28\xb5\x2f\xfd":
        return lambda: zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
    return None
