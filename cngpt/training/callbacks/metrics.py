"""Loss, learning rate, speed and validation, measured and handed to every logger."""

import math
import time

import pytorch_lightning as pl

from cngpt.model.shape import flops_per_token
from cngpt.plan.hardware import peak_flops
from cngpt.training.settings import Training
from cngpt.training.throughput import Stopwatch


class Metrics(pl.Callback):
    """Logs every `every` steps, and after each validation. `latest` holds the newest value of each metric.

    tokens_per_character, of the validation texts, turns nats a token into bits a character:
    loss x tokens / characters / ln 2, comparable between vocabularies.
    """

    def __init__(self, settings: Training, tokens_per_character: float, stopwatch: Stopwatch):
        self.every, self.tokens_per_step = settings.callbacks.log_every, settings.tokens_per_step
        self.flops_per_token = flops_per_token(settings.shape)
        self.schedule, self.peak_rate = settings.schedule, settings.optim.lr
        self.tokens_per_character, self.stopwatch = tokens_per_character, stopwatch
        self.latest: dict[str, float] = {}
        self._peak: float | None = None  # FLOP/s of one device
        self.started = time.time()
        self._lap_step: int | None = None  # the step at which the stopwatch was started

    def on_train_start(self, trainer, module) -> None:
        name = trainer.strategy.device_name()
        self._peak = peak_flops(name) if name else None

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        step = trainer.global_step
        if step == trainer.max_steps:
            # Validation follows the last step wherever that falls. Here and not by Trainer.validate afterwards, for which a
            # strategy sets itself up anew: DeepSpeed cannot, with weights that it has cut already.
            trainer.val_check_batch = 1
        if self._lap_step is None:  # the first step compiles and warms up: the clock starts after it
            self._lap_step = step
            self.stopwatch.lap()
        if step % self.every and step != trainer.max_steps:
            return
        loss = trainer.strategy.reduce(module.step_loss, reduce_op="mean").cpu().item()
        row = {
            "tokens": step * self.tokens_per_step,
            "loss": loss,
            "lr": self.peak_rate * self.schedule.factor(step - 1),  # of the step just done
            "seconds": time.time() - self.started,
        }
        if module.grad_norm is not None:
            row["grad_norm"] = module.grad_norm.cpu().item()
        if step > self._lap_step:
            speed = (step - self._lap_step) * self.tokens_per_step / self.stopwatch.lap()
            row["tokens_per_second"] = speed
            if self._peak:
                devices = trainer.world_size * trainer.strategy.devices_per_process
                row["mfu"] = speed * self.flops_per_token / (self._peak * devices)
            self._lap_step = step
        self._log(trainer, row)

    def on_validation_start(self, trainer, module) -> None:
        self._pause = self.stopwatch.pause()
        self._pause.__enter__()

    def on_validation_end(self, trainer, module) -> None:
        loss = module.validation_loss()
        self._pause.__exit__(None, None, None)
        bits = loss * self.tokens_per_character / math.log(2)
        perplexity = math.exp(min(loss, 700.0))
        self._log(trainer, {"val_loss": loss, "val_perplexity": perplexity, "val_bits_per_character": bits})

    def _log(self, trainer, row: dict[str, float]) -> None:
        self.latest |= row
        for logger in trainer.loggers:
            logger.log_metrics(row, step=trainer.global_step)
