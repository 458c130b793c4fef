"""One line that moves: step, loss, tokens a second, time left. Where the output is no terminal, a plain line a log."""

import sys

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from cngpt.training.callbacks.metrics import Metrics


class Progress(pl.callbacks.ProgressBar):
    """Rank 0 alone draws. `console` is for others who want to print above the bar."""

    def __init__(self, metrics: Metrics):
        super().__init__()
        self.metrics = metrics
        self.console = Console(file=sys.stderr, highlight=False)
        self._bar: Bar | None = None
        self._on = True
        self._printed = -1

    def disable(self) -> None:  # Lightning calls it on every rank but 0
        self._on = False

    def enable(self) -> None:
        self._on = True

    def on_train_start(self, trainer, module) -> None:
        if not (self._on and trainer.is_global_zero and self.console.is_terminal):
            return
        self._bar = Bar(
            TextColumn("step"), MofNCompleteColumn(), BarColumn(bar_width=24), TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(), TextColumn("elapsed,"), TimeRemainingColumn(), TextColumn("left"), console=self.console,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=trainer.max_steps, completed=trainer.global_step, numbers="")
        self._bar.start()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        step = trainer.global_step
        if self._bar is not None:
            self._bar.update(self._task, completed=step, numbers=self.numbers())
        elif (
            self._on
            and trainer.is_global_zero
            and step not in (0, self._printed)
            and (step % self.metrics.every == 0 or step == trainer.max_steps or self._printed < 0)
        ):
            speed, left = self.metrics.latest.get("tokens_per_second"), ""
            if speed:
                seconds = int((trainer.max_steps - step) * self.metrics.tokens_per_step / speed)
                left = f"  {seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d} left"
            self._printed = step
            self.console.print(f"step {step}/{trainer.max_steps}  {self.numbers()}{left}", soft_wrap=True)

    def numbers(self) -> str:
        latest, parts = self.metrics.latest, []
        if "loss" in latest:
            parts.append(f"loss {latest['loss']:.3f}")
        if "val_loss" in latest:
            parts.append(f"val {latest['val_loss']:.3f}")
        if "tokens_per_second" in latest:
            parts.append(f"{latest['tokens_per_second']:,.0f} tokens/s")
        if "mfu" in latest:
            parts.append(f"MFU {latest['mfu']:.0%}")
        return "  ".join(parts)

    def on_train_end(self, trainer, module) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(self, trainer, module, exception) -> None:
        self.on_train_end(trainer, module)
