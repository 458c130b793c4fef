"""A progress bar for work that is measured in bytes, or counted."""

import time

BAR_AFTER = 3.0  # seconds until a bar is worth its lines


class Bar:
    """Called with bytes done: a progress bar on stderr with speed and ETA, once the work has lasted BAR_AFTER seconds.

    counted: what is counted instead of bytes: "documents".
    """

    def __init__(self, total: int, shown: bool = True, title: str = "preparing", counted: str | None = None):
        self._total, self._shown, self._title, self._counted, self._began = total, shown, title, counted, time.monotonic()
        self._done, self._next, self._bar = 0.0, BAR_AFTER, None

    def __call__(self, more: float) -> None:
        self._done += more
        if self._shown and time.monotonic() - self._began > self._next:
            self._next += 0.2
            self._bar = self._bar or self._start()
            self._bar.update(self._task, completed=min(self._done, self._total))

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *error) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=min(self._done, self._total))
            self._bar.stop()

    def _start(self):
        from rich import progress
        from rich.console import Console

        numbers = [progress.DownloadColumn(), progress.TransferSpeedColumn()]
        if self._counted:
            numbers = [progress.TextColumn("{task.completed:,.0f}/{task.total:,.0f} " + self._counted)]
        columns = [progress.TextColumn(self._title), progress.BarColumn(), *numbers, progress.TimeRemainingColumn()]
        bar = progress.Progress(*columns, console=Console(stderr=True))
        self._task = bar.add_task(self._title, total=self._total)
        bar.start()
        return bar
