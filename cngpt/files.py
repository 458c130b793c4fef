"""Files that are whole or absent, local or remote (gs://, s3://, memory://, through fsspec), with checksums."""

import errno
import hashlib
import io
import json
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from cngpt.errors import UserError

BLOCK = 1 << 20  # bytes read at a time
TEMPORARY, OUTGOING = ".tmp", ".old"  # endings: of what is being written, and of what gives way to it
FULL = (errno.ENOSPC, errno.EDQUOT)
WRITING = (*FULL, errno.EFBIG, errno.EROFS, errno.EIO)  # what the system says of a write, which names no file


def is_remote(path: str | Path) -> bool:
    return "://" in str(path)


def join(folder: str | Path, *names: str) -> str:
    """`folder/name/...`, for local paths and addresses alike."""
    return "/".join([str(folder).rstrip("/") or "/", *names]) if is_remote(folder) else str(Path(folder, *names))


def exists(path: str | Path) -> bool:
    if not is_remote(path):
        return os.path.exists(path)
    with _remote(str(path)):
        fs, inner = filesystem(path)
        return fs.exists(inner)


def open_read(path: str | Path) -> IO[bytes]:
    """The file's bytes, buffered and seekable. A remote one that fails while it is read raises UserError: it is not damaged."""
    if not is_remote(path):
        return open(path, "rb")
    fs, inner = filesystem(path)
    return io.BufferedReader(_RemoteFile(fs.open(inner, "rb"), str(path)), 1 << 16)


def listing(root: str | Path) -> Iterator[tuple[str, int]]:
    """(path, bytes) of `root` itself if it is a file, else of every file below it, sorted by name within each folder.

    Names that begin with a dot are left out. A folder that cannot be opened
    and a link that leads nowhere come with size -1, so that the caller can count them.
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
            file.flush()
            os.fsync(file.fileno())
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
    if path.exists():
        old = _temporary_name(path, OUTGOING)
        os.replace(path, old)
        try:
            os.replace(new, path)
        except BaseException:
            os.replace(old, path)
            raise
        shutil.rmtree(old, ignore_errors=True)  # what stays is removed the next time
    else:
        os.replace(new, path)
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


def local_copy(url: str, folder: Path, check: Callable[[Path], None], progress: Callable[[float], None] = lambda _: None) -> None:
    """The remote folder `url` as `folder`, which appears, or gives way to the new one, when every file has come in its full size and
    `check` raised nothing. progress: told the bytes that came.
    """
    with atomic_folder(folder, overwrite=True) as new:
        for path, size in listing(url):
            below = path[len(url.rstrip("/")) :].lstrip("/")
            if ".." in below.split("/"):
                raise UserError(f"{path}: such a name leads out of the folder")
            (new / below).parent.mkdir(parents=True, exist_ok=True)
            with open(new / below, "wb") as out:
                for block in _blocks(path):
                    out.write(block)
                    progress(len(block))
                came = out.tell()
                close_on_disk(out)
            if came != size:
                raise UserError(f"{path}: {came:,} of {size:,} bytes came; run the same command again")
        check(new)


def send_folder(folder: Path, url: str, last: str, progress: Callable[[float], None] = lambda _: None) -> None:
    """All files below `folder` to `url`. Those named `last` go first from there and come last, so that they are there only while all
    the others are. What is there of the same kind (subfolder and suffix) goes, for it is an older one of these; UserError, before
    anything is touched, where other files are there.
    """
    names = sorted(
        (os.path.relpath(path, folder).replace(os.sep, "/") for path, _ in listing(folder)), key=lambda n: (_named(n, last), n)
    )
    with _remote(url):
        fs, inner = filesystem(url)
        old = below(url)
        if others := strangers(url, names):
            raise UserError(f"{url} holds other files, {others[0]} for one, and is not replaced; give a folder of its own")
        for name in sorted(old, key=lambda n: not _named(n, last)):
            if _named(name, last) or name not in names:
                fs.rm_file(f"{inner.rstrip('/')}/{name}")
        for name in names:
            target = f"{inner.rstrip('/')}/{name}"
            fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            fs.put_file(str(folder / name), target)
            progress((folder / name).stat().st_size)


def below(url: str) -> list[str]:
    """The names of all files below, relative to it; none where there is no such folder."""
    return [name for path, _ in listing(url) if (name := path[len(url.rstrip("/")) :].lstrip("/"))] if exists(url) else []


def strangers(url: str, names: Sequence[str]) -> list[str]:
    """What is below `url` and is not of a kind with any of these names: in the same subfolder, with the same suffix."""
    kinds = {(name.rpartition("/")[0], Path(name).suffix) for name in names if "/" in name}
    return [n for n in below(url) if n not in names and (n.rpartition("/")[0], Path(n).suffix) not in kinds]


def size_of(root: str | Path) -> int:
    """Bytes of all files below."""
    return sum(max(0, size) for _, size in listing(root))


def _named(path: str, name: str) -> bool:
    return path.rpartition("/")[2] == name


def _blocks(path: str) -> Iterator[bytes]:
    with _remote(path), open_read(path) as file:
        while block := file.read(BLOCK):
            yield block


class _RemoteFile(io.RawIOBase):
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
        with _remote(self._path):
            if whence != os.SEEK_SET:
                offset += self._at if whence == os.SEEK_CUR else self._file.seek(0, os.SEEK_END)
            self._at = offset
        return self._at

    def readinto(self, buffer) -> int:
        with _remote(self._path):
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
def _remote(url: str) -> Iterator[None]:
    """What a remote file system says, each in its own kind of exception, in one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{url} cannot be reached: {first_line(error)}; the same command tries again") from None


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


def first_line(error: BaseException) -> str:
    """What an error says, fit for one line."""
    said = str(error).strip().split("\n")[0][:200] or type(error).__name__
    return json.dumps(said, ensure_ascii=False)[1:-1]


def sha256(path: str | Path) -> str:
    digest = hashlib.sha256()
    with open_read(path) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def close_on_disk(file: IO[Any]) -> None:
    """Closes a file whose bytes are on the disk then, not only in the system's cache."""
    file.flush()
    os.fsync(file.fileno())
    file.close()


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


def filesystem(path: str | Path):
    """(fsspec's file system, the path in it) of an address; UserError where what it needs is not installed."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(str(path))
    except (ImportError, ValueError) as error:  # gs:// needs gcsfs, s3:// needs s3fs; what is no scheme at all
        raise UserError(f"{path}: {first_line(error)}") from None


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
    if os.name == "nt":
        return True  # os.kill(pid, 0) would end the process there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
