"""Shards to batches: windows of T + 1 tokens in the order that (seed, step) decides, a part for each rank."""

from dataclasses import replace

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from cngpt.tokens.order import Batches, divide, window
from cngpt.tokens.shards import Shards
from cngpt.training.module import IGNORE


def pair(rows: np.ndarray) -> tuple[Tensor, Tensor]:
    """(B, T + 1) -> inputs (B, T) and targets (B, T)."""
    rows = torch.from_numpy(rows)
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


class TrainWindows(IterableDataset):
    """Micro-batches of one rank from `first_step` on, without end."""

    def __init__(self, shards: Shards, n_ctx: int, batches: Batches, seed: int, rank: int, first_step: int):
        self.shards, self.n_ctx, self.batches = shards, n_ctx, batches
        self.seed, self.rank, self.first_step = seed, rank, first_step
        self.count = (shards.tokens - 1) // n_ctx

    def __iter__(self):
        worker = get_worker_info()
        n, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        while True:  # the loader takes one batch from each worker in turn, which keeps the order
            step, part = divmod(n, self.batches.accumulate)
            numbers = window(self.batches.numbers(self.first_step + step, part, self.rank), self.seed, self.count)
            yield pair(np.stack([self.shards.read(int(i) * self.n_ctx, self.n_ctx + 1) for i in numbers]))
            n += stride


class ValidWindows(Dataset):
    """Up to `limit` windows (0: all), spread evenly over valid/, the same for every run; each rank has as many batches as
    any other, as sharded models need, so the last ones may be empty (all targets ignored)."""

    def __init__(self, shards: Shards, n_ctx: int, micro: int, rank: int, world: int, limit: int):
        self.shards, self.n_ctx, self.micro = shards, n_ctx, micro
        count = -(-(shards.tokens - 1) // n_ctx)
        chosen = np.arange(count) if not 0 < limit < count else np.linspace(0, count - 1, limit).astype(np.int64)
        self.batches = -(-len(chosen) // (micro * world))
        self.numbers = chosen[rank::world]

    def __len__(self) -> int:
        return self.batches

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        rows = np.zeros((self.micro, self.n_ctx + 1), dtype=np.int64)
        counts = np.zeros((self.micro, self.n_ctx), dtype=bool)
        for row, n in enumerate(self.numbers[i * self.micro : (i + 1) * self.micro]):
            start = int(n) * self.n_ctx
            ids = self.shards.read(start, min(self.n_ctx + 1, self.shards.tokens - start))
            rows[row, : len(ids)] = ids
            counts[row, : len(ids) - 1] = True
        inputs, targets = pair(rows)
        return inputs, targets.masked_fill(~torch.from_numpy(counts), IGNORE)


class ShardsDataModule(pl.LightningDataModule):
    """`train` and `valid` shards as batches for the world at hand; sets the trainer's accumulation to match."""

    def __init__(
        self,
        train: Shards,
        valid: Shards,
        n_ctx: int,
        *,
        seed: int,
        num_workers: int,
        valid_windows: int,
        valid_every: int,
        **batch,
    ):
        """`batch` holds tokens_per_step, micro_batch and micro_batch_tokens, as in `divide`; `valid_every` counts steps."""
        super().__init__()
        self.train, self.valid, self.n_ctx, self.seed, self.batch = train, valid, n_ctx, seed, batch
        self.num_workers, self.valid_windows, self.valid_every = num_workers, valid_windows, valid_every
        self.batches: Batches | None = None

    def setup(self, stage: str) -> None:
        strategy = self.trainer.strategy
        each = strategy.devices_per_process
        batches = divide(n_ctx=self.n_ctx, world=strategy.data_world_size * each, **self.batch)
        self.batches = replace(batches, micro=batches.micro * each, world=batches.world // each)
        self.trainer.accumulate_grad_batches = self.batches.accumulate
        self.trainer.val_check_interval = self.valid_every * self.batches.accumulate

    def train_dataloader(self) -> DataLoader:
        rank, first_step = self.trainer.strategy.data_rank, self.trainer.global_step
        return self._loader(TrainWindows(self.train, self.n_ctx, self.batches, self.seed, rank, first_step))

    def val_dataloader(self) -> DataLoader:
        micro, strategy = self.batches.micro, self.trainer.strategy
        ranks = strategy.data_rank, strategy.data_world_size
        return self._loader(ValidWindows(self.valid, self.n_ctx, micro, *ranks, self.valid_windows))

    def _loader(self, dataset) -> DataLoader:
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        return DataLoader(
            dataset, batch_size=None, num_workers=self.num_workers, pin_memory=on_gpu, persistent_workers=self.num_workers > 0
        )
