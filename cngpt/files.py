"""Files that are whole or absent, local or remote (gs://, s3://, memory://, through fsspec), with checksums."""

import hashlib
import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cngpt.errors import UserError

BLOCK = 1 << 20  # bytes read at a time


def is_remote(path: str | Path) -> bool:
    return "://" in str(path)


def join(folder: str | Path, *names: str) -> str:
    """`folder/name/...`, for local paths and addresses alike."""
    return "/".join([str(folder).rstrip("/") or "/", *names]) if is_remote(folder) else str(Path(folder, *names))


def exists(path: str | Path) -> bool:
    if not is_remote(path):
        return os.path.exists(path)
    fs, inner = _filesystem(path)
    return fs.exists(inner)


def open_read(path: str | Path) -> IO[bytes]:
    """The file's bytes, buffered and seekable."""
    if not is_remote(path):
        return open(path, "rb")
    fs, inner = _filesystem(path)
    return fs.open(inner, "rb")


def listing(root: str | Path) -> Iterator[tuple[str, int]]:
    """(path, bytes) of `root` itself if it is a file, else of every file below it, sorted by name within each folder.

    Names that begin with a dot are left out. A folder that cannot be opened
    and a link that leads nowhere come with size -1, so that the caller can count them.
    """
    if is_remote(root):
        fs, inner = _filesystem(root)
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
        with os.scandir(folder) as found:
            entries = sorted((e for e in found if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError:
        yield folder, -1
        return
    for entry in entries:
        if entry.is_dir():
            yield from _walk(entry.path, (*above, real))
        else:
            yield entry.path, entry.stat().st_size if entry.is_file() else -1


@contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """A file to write into, which appears under `path` only when the block ends without an error, and then whole.

    Text modes are UTF-8 with `\\n`. Missing folders are made. Remote files are written locally first, then sent.
    """
    encoding = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    if is_remote(path):
        with tempfile.TemporaryDirectory() as folder:
            local = os.path.join(folder, "file")
            with open(local, mode, **encoding) as file:
                yield file
            fs, inner = _filesystem(path)
            fs.makedirs(inner.rpartition("/")[0], exist_ok=True)
            fs.put_file(local, inner)
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(path)
    try:
        with open(temporary, mode, **encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class NewFolder:
    """A folder under a temporary name beside `path`: `commit` renames it to `path`, `abort` removes it.

    What a killed process of this machine left behind for the same `path` is removed first. An existing `path` raises
    UserError, unless it is empty or `overwrite`; then it gives way at `commit`, when the new folder is whole.
    """

    def __init__(self, path: str | Path, overwrite: bool = False):
        self.path, self.overwrite = Path(path), overwrite
        self._refuse_existing("exists already")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(self.path)
        self.temporary = _temporary_name(self.path)
        self.temporary.mkdir()

    def commit(self) -> None:
        self._refuse_existing("was made by another process meanwhile")
        if self.path.exists():
            old = _temporary_name(self.path)
            os.replace(self.path, old)
            os.replace(self.temporary, self.path)
            shutil.rmtree(old)
        else:
            os.replace(self.temporary, self.path)
        sync_folder(self.path.parent)

    def abort(self) -> None:
        shutil.rmtree(self.temporary, ignore_errors=True)

    def _refuse_existing(self, what: str) -> None:
        if self.path.exists() and not self.overwrite and not is_empty(self.path):
            raise UserError(f"{self.path} {what}; overwrite=true replaces it")


@contextmanager
def atomic_folder(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A NewFolder to write into, committed when the block ends without an error, else aborted."""
    new = NewFolder(path, overwrite)
    try:
        yield new.temporary
        new.commit()
    except BaseException:
        new.abort()
        raise


def is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def write_text(path: str | Path, text: str) -> None:
    with atomic_write(path, "w") as file:
        file.write(text)


def write_json(path: str | Path, value: Any) -> None:
    """Indented, Chinese as it is, keys in the order given."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def read_json(path: str | Path) -> Any:
    with open_read(path) as file:
        return json.loads(file.read())


def sha256(path: str | Path) -> str:
    digest = hashlib.sha256()
    with open_read(path) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sync_folder(folder: str | Path) -> None:
    """Makes a rename in `folder` survive a power cut, where the system allows it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # Windows cannot open folders
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems cannot either
    finally:
        os.close(handle)


def _filesystem(path: str | Path):
    import fsspec

    return fsspec.core.url_to_fs(str(path))


def _temporary_name(path: Path) -> Path:
    """Beside `path`, hidden, and it says whose it is."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}.tmp")


def _remove_leftovers(path: Path) -> None:
    """Temporary folders for `path` whose process on this machine is no more."""
    start = f".{path.name}.{socket.gethostname()}-"
    for left in path.parent.iterdir():
        if left.name.startswith(start) and left.name.endswith(".tmp"):
            pid = left.name[len(start) :].split("-")[0]
            if pid.isdigit() and not _alive(int(pid)):
                shutil.rmtree(left, ignore_errors=True)


def _alive(pid: int) -> bool:
    if os.name == "nt":
        return True  # os.kill(pid, 0) would end the process there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
