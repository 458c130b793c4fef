"""The LightningModule: batches to loss, gradients clipped, validation summed up."""

from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from cngpt.checkpoints.training_checkpoint import HEADER
from cngpt.model.gpt import GPT
from cngpt.tokens.order import mix
from cngpt.training.schedule import Schedule
from cngpt.training.settings import Optimizer as OptimizerSettings

IGNORE = -100  # a target that does not count


def next_token_loss(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """(B, T, V), (B, T) -> cross entropy in nats over the targets that count; in float32 whatever the logits are."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction=reduction)


def with_schedule(optimizer: Optimizer, schedule: Schedule) -> dict[str, Any]:
    """What `configure_optimizers` returns."""
    # a function and not the bound method: torch would store the attributes of anything else in the checkpoint
    scheduler = LambdaLR(optimizer, lambda step: schedule.factor(step))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class GPTModule(pl.LightningModule):
    """`metadata` is stored in every checkpoint under HEADER: plain values that make it a model again."""

    def __init__(
        self,
        gpt: GPT,
        optim: OptimizerSettings,
        schedule: Schedule,
        seed: int,
        clip_norm: float | None,
        metadata: dict,
        compile: bool = False,
    ):
        super().__init__()
        self.gpt, self.optim_settings, self.schedule_settings = gpt, optim, schedule
        self.seed, self.clip_norm, self.metadata, self.compile_gpt = seed, clip_norm, metadata, compile
        self.step_loss: Tensor | None = None  # mean over this rank's part of the step in progress, detached
        self.grad_norm: Tensor | None = None  # of the last step, before clipping
        self.val_sums: Tensor | None = None  # nats, targets; on this rank
        self._is_sharded = False

    def configure_model(self) -> None:
        """Lightning calls it before each fit and validation."""
        if not self._is_sharded:
            self.trainer.strategy.shard(self)
            self._is_sharded = True
        if self.compile_gpt and self.gpt._compiled_call_impl is None:
            self.gpt.compile()  # in place: wrapping would rename every key to _orig_mod.*

    def configure_optimizers(self):
        return with_schedule(self.trainer.strategy.build_optimizer(self.gpt, self.optim_settings), self.schedule_settings)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """((B, T), (B, T)) -> (): mean loss of a micro-batch."""
        accumulate, strategy = self.trainer.accumulate_grad_batches, self.trainer.strategy
        part = batch_idx % accumulate
        if self.gpt.shape.dropout:
            # a function of step, part and rank, not of what ran before: a resumed run drops what the undisturbed one drops
            # (nested: a plain XOR of three mixes would give (step 3, part 5) the seed of (step 5, part 3))
            strategy.seed(mix(mix(mix(self.seed) ^ self.global_step) ^ ((strategy.dropout_rank << 20) + part)) >> 1)
        inputs, targets = batch
        loss = next_token_loss(self.gpt(inputs), targets)
        done = loss.detach() / accumulate
        self.step_loss = done if part == 0 else self.step_loss + done
        return loss

    def on_before_optimizer_step(self, optimizer) -> None:
        norm = self.trainer.strategy.clip_gradients(self, self.clip_norm)
        if norm is not None:
            self.grad_norm = norm

    def on_validation_epoch_start(self) -> None:
        self.val_sums = torch.zeros(2, dtype=self.trainer.strategy.sum_dtype, device=self.device)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        inputs, targets = batch
        nats = next_token_loss(self.gpt(inputs), targets, reduction="sum")
        self.val_sums += torch.stack([nats, (targets != IGNORE).sum()]).to(self.val_sums.dtype)

    def validation_loss(self) -> float:
        """Nats a target over all ranks; every rank must call it."""
        sums = self.trainer.strategy.reduce(self.val_sums, reduce_op="sum")
        return (sums[0] / sums[1]).cpu().item()

    def on_train_start(self) -> None:
        # A resumed run takes rate and decay as they are set now, not as the optimizer remembers them
        optimizer, fresh = self.trainer.optimizers[0], self.trainer.strategy.build_optimizer(self.gpt, self.optim_settings)
        scheduler = self.lr_schedulers()
        scheduler.base_lrs = [group["lr"] for group in fresh.param_groups]
        factor = self.schedule_settings.factor(scheduler.last_epoch)
        for group, new in zip(optimizer.param_groups, fresh.param_groups, strict=True):
            group |= {k: v for k, v in new.items() if k != "params"}
            group |= {"initial_lr": new["lr"], "lr": new["lr"] * factor}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint[HEADER] = {**self.metadata, "step": self.global_step}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        # Lightning counts micro-batches; a checkpoint is at a step's boundary, and accumulation may differ this time
        batches = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for span in ("total", "current"):
            progress[span] |= {"ready": batches, "started": batches, "processed": batches, "completed": batches}
