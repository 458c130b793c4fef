"""Training checkpoints written whole or not at all, and kept few."""

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.plugins import TorchCheckpointIO

from cngpt import files
from cngpt.checkpoints.training_checkpoint import read
from cngpt.runs import Bucket, checkpoint_name, checkpoints_in, remove_checkpoint


def save(trainer: pl.Trainer, folder: Path | str, keep: int) -> Path | str:
    """`step_<n>.ckpt` (a file, or a folder where the strategy shards), of which the newest `keep` stay (-1: all).

    Every rank must call it. The name appears only when everything is written.
    """
    if files.is_remote(folder):
        return save_to_bucket(trainer, Bucket(str(folder)), keep)
    path = folder / checkpoint_name(trainer.global_step)
    temporary = path.with_suffix(".tmp")
    if trainer.is_global_zero:
        # a folder that a killed run left may hold shards of more processes than there are now
        remove_checkpoint(temporary)
    trainer.strategy.barrier("checkpoint")
    trainer.save_checkpoint(temporary)
    if trainer.is_global_zero:
        remove_checkpoint(path)
        temporary.rename(path)
        for old in checkpoints_in(folder)[:-keep] if keep > 0 else []:
            remove_checkpoint(old)
    trainer.strategy.barrier("checkpoint")
    return path


def save_to_bucket(trainer: pl.Trainer, bucket: Bucket, keep: int) -> str:
    """The same in a bucket, where nothing can be renamed: a folder without its index, which comes last, is none."""
    name = checkpoint_name(trainer.global_step)
    url = files.join(bucket.url, name)
    if trainer.is_global_zero:
        bucket.remove(name)
    trainer.strategy.barrier("checkpoint")
    trainer.save_checkpoint(url)
    if trainer.is_global_zero:
        for old in bucket.names()[:-keep] if keep > 0 else []:
            bucket.remove(old)
    trainer.strategy.barrier("checkpoint")
    return url


class AnyLayout(TorchCheckpointIO):
    """Writes one file, and goes on from whatever a strategy has written: a run may change its trainer between sessions."""

    def load_checkpoint(self, path, map_location=None, weights_only=None) -> dict:
        return read(Path(path))
