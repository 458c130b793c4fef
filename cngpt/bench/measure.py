"""What every benchmark needs: interleaved repeats, median and spread, the conditions, the memory of processes."""

import datetime
import importlib.metadata
import os
import platform
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def interleaved(works: Mapping[Any, Callable[[], Any]], repeats: int) -> dict[Any, list]:
    """What each work measured, `repeats` times. All take turns, so that what else the machine does falls on all alike; the first
    turn of each warms up and is left out."""
    turns = [{name: work() for name, work in works.items()} for _ in range(repeats + 1)]
    return {name: [turn[name] for turn in turns[1:]] for name in works}


def spread(values: Iterable[float]) -> dict[str, float]:
    """{"median", "low", "high", "repeats"}"""
    values = list(values)
    numbers = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: round(number, 4) for name, number in numbers.items()} | {"repeats": len(values)}


def shown(of: Mapping[str, float]) -> str:
    """A spread as `38.2  (35.1 … 39.0)`."""
    digits = max(0, 3 - len(str(int(of["median"]))))
    return f"{of['median']:.{digits}f}  ({of['low']:.{digits}f} … {of['high']:.{digits}f})"


def conditions(libraries: Sequence[str]) -> dict[str, object]:
    """What the numbers hold for: processor, cores, load, versions, date, commit (null where there is no repository)."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,  # before it began; 0: nothing else runs
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in libraries},
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": _commit(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Of the code that runs, with + where files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


class MemoryOf:
    """The highest resident memory of a process and of each below it, in bytes, while the block runs. `highest` stays empty where
    the system does not tell (only Linux does)."""

    def __init__(self, pid: int, every: float = 0.05):
        self.highest: dict[int, int] = {}  # by process
        self._pid, self._every, self._end = pid, every, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "MemoryOf":
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(self._every):
            self.look()

    def look(self) -> dict[int, int]:
        """Resident bytes of each process at this moment."""
        now, waiting = {}, [self._pid]
        while waiting:
            pid = waiting.pop()
            try:
                lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
                now[pid] = int(lines["VmRSS"].split()[0]) * 1024
                most = int(lines["VmHWM"].split()[0]) * 1024  # the system's own record: nothing between two looks is missed
                self.highest[pid] = max(most, self.highest.get(pid, 0))
                for task in Path(f"/proc/{pid}/task").iterdir():
                    waiting += map(int, (task / "children").read_text().split())
            except (OSError, KeyError, ValueError):  # ended meanwhile, or not Linux
                continue
        return now


class Clock:
    """Adds up the seconds of blocks: `with clock("read"): ...`"""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
