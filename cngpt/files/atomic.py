"""Local files and folders that are whole or absent, with checksums; a remote file is written locally first, then sent."""

import errno
import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from cngpt.errors import UserError, first_line
from cngpt.files.remote import filesystem, is_remote

# endings: of what is being written, and of what is replaced by it
TEMPORARY, OUTGOING = ".tmp", ".old"
FULL = (errno.ENOSPC, errno.EDQUOT)
# what the system reports of a write, without the name of a file
WRITING = (*FULL, errno.EFBIG, errno.EROFS, errno.EIO)


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
            fs, inner = filesystem(path)
            fs.makedirs(inner.rpartition("/")[0], exist_ok=True)
            fs.put_file(local, inner)
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(path)
    try:
        with open(temporary, mode, **encoding) as file:
            yield file
            close_on_disk(file)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_out(
    out: str | Path,
    overwrite: bool,
    is_ours: Callable[[Path], bool],
    what: str,
    sources: Iterable[str | Path] = (),
    size: int = 0,
) -> None:
    """Raises UserError where the folder `out` cannot be written, or where writing it would destroy something.

    `is_ours`: whether a folder is what `overwrite` means, and `what` that is called: "model directory". `sources`: files and folders
    that are read. `size`: bytes that will be written, as far as they are known. To be called before anything slow.
    """
    out = Path(out)
    with writing(out):  # a name may be too long for the system
        here = out.resolve()
        _clear_leftovers(here)
        taken = here.exists() and not is_empty(here)
    for source in map(Path, sources):
        if {here} & {source.resolve(), *source.resolve().parents, *source.parent.resolve().parents, source.parent.resolve()}:
            raise UserError(f"{out} is or holds what is read, {source}; give another folder")
    if taken:
        if not (here.is_dir() and is_ours(here)):
            raise UserError(f"{out} is no {what}, and overwrite=true replaces nothing else; give another name")
        if not overwrite:
            raise UserError(f"{out} exists already; overwrite=true replaces it")
    above = next(folder for folder in here.parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise UserError(f"{out} cannot be written: {above} is no folder that this user may write into; choose another folder")
    check_space(out, size)


def check_space(out: str | Path, size: int) -> None:
    """Raises UserError where the disk of `out` has less than `size` bytes free."""
    above = next(folder for folder in Path(out).resolve().parents if folder.exists())
    if (free := shutil.disk_usage(above).free) < size:
        need, has = f"{-(-size // 10**6):,} MB", f"{free // 10**6:,} MB"
        raise UserError(f"no space left on the disk of {out}: {need} are needed, {has} are free; choose another folder")


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turns what the system says when `path`, or what will be renamed to it, cannot be written into UserError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch.save says RuntimeError, because of it
        if not isinstance(cause, OSError):
            raise
        path = Path(path)
        if cause.filename is not None:
            named = Path(os.fsdecode(cause.filename))
            beside = named.is_relative_to(path.parent) and named.relative_to(path.parent).parts[:1]
            if named not in (path, *path.parents) and not (beside and beside[0].startswith(f".{path.name}.")):
                raise  # of another file, which may be one that was read
        elif cause.errno not in WRITING:
            raise
        if cause.errno in FULL:
            raise UserError(f"no space left on the disk of {path}; make some, or choose another folder") from None
        raise UserError(f"{path} cannot be written: {cause.strerror or first_line(cause)}; choose another folder") from None


class NewFolder:
    """A folder under a temporary name beside `path`: `commit` renames it to `path`, `abort` removes it.

    What a killed process of this machine left behind for the same `path` is removed first, or put back where it was killed between
    the two renames of `commit`. An existing `path` raises UserError, unless it is empty or `overwrite`; then it gives way at
    `commit`, when the new folder is whole. Where `path` is a link, the folder that it leads to is meant.
    """

    def __init__(self, path: str | Path, overwrite: bool = False):
        self.path, self.overwrite = Path(path).resolve(), overwrite
        with writing(self.path):
            _clear_leftovers(self.path)
            self._refuse_existing("exists already")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.temporary = _temporary_name(self.path)
            self.temporary.mkdir()

    def commit(self) -> None:
        self._refuse_existing("was made by another process meanwhile")
        replace_folder(self.temporary, self.path)

    def abort(self) -> None:
        shutil.rmtree(self.temporary, ignore_errors=True)

    def _refuse_existing(self, what: str) -> None:
        if self.path.exists() and not self.overwrite and not is_empty(self.path):
            raise UserError(f"{self.path} {what}; overwrite=true replaces it")


def replace_folder(new: Path, path: Path) -> None:
    """`new` becomes `path`; what is there gives way whole, and is removed only when the new one has its name."""
    _clear_leftovers(path)
    old = _temporary_name(path, OUTGOING)
    with suppress(FileNotFoundError):
        os.replace(path, old)
    try:
        os.replace(new, path)
    except BaseException:
        if old.exists():
            os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)  # what stays is removed the next time
    sync_folder(path.parent)


@contextmanager
def atomic_folder(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A NewFolder to write into, committed when the block ends without an error, else aborted."""
    new = NewFolder(path, overwrite)
    try:
        with writing(new.path):
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


def close_on_disk(file: IO[Any]) -> None:
    """Closes a file whose bytes are on the disk then, not only in the system's cache."""
    file.flush()
    os.fsync(file.fileno())
    file.close()


def sync_folder(folder: str | Path) -> None:
    """Makes a rename in `folder` survive a power cut, where the system allows it."""
    with suppress(OSError):  # Windows cannot open folders, some network file systems cannot sync them
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _temporary_name(path: Path, ending: str = TEMPORARY) -> Path:
    """Beside `path`, hidden, and it says whose it is."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}{ending}")


def _clear_leftovers(path: Path) -> None:
    """Temporary folders for `path` whose process on this machine is no more go; what gave way to `path` comes back if that is absent."""
    if not path.parent.is_dir():
        return
    start = f".{path.name}.{socket.gethostname()}-"
    for left in sorted(path.parent.iterdir()):
        pid = left.name[len(start) :].split("-")[0]
        if left.name.startswith(start) and left.suffix in (TEMPORARY, OUTGOING) and pid.isdigit() and not _alive(int(pid)):
            if left.suffix == OUTGOING and not path.exists():
                with suppress(OSError):  # another process was faster
                    os.replace(left, path)
            else:
                shutil.rmtree(left, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        if os.name != "nt":  # there os.kill(pid, 0) would end the process
            os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True
