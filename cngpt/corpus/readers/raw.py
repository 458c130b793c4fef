"""Bytes on disk -> lines, texts and JSON records: compression, archives, encodings. Streams; never a whole corpus in memory.

Whatever is broken is counted in a Tally with its file and line, and left out.
"""

import codecs
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import IO

from cngpt import files
from cngpt.corpus.document import Progress, Tally
from cngpt.corpus.readers.byte_streams import BROKEN, Decompressed, LinesBetween, Metered, decompressor

PIECE = 4 << 20  # bytes decoded at a time
LIMIT = 64 << 20  # bytes of one line, or characters of one JSON value; what is longer is broken


@dataclass(frozen=True, slots=True)
class Raw:
    """One file, a member of a zip, or some lines of a file: `name` below the root (`a.zip/b.txt`), bytes on disk. Travels between
    processes."""

    name: str
    size: int
    path: str  # of the file, or of the zip
    member: int | None = None  # its number in the zip's directory
    lines: tuple[int, int] | None = None  # those that begin at the first byte or later, and before the second
    expansion: float = 1.0  # bytes that `open` gives for each byte on disk

    def open(self) -> IO[bytes]:
        if self.member is not None:
            archive = _archive(self.path)
            return archive.open(archive.infolist()[self.member])
        file = files.open_read(self.path)
        return file if self.lines is None else LinesBetween(file, *self.lines)

    @property
    def id(self) -> str:
        """How the ids of its documents begin."""
        return self.name if self.lines is None else f"{self.name}@{self.lines[0]}"

    @property
    def content(self) -> float:
        """Bytes in it, about: of a compressed file four times as many as on disk."""
        return self.size * (4.0 if self.name.lower().endswith((".gz", ".zst")) else self.expansion)


def files_below(root: str, tally: Tally) -> Iterator[Raw]:
    """Every file below `root`, zips not yet opened (see `unzip`), in sorted order."""
    base = root.rstrip("/")
    for path, size in files.listing(root):
        name = path[len(base) :].lstrip("/\\").replace("\\", "/") or base.replace("\\", "/").split("/")[-1]
        if size < 0:
            tally.add("unreadable file", name)
        else:
            yield Raw(name, size, path)


def is_zip(name: str) -> bool:
    return name.lower().endswith(".zip")


def unzip(raw: Raw, tally: Tally) -> Iterator[Raw]:
    """The members of a zip in sorted order, or the file itself when it is none."""
    if not is_zip(raw.name):
        yield raw
        return
    try:
        archive = _archive(raw.path)
    except BROKEN as error:
        tally.add("broken archive", f"{raw.name}: {error}")
        return
    members = [(_member_name(info), index, info) for index, info in enumerate(archive.infolist()) if not info.is_dir()]
    for name, index, info in sorted(members, key=lambda member: member[0]):
        if not any(part.startswith((".", "__MACOSX")) for part in name.split("/")):
            expansion = info.file_size / max(1, info.compress_size)
            yield Raw(f"{raw.name}/{name}", info.compress_size, raw.path, member=index, expansion=expansion)


@lru_cache(maxsize=2)  # its directory of 740,000 members is read once, not for each of them
def _archive(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(files.open_read(path))


def close_archives() -> None:
    """Their directories can be hundreds of megabytes; an archive is opened again when it is read."""
    _archive.cache_clear()


def sliced(raw: Raw, size: int) -> Iterator[Raw]:
    """Slices of about `size` bytes at line ends, where each line is a record of its own and nothing is compressed; else `raw`."""
    if raw.size < 2 * size or raw.member is not None or suffix(raw.name) not in (".jsonl", ".json", ""):
        yield raw
        return
    with raw.open() as file:
        compressed = decompressor(file.read(4)) is not None
    if compressed or (suffix(raw.name) != ".jsonl" and not _is_json_lines(raw)):
        yield raw
        return
    for start in range(0, raw.size, size):
        end = min(start + size, raw.size)
        yield Raw(raw.name, end - start, raw.path, lines=(start, end))


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
    return io.BufferedReader(Decompressed(io.BufferedReader(Metered(raw.open(), progress, raw.expansion), 1 << 18)), 1 << 20)


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
        if not piece:
            continue
        piece = piece.removesuffix(b"\n")
        try:
            decoded = piece.decode(encoding or "ascii").split("\n")
        except UnicodeDecodeError:
            decoded = [_decode(line, encoding) for line in piece.split(b"\n")]
        for line in decoded:
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
