"""Files wherever they lie: on a local disk, or behind an address of fsspec (gs://, s3://, memory://)."""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cngpt.errors import UserError, first_line

BLOCK = 1 << 20  # bytes read at a time


def is_remote(path: str | Path) -> bool:
    return "://" in str(path)


def join(folder: str | Path, *names: str) -> str:
    """`folder/name/...`, for local paths and addresses alike."""
    return "/".join([str(folder).rstrip("/") or "/", *names]) if is_remote(folder) else str(Path(folder, *names))


def filesystem(path: str | Path):
    """(fsspec's file system, the path in it) of an address; UserError where what it needs is not installed."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(str(path))
    except (ImportError, ValueError) as error:  # gs:// needs gcsfs, s3:// needs s3fs; what is no scheme at all
        raise UserError(f"{path}: {first_line(error)}") from None


def exists(path: str | Path) -> bool:
    if not is_remote(path):
        return os.path.exists(path)
    with remote_errors(str(path)):
        fs, inner = filesystem(path)
        return fs.exists(inner)


def open_read(path: str | Path) -> IO[bytes]:
    """The file's bytes, buffered and seekable. A remote one that fails while it is read raises UserError: it is not damaged."""
    if not is_remote(path):
        return open(path, "rb")
    fs, inner = filesystem(path)
    return io.BufferedReader(RemoteFile(fs.open(inner, "rb"), str(path)), 1 << 16)


def read_json(path: str | Path) -> Any:
    with open_read(path) as file:
        return json.load(file)


def read_object(path: str | Path, remedy: str = "copy it again") -> dict[str, Any]:
    """The JSON object in a file. What is missing or damaged raises UserError, which says `remedy`."""
    try:
        value = read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {remedy}") from None
    except (ValueError, OSError, RecursionError) as error:  # not JSON, not UTF-8, not readable
        raise UserError(f"{path} is damaged ({first_line(error)}); {remedy}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged (no JSON object); {remedy}")
    return value


def sha256(path: str | Path) -> str:
    with open_read(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listing(root: str | Path) -> Iterator[tuple[str, int]]:
    """(path, bytes) of `root` itself if it is a file, else of every file below it, sorted by name within each folder.

    Names that begin with a dot are left out. A folder that cannot be opened and a link that leads nowhere come with size -1.
    """
    if is_remote(root):
        fs, inner = filesystem(root)
        for path, info in sorted(fs.find(inner, detail=True).items()):
            below = path[len(inner) :].lstrip("/")
            if not any(part.startswith(".") for part in below.split("/")):
                yield join(root, below) if below else str(root), info["size"]
    elif os.path.isfile(root):
        yield str(root), os.path.getsize(root)
    elif os.path.isdir(root):
        yield from _walk(str(root), ())


def _walk(folder: str, above: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    real = os.path.realpath(folder)
    if real in above:  # a link back to a folder above would never end
        return
    try:
        with os.scandir(folder) as scanned:
            entries = sorted((e for e in scanned if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError:
        yield folder, -1
        return
    for entry in entries:
        if entry.is_dir():
            yield from _walk(entry.path, (*above, real))
        else:
            yield entry.path, entry.stat().st_size if entry.is_file() else -1


def below(url: str) -> list[str]:
    """The names of all files below, relative to it; none where there is no such folder."""
    return [name for path, _ in listing(url) if (name := path[len(url.rstrip("/")) :].lstrip("/"))] if exists(url) else []


def unrelated_files(url: str, names: Sequence[str]) -> list[str]:
    """What is below `url` and is not of a kind with any of these names: in the same subfolder, with the same suffix."""
    kinds = {(name.rpartition("/")[0], Path(name).suffix) for name in names if "/" in name}
    return [n for n in below(url) if n not in names and (n.rpartition("/")[0], Path(n).suffix) not in kinds]


def size_of(root: str | Path) -> int:
    """Bytes of all files below."""
    return sum(max(0, size) for _, size in listing(root))


class RemoteFile(io.RawIOBase):
    """A file of fsspec with a position of its own, which those of memory:// share."""

    def __init__(self, file: IO[bytes], path: str):
        self._file, self._path, self._at = file, path, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with remote_errors(self._path):
            if whence != os.SEEK_SET:
                offset += self._at if whence == os.SEEK_CUR else self._file.seek(0, os.SEEK_END)
            self._at = offset
        return self._at

    def readinto(self, buffer) -> int:
        with remote_errors(self._path):
            self._file.seek(self._at)
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


@contextmanager
def remote_errors(url: str) -> Iterator[None]:
    """What a remote file system says, each in its own kind of exception, in one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{url} cannot be reached: {first_line(error)}; the same command tries again") from None
