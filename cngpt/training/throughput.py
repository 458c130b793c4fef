"""How fast training goes: a stopwatch that leaves out what is not training."""

import contextlib
import time


class Stopwatch:
    """Seconds of training since `lap` was last called, without what ran inside `pause`."""

    def __init__(self):
        self._start, self._paused = time.perf_counter(), 0.0

    @contextlib.contextmanager
    def pause(self):
        start = time.perf_counter()
        yield
        self._paused += time.perf_counter() - start

    def lap(self) -> float:
        now = time.perf_counter()
        seconds = now - self._start - self._paused
        self._start, self._paused = now, 0.0
        return seconds
