"""A folder in which long work goes on where it was killed: one process at a time, for one purpose, removed when all is done."""

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cngpt import files
from cngpt.errors import UserError
from cngpt.files.lock import Lock

PURPOSE = "purpose.json"


class CannotResume(UserError):
    """Half-done work that no later run can finish; its folder is removed."""


@contextlib.contextmanager
def locked(path: Path, result: Path) -> Iterator[None]:
    """No other process of this machine is in such a block for `path` at the same time; `result` is what they make."""
    lock = Lock(path)
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not lock.take():
            print(f"another process is making {result}; waiting for it", file=sys.stderr, flush=True)
            lock.wait()
        if lock.is_current():
            break
        lock.release()  # the process that had it was done, and removed the file
    try:
        yield
    finally:
        lock.release()


def work_folder(path: Path) -> Path:
    """Where the work on `path` is done: it is there from the first moment until `path` is."""
    return path.with_name(path.name + ".work")


@contextlib.contextmanager
def resumable_folder(path: Path, purpose: dict[str, Any]) -> Iterator[Path]:
    """The work folder of what is to become `path`, in which no other process of this machine works.

    `purpose` says what the work is for; what was left there for another purpose is removed.
    """
    folder = work_folder(path)
    with locked(folder / "lock", path):
        _remove_half_made(folder, json.loads(json.dumps(purpose)))
        try:
            yield folder
        except CannotResume:
            _remove(folder)
            raise
        _remove(folder)


def sweep(path: Path) -> None:
    """Removes what a process left that was killed after its work on `path` was done; not where another one works."""
    folder = work_folder(path)
    if folder.exists():
        lock = Lock(folder / "lock")
        if lock.take():
            _remove(folder)
        lock.release()


def _remove(folder: Path) -> None:
    # first the purpose: without it, the half that is left when this process is killed meanwhile is not resumed
    (folder / PURPOSE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _remove_half_made(folder: Path, purpose: dict[str, Any]) -> None:
    """Half-made results go; all of them, if they were made for another purpose."""
    try:
        same = json.loads((folder / PURPOSE).read_text()) == purpose
    except (OSError, ValueError):
        same = False
    for entry in [entry for entry in folder.iterdir() if entry.is_dir()]:
        for unwanted in [*entry.glob(".*.tmp")] if same else [entry]:
            _remove_at_once(unwanted)
    if not same:
        files.write_json(folder / PURPOSE, purpose)


def _remove_at_once(path: Path) -> None:
    """Renamed first: a worker that outlives its parent by a moment must not give a half-removed folder its final name."""
    away = path.with_name(f".{path.name.lstrip('.')}.{os.getpid()}.gone.tmp")
    with contextlib.suppress(FileNotFoundError):  # that worker was quicker
        os.rename(path, away)
        shutil.rmtree(away) if away.is_dir() else away.unlink()
