"""Bytes on disk -> lines, texts and JSON records: compression, archives, encodings. Streams; never a whole corpus in memory.

Whatever is broken is counted in a Tally with its place, and left out.
"""

import codecs
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import IO

import zstandard

from cngpt import files
from cngpt.corpus.document import Tally

PIECE = 4 << 20  # bytes decoded at a time
LIMIT = 64 << 20  # bytes of one line, or characters of one JSON value; what is longer is broken
BROKEN = (OSError, EOFError, zlib.error, zipfile.BadZipFile, zstandard.ZstdError, RuntimeError, NotImplementedError)

Progress = Callable[[float], None]  # told how many more bytes on disk have been read


@dataclass(frozen=True, slots=True)
class OnDisk:
    """How to open a file; `open`s travel between processes."""

    path: str

    def __call__(self) -> IO[bytes]:
        return files.open_read(self.path)


@dataclass(frozen=True, slots=True)
class InZip:
    """How to open the member of a zip that its directory lists at `place`."""

    archive: OnDisk
    place: int

    @property
    def path(self) -> str:
        return self.archive.path

    def __call__(self) -> IO[bytes]:
        archive = _archive(self.archive)
        return archive.open(archive.infolist()[self.place])


@dataclass(frozen=True, slots=True)
class Slice:
    """How to open the lines of a file that begin from `start` on and before `end`."""

    whole: OnDisk
    start: int
    end: int

    @property
    def path(self) -> str:
        return self.whole.path

    def __call__(self) -> IO[bytes]:
        return _Lines(self.whole(), self.start, self.end)


@dataclass(frozen=True, slots=True)
class Raw:
    """One file, or one member of a zip: `name` below the root (`a.zip/b.txt`), bytes on disk, how to open it."""

    name: str
    size: int
    open: OnDisk | InZip | Slice
    expansion: float = 1.0  # bytes that `open` gives for each byte on disk
    part: str = ""  # which slice of the file

    @property
    def place(self) -> str:
        """For the ids of its documents."""
        return self.name + self.part

    @property
    def content(self) -> float:
        """Bytes in it, about: of a compressed file four times as many as on disk."""
        return self.size * (4.0 if self.name.lower().endswith((".gz", ".zst")) else self.expansion)


def find(root: str, tally: Tally) -> Iterator[Raw]:
    """Every file below `root`, zips not yet opened (see `unzip`), in sorted order."""
    base = root.rstrip("/")
    for path, size in files.listing(root):
        name = path[len(base) :].lstrip("/\\").replace("\\", "/") or base.replace("\\", "/").split("/")[-1]
        if size < 0:
            tally.add("unreadable file", name)
        else:
            yield Raw(name, size, OnDisk(path))


def unzip(raw: Raw, tally: Tally) -> Iterator[Raw]:
    """The members of a zip in sorted order, or the file itself when it is none."""
    if not raw.name.lower().endswith(".zip"):
        yield raw
        return
    try:
        archive = _archive(raw.open)
    except BROKEN as error:
        tally.add("broken archive", f"{raw.name}: {error}")
        return
    members = [(_member_name(info), place, info) for place, info in enumerate(archive.infolist()) if not info.is_dir()]
    for name, place, info in sorted(members, key=lambda member: member[0]):
        if not any(part.startswith((".", "__MACOSX")) for part in name.split("/")):
            expansion = info.file_size / max(1, info.compress_size)
            yield Raw(f"{raw.name}/{name}", info.compress_size, InZip(raw.open, place), expansion)


@lru_cache(maxsize=2)  # its directory of 740,000 members is read once, not for each of them
def _archive(opener: OnDisk) -> zipfile.ZipFile:
    return zipfile.ZipFile(opener())


def forget() -> None:
    """Closes the archives that are open, whose directories can be hundreds of megabytes; they are opened again when they are read."""
    _archive.cache_clear()


def sliced(raw: Raw, size: int) -> Iterator[Raw]:
    """Slices of about `size` bytes at line ends, where each line is a record of its own and nothing is compressed; else `raw`."""
    if raw.size < 2 * size or not isinstance(raw.open, OnDisk) or suffix(raw.name) not in (".jsonl", ".json", ""):
        yield raw
        return
    with raw.open() as file:
        compressed = _decompressor(file.read(4)) is not None
    if compressed or (suffix(raw.name) != ".jsonl" and not _is_json_lines(raw)):
        yield raw
        return
    for start in range(0, raw.size, size):
        end = min(start + size, raw.size)
        yield Raw(raw.name, end - start, Slice(raw.open, start, end), part=f"@{start}")


