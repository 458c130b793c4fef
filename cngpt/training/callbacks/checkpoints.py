"""Checkpoints every N steps, and a clean way out on ctrl-C or a pre-empted machine's SIGTERM."""

import signal
import sys
from pathlib import Path

import pytorch_lightning as pl

from cngpt.training import checkpoint
from cngpt.training.throughput import Stopwatch


class Checkpoints(pl.Callback):
    """Saves every `every` steps and at the end. The first signal saves the last whole step and stops; a second one is
    the system's own. A half-accumulated step is dropped: its gradients are not part of the state."""

    def __init__(self, folder: Path | str, every: int, keep: int, stopwatch: Stopwatch):
        self.folder, self.every, self.keep, self.stopwatch = folder, every, keep, stopwatch
        self.signalled: int | None = None
        self.stopped_by: int | None = None  # the signal that did end the run before its last step
        self._saved_step: int | None = None
        self._previous: dict[int, object] = {}

    def on_train_start(self, trainer, module) -> None:
        self._saved_step = trainer.global_step
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)

    def _note(self, number, frame) -> None:
        self.signalled = number
        signal.signal(number, self._previous[number])
        print("\nsaving; once more to stop at once", file=sys.stderr)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        boundary = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        stop = self.signalled is not None
        if trainer.world_size > 1:
            # ranks may hear the signal at different batches: they agree at a step's boundary
            stop = boundary and trainer.strategy.reduce_boolean_decision(stop, all=False)
        if stop and trainer.global_step < trainer.max_steps:  # after the last step there is nothing left to stop
            self.stopped_by = self.signalled or signal.SIGTERM
            self._save(trainer)
            trainer.limit_val_batches = 0  # Lightning would validate before it stops
            trainer.should_stop = True
        elif boundary and (trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps):
            self._save(trainer)

    def _save(self, trainer) -> None:
        if trainer.global_step != self._saved_step:
            with self.stopwatch.pause():
                checkpoint.save(trainer, self.folder, self.keep)
            self._saved_step = trainer.global_step

    def teardown(self, trainer, module, stage) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
