"""Whole folders between the local disk and a remote address."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from cngpt.errors import UserError
from cngpt.files.atomic import atomic_folder, close_on_disk
from cngpt.files.remote import BLOCK, below, filesystem, listing, open_read, remote_errors, unrelated_files


def local_copy(url: str, folder: Path, check: Callable[[Path], None], progress: Callable[[float], None] = lambda _: None) -> None:
    """The remote folder `url` as `folder`, which appears, or gives way to the new one, when every file has come in its full size and
    `check` raised nothing. progress: told the bytes that came."""
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
    anything is touched, where other files are there."""
    names = (os.path.relpath(path, folder).replace(os.sep, "/") for path, _ in listing(folder))
    names = sorted(names, key=lambda name: (_named(name, last), name))
    with remote_errors(url):
        fs, inner = filesystem(url)
        old = below(url)
        if others := unrelated_files(url, names):
            raise UserError(f"{url} holds other files, {others[0]} for one, and is not replaced; give a folder of its own")
        for name in sorted(old, key=lambda n: not _named(n, last)):
            if _named(name, last) or name not in names:
                fs.rm_file(f"{inner.rstrip('/')}/{name}")
        for name in names:
            target = f"{inner.rstrip('/')}/{name}"
            fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            fs.put_file(str(folder / name), target)
            progress((folder / name).stat().st_size)


def _named(path: str, name: str) -> bool:
    return path.rpartition("/")[2] == name


def _blocks(path: str) -> Iterator[bytes]:
    with remote_errors(path), open_read(path) as file:
        yield from iter(lambda: file.read(BLOCK), b"")
