"""A folder in which long work goes on where it was killed: one process at a time, for one purpose, thrown away when all is done."""

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from cngpt import files
from cngpt.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: two processes at once are not kept apart there
    fcntl = None

PURPOSE = "purpose.json"


class Pointless(UserError):
    """What was begun cannot be gone on with; it is thrown away."""


class Workplace:
    """`<path>.work` beside what is to become `path`. In `with`, no other process of this machine works there.

    `purpose` tells what is done; what was left there for another purpose goes.
    """

    def __init__(self, path: Path, purpose: dict[str, Any]):
        self.path = path
        self.folder = self.of(path)
        self._purpose = json.loads(json.dumps(purpose))

    @staticmethod
    def of(path: Path) -> Path:
        """Where the work on `path` is done: it is there from the first moment until `path` is."""
        return path.with_name(path.name + ".work")

    def __enter__(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.folder / "lock", "w")
        if not self._take():
            print(f"another process is making {self.path}; waiting for it", file=sys.stderr, flush=True)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        if not os.path.samestat(os.fstat(self._lock.fileno()), _stat(self.folder / "lock")):  # it was done, and thrown away
            self._lock.close()
            return self.__enter__()
        self._tidy()
        return self.folder

    def __exit__(self, kind, *_) -> None:
        if kind is None or issubclass(kind, Pointless):
            self._throw_away()
        self._lock.close()

    def sweep(self) -> None:
        """Throws away what a process left that was killed after its work was done; not where another one works."""
        if self.folder.exists():
            with open(self.folder / "lock", "a") as self._lock:
                if self._take():
                    self._throw_away()

    def _throw_away(self) -> None:
        (self.folder / PURPOSE).unlink(missing_ok=True)  # first: half of it, if we are killed meanwhile, is good for nothing
        shutil.rmtree(self.folder, ignore_errors=True)

    def _take(self) -> bool:
        """Whether the lock is ours, or there are no locks here."""
        try:
            if fcntl:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # some network file systems have none
        return True

    def _tidy(self) -> None:
        """Half-made results go; all of them, if they were made for another purpose."""
        place = self.folder / PURPOSE
        try:
            same = json.loads(place.read_text()) == self._purpose
        except (OSError, ValueError):
            same = False
        for entry in list(self.folder.iterdir()):
            if entry.is_dir() and not same:
                _remove(entry)
            elif entry.is_dir():
                for half in entry.glob(".*.tmp"):
                    _remove(half)
        if not same:
            files.write_json(place, self._purpose)


def _remove(path: Path) -> None:
    """Gone from its place in one move: a worker that outlives its parent by a moment must not give a half-removed folder its name."""
    away = path.with_name(f".{path.name.lstrip('.')}.{os.getpid()}.gone.tmp")
    with contextlib.suppress(FileNotFoundError):  # that worker was quicker
        os.rename(path, away)
        shutil.rmtree(away) if away.is_dir() else away.unlink()


def _stat(path: Path) -> os.stat_result | Any:
    try:
        return os.stat(path)
    except OSError:
        return os.stat_result([0] * 10)