def _member_name(info: zipfile.ZipInfo) -> str:
    """Zips made on Chinese Windows hold GBK names without saying so; zipfile reads them as cp437."""
    if info.flag_bits & 0x800 or info.filename.isascii():
        return info.filename
    try:
        return info.filename.encode("cp437").decode("gb18030")
    except UnicodeError:
        return info.filename


def suffix(name: str) -> str:
    """`.jsonl` of `News.JSONL.gz`; empty when there is none."""
    last = name.lower().rpartition("/")[2].removesuffix(".gz").removesuffix(".zst")
    return last[last.rindex(".") :] if "." in last else ""


def stream(raw: Raw, progress: Progress) -> io.BufferedReader:
    """The decompressed bytes up to the end, or to where the file breaks off: then `check` raises why.

    (An error in the middle of `read` would take along all that this `read` had gathered.)
    """
    return io.BufferedReader(_Decompressed(io.BufferedReader(_Metered(raw.open(), progress, raw.expansion), 1 << 18)), 1 << 20)


def check(file: io.BufferedReader) -> None:
    """At the end of a stream: raises one of BROKEN where that was no proper end."""
    if file.raw.broken is not None:
        raise file.raw.broken


def pieces(raw: Raw, tally: Tally, progress: Progress) -> Iterator[bytes]:
    """The bytes in pieces of about PIECE, cut at line ends; lines beyond LIMIT are counted and left out.

    A file that breaks off gives its lines until then; then one of BROKEN is raised.
    """
    with stream(raw, progress) as file:
        while piece := file.read(PIECE):
            if not piece.endswith(b"\n"):
                rest = file.readline(LIMIT)
                if len(rest) == LIMIT and not rest.endswith(b"\n"):
                    tally.add("line too long", f"{raw.name}: more than {LIMIT >> 20} MB")
                    while rest and not rest.endswith(b"\n"):
                        rest = file.readline(LIMIT)
                    piece, rest = piece[: piece.rfind(b"\n") + 1], b""
                piece += rest
                if file.raw.broken is not None:
                    piece = piece[: piece.rfind(b"\n") + 1]
            yield piece
        check(file)


def guess_encoding(data: bytes) -> str | None:
    """`utf-8`, `gb18030`, or None when it is neither; a few bad bytes do not change the verdict."""
    for encoding in ("utf-8", "gb18030"):
        decoder = codecs.getincrementaldecoder(encoding)
        try:
            decoder().decode(data)  # not final: a character that the end of the data cuts in two is no error
            return encoding
        except UnicodeDecodeError:
            text = decoder("replace").decode(data)
        foreign = len(text) - len(text.encode("ascii", "ignore"))
        if text.count("\ufffd") * 20 < foreign:
            return encoding
        if b"\0" in data:
            return None  # UTF-16, or no text at all; GB18030 would make something of it
    return None


def lines(raw: Raw, tally: Tally, progress: Progress) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end). Lines that do not fit the file's encoding are counted and left out."""
    encoding, number = None, 0
    for piece in pieces(raw, tally, progress):
        if number == 0:
            piece = piece.removeprefix(codecs.BOM_UTF8)
        if encoding is None and not piece.isascii():
            encoding = guess_encoding(piece)
            if encoding is None or piece.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                tally.add("bad encoding", f"{raw.name}: neither UTF-8 nor GB18030")
                return
        found = piece.split(b"\n")
        if not found[-1]:
            found.pop()
        try:
            decoded = piece.decode(encoding or "ascii").split("\n")
        except UnicodeDecodeError:
            decoded = [_decode(line, encoding) for line in found]
        for line in decoded[: len(found)]:
            number += 1
            if line is None:
                tally.add("bad encoding", f"{raw.name}:{number}")
            else:
                yield number, line.removesuffix("\r")


def _decode(line: bytes, encoding: str) -> str | None:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError:
        return None


def records(raw: Raw, tally: Tally, progress: Progress) -> Iterator[tuple[int, dict]]:
    """(number from 1, JSON object) of json-lines, or of a `.json` that is an array or holds objects over several lines."""
    values = _stream_of_json if suffix(raw.name) == ".json" and not _is_json_lines(raw) else _lines_of_json
    for number, value in values(raw, tally, progress):
        if isinstance(value, dict):
            yield number, value
        else:
            tally.add("not a JSON object", f"{raw.name}:{number}: {value!r:.80}")


