"""A lock file that one process of this machine holds at a time; it ends with the process, however that ends."""

import os
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows: two processes at once are not kept apart there
    fcntl = None


class Lock:
    """`take` at once or not at all; `wait` until it is free. The file holds the number of the process that has it."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._file: IO[str] | None = None

    def take(self, wait: bool = False) -> bool:
        """Whether the lock is ours now. Where there are no locks (Windows, some network file systems) it always is."""
        self._file = self._file or open(self.path, "a+")  # noqa: SIM115 (closed in release)
        try:
            if fcntl:
                fcntl.flock(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError:
            pass
        self._file.seek(0)
        self._file.truncate()
        self._file.write(str(os.getpid()))
        self._file.flush()
        return True

    def wait(self) -> None:
        self.take(wait=True)

    def is_current(self) -> bool:
        """Whether the file that is locked still has its name: the one who had it may have removed it."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.path))
        except OSError:
            return False

    def is_held(self) -> bool:
        """Whether some process has it, as far as this system tells; asking never takes it away from another."""
        try:
            with open(self.path) as file:
                if fcntl:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return not fcntl

    def holder(self) -> str:
        """The number of the process that has it, or had it last."""
        try:
            return self.path.read_text().strip()
        except OSError:
            return ""

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
