"""Loss, learning rate, speed and validation, measured and handed to every logger."""

import math
import os
import time

import pytorch_lightning as pl
import torch

from cngpt.training.throughput import Stopwatch, peak_flops


class Metrics(pl.Callback):
    """Logs every `every` steps, and after each validation. `latest` holds the newest value of each metric.

    tokens_per_character, of the validation texts, turns nats a token into bits a character:
    loss x tokens / characters / ln 2, comparable between vocabularies.
    """

    def __init__(self, every: int, tokens_per_step: int, flops_per_token: int, tokens_per_character: float, stopwatch: Stopwatch):
        self.every, self.tokens_per_step, self.flops_per_token = every, tokens_per_step, flops_per_token
        self.tokens_per_character, self.stopwatch = tokens_per_character, stopwatch
        self.latest: dict[str, float] = {}
        self.started = time.time()
        self._lap_step: int | None = None  # the step at which the stopwatch was started

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
        found = {
            "tokens": step * self.tokens_per_step,
            "loss": loss,
            "lr": learning_rate(trainer),
            "seconds": time.time() - self.started,
        }
        if module.grad_norm is not None:
            found["grad_norm"] = module.grad_norm.cpu().item()
        if step > self._lap_step:
            speed = (step - self._lap_step) * self.tokens_per_step / self.stopwatch.lap()
            found["tokens_per_second"] = speed
            if peak := peak_flops(device_name(trainer)):
                devices = trainer.world_size * getattr(trainer.strategy, "devices_a_process", 1)
                found["mfu"] = speed * self.flops_per_token / (peak * devices)
            self._lap_step = step
        self._log(trainer, found)

    def on_validation_start(self, trainer, module) -> None:
        self._pause = self.stopwatch.pause()
        self._pause.__enter__()

    def on_validation_end(self, trainer, module) -> None:
        loss = module.validation_loss()
        self._pause.__exit__(None, None, None)
        bits = loss * self.tokens_per_character / math.log(2)
        perplexity = math.exp(min(loss, 700.0))
        self._log(trainer, {"val_loss": loss, "val_perplexity": perplexity, "val_bits_per_character": bits})

    def _log(self, trainer, found: dict[str, float]) -> None:
        self.latest |= found
        for logger in trainer.loggers:
            logger.log_metrics(found, step=trainer.global_step)


def learning_rate(trainer) -> float:
    """The rate of the step just done: the scheduler has already moved on to the next."""
    scheduler = trainer.lr_scheduler_configs[0].scheduler
    return scheduler.base_lrs[0] * scheduler.lr_lambdas[0](trainer.global_step - 1)


def device_name(trainer) -> str:
    device = trainer.strategy.root_device
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "xla":
        return "TPU " + os.environ.get("TPU_ACCELERATOR_TYPE", "")  # v3-256, v5litepod-16, ...
    return ""