def _lines_of_json(raw: Raw, tally: Tally, progress: Progress) -> Iterator[tuple[int, object]]:
    for number, line in lines(raw, tally, progress):
        if line and not line.isspace():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                tally.add("bad JSON", f"{raw.name}:{number}: {line[:80]}")
            else:
                yield number, value


def _is_json_lines(raw: Raw) -> bool:
    """Whether one of the first lines is an object by itself. The last element of an array can be: hence the bracket."""
    with stream(raw, lambda _: None) as file:
        head = file.read(1 << 20).removeprefix(codecs.BOM_UTF8).lstrip()
    for line in head.split(b"\n")[:100] if not head.startswith(b"[") else ():
        try:
            if line.startswith(b"{") and json.loads(line.decode(guess_encoding(line) or "utf-8")):
                return True
        except (ValueError, RecursionError):
            pass
    return False


def _stream_of_json(raw: Raw, tally: Tally, progress: Progress) -> Iterator[tuple[int, object]]:
    """The elements of an array, or values one after another, however they are broken into lines."""
    with stream(raw, lambda _: None) as file:
        encoding = guess_encoding(file.read(PIECE))
    if encoding is None:
        tally.add("bad encoding", f"{raw.name}: neither UTF-8 nor GB18030")
        return
    decode, number, text, at = json.JSONDecoder().raw_decode, 0, "", 0
    characters = codecs.getincrementaldecoder("utf-8-sig" if encoding == "utf-8" else encoding)()
    with stream(raw, progress) as file:
        wanted = 1 << 20
        try:
            while block := file.read(wanted):
                text, at = text[at:] + characters.decode(block), 0
                while (start := _next_value(text, at)) < len(text):
                    try:
                        value, at = decode(text, start)
                    except (ValueError, RecursionError):
                        at = start  # most likely cut by the end of the block
                        break
                    number += 1
                    yield number, value
                else:
                    at = len(text)
                wanted = max(1 << 20, len(text) - at)  # reading as much again keeps the work linear
                if wanted > LIMIT:
                    break
        except UnicodeDecodeError as error:
            tally.add("bad encoding", f"{raw.name}: after {number} records: {error.reason}")
            return
        check(file)
    if at < len(text):
        tally.add("bad JSON", f"{raw.name}: after {number} records: {text[at : at + 80]}")


def _next_value(text: str, at: int) -> int:
    """Where the next value begins: past space, commas and the brackets of the outermost array."""
    while at < len(text) and text[at] in " \t\r\n,[]":
        at += 1
    return at


class _Lines(io.RawIOBase):
    """The whole lines of a file that begin at `start` or later and before `end`."""

    def __init__(self, file: IO[bytes], start: int, end: int):
        self._file, self._end, self._last = file, end, b""
        if start:
            file.seek(start - 1)
            file.readline()  # the line that began before; nothing, where the one before ends just there
        self._at = file.tell()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        if self._at < self._end:
            data = self._file.read(min(len(buffer), self._end - self._at))
        else:  # the rest of the line that began before the end
            data = b"" if self._last in (b"", b"\n") else self._file.readline(len(buffer))
        self._at, self._last = self._at + len(data), data[-1:]
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Metered(io.RawIOBase):
    """Tells `progress` how far the reading has come, in bytes on disk."""

    def __init__(self, file: IO[bytes], progress: Progress, expansion: float):
        self._file, self._progress, self._expansion = file, progress, max(expansion, 1e-9)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._progress(len(data) / self._expansion)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


class _Decompressed(io.RawIOBase):
    """What is in the frames of zstd or gzip, one after another, known by their first bytes, not by the name; else the bytes as
    they are. An error while reading is kept in `broken`, and ends the file.
    """

    def __init__(self, file: io.BufferedReader):
        self._file, self._begin, self._frame = file, None, None
        self._ready, self._rest = b"", b""
        self._opened, self.broken = False, None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        try:
            while not self._ready:
                if self.broken is not None or not self._read_more():
                    return 0
        except BROKEN as error:
            self.broken = error
            return 0
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def _read_more(self) -> bool:
        """False at the end."""
        if not self._opened:
            self._begin, self._opened = _decompressor(self._file.peek(4)), True
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

    def close(self) -> None:
        self._file.close()
        super().close()


def _decompressor(magic: bytes) -> Callable | None:
    """Neither gzip.GzipFile nor zstandard's own reader will do: an error takes along what they have gathered, and the latter
    does not tell a file that was cut off from one that ended."""
    if magic[:2] == b"\x1f\x8b":
        return lambda: zlib.decompressobj(wbits=31)
    if magic[:4] == b"\x28\xb5\x2f\xfd":
        return lambda: zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
    return None
