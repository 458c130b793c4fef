"""The LightningModule: batches to loss, gradients clipped, validation summed up."""

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from cngpt.model import GPT
from cngpt.tokens.order import mix
from cngpt.training import optim
from cngpt.training.schedule import SCHEDULES

IGNORE = -100  # a target that does not count


def next_token_loss(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """(B, T, V), (B, T) -> cross entropy in nats over the targets that count; in float32 whatever the logits are."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORE, reduction=reduction)


def place(trainer: pl.Trainer) -> tuple[int, int]:
    """(rank, world) among the processes that read different texts; those that compute parts of one matrix read the same."""
    share = getattr(trainer.strategy, "distributed_sampler_kwargs", None)
    return (share["rank"], share["num_replicas"]) if share else (trainer.global_rank, trainer.world_size)


class GPTModule(pl.LightningModule):
    """`about` is stored in every checkpoint under the key "cngpt": plain values that make it a model again."""

    def __init__(self, gpt: GPT, optimizer: dict, schedule: dict, seed: int, clip_norm: float | None, about: dict):
        super().__init__()
        self.gpt = gpt
        self.optimizer_settings, self.schedule_settings = optimizer, schedule
        self.seed, self.clip_norm, self.about = seed, clip_norm, about
        self.step_loss: Tensor | None = None  # mean over this rank's part of the step in progress, detached
        self.grad_norm: Tensor | None = None  # of the last step, before clipping
        self.val_sums: Tensor | None = None  # nats, targets; on this rank

    def configure_optimizers(self):
        optimizer = optim.build(self.gpt, **self.optimizer_settings)
        settings = dict(self.schedule_settings)
        curve = SCHEDULES[settings.pop("name")]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: curve(step, **settings))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """((B, T), (B, T)) -> (): mean loss of a micro-batch."""
        accumulate = self.trainer.accumulate_grad_batches
        part = batch_idx % accumulate
        if self.gpt.shape.dropout:
            # a function of where we are, not of what ran before: a resumed run drops what the undisturbed one drops
            # (nested: a plain XOR of three mixes would give (step 3, part 5) the seed of (step 5, part 3))
            one_program = self.device.type == "xla"  # of all hosts, who must draw alike
            rank, seed = (0, self.trainer.strategy.seed) if one_program else (place(self.trainer)[0], torch.manual_seed)
            seed(mix(mix(mix(self.seed) ^ self.global_step) ^ ((rank << 20) + part)) >> 1)
        inputs, targets = batch
        loss = next_token_loss(self.gpt(inputs), targets)
        done = loss.detach() / accumulate
        self.step_loss = done if part == 0 else self.step_loss + done
        return loss

    def on_before_optimizer_step(self, optimizer) -> None:
        # Here and not by Lightning's gradient_clip_val, which FSDP2 refuses
        limit = float("inf") if self.clip_norm is None else self.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self.gpt.parameters(), limit)
        self.grad_norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm

    def on_validation_epoch_start(self) -> None:
        self.val_sums = torch.zeros(
            2, dtype=torch.float32 if self.device.type in ("mps", "xla") else torch.float64, device=self.device
        )

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
        optimizer, fresh = self.trainer.optimizers[0], optim.build(self.gpt, **self.optimizer_settings)
        for scheduler in [self.lr_schedulers()]:
            scheduler.base_lrs = [group["lr"] for group in fresh.param_groups]
            factors = [curve(scheduler.last_epoch) for curve in scheduler.lr_lambdas]
        for group, new, factor in zip(optimizer.param_groups, fresh.param_groups, factors, strict=True):
            group |= {k: v for k, v in new.items() if k != "params"}
            group |= {"initial_lr": new["lr"], "lr": new["lr"] * factor}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["cngpt"] = {**self.about, "step": self.global_step}

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        # Lightning counts micro-batches; a checkpoint is at a step's boundary, and accumulation may differ this time
        batches = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for span in ("total", "current"):
            progress[span] |= {"ready": batches, "started": batches, "processed": batches, "completed": batches}
