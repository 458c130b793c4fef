"""Training checkpoints: written whole or not at all, found again, and kept few."""

import re
import shutil
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.plugins import TorchCheckpointIO

from cngpt import files, pieces
from cngpt.training import remote

NAME = re.compile(r"step_(\d{8})\.ckpt$")


def listed(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, oldest first."""
    return sorted(p for p in folder.glob("step_*.ckpt") if NAME.search(p.name)) if folder.is_dir() else []


def step_of(path: Path) -> int:
    return int(NAME.search(path.name)[1])


def save(trainer: pl.Trainer, folder: Path | str, keep: int) -> Path | str:
    """`step_<n>.ckpt` (a file, or a folder where the strategy shards), of which the newest `keep` stay (-1: all).

    Every rank must call it. The name appears only when everything is written.
    """
    if files.is_remote(folder):
        return save_remotely(trainer, str(folder), keep)
    path = folder / f"step_{trainer.global_step:08d}.ckpt"
    temporary = path.with_suffix(".tmp")
    if trainer.is_global_zero:
        remove(temporary)  # a folder that a killed run left may hold pieces of more processes than there are now
    trainer.strategy.barrier("checkpoint")
    trainer.save_checkpoint(temporary)
    if trainer.is_global_zero:
        remove(path)
        temporary.rename(path)
        for old in listed(folder)[:-keep] if keep > 0 else []:
            remove(old)
    trainer.strategy.barrier("checkpoint")
    return path


def save_remotely(trainer: pl.Trainer, url: str, keep: int) -> str:
    """The same in a bucket, where nothing can be renamed: a folder without its index, which comes last, is none."""
    name = f"step_{trainer.global_step:08d}.ckpt"
    if trainer.is_global_zero:
        remote.remove(url, name)
    trainer.strategy.barrier("checkpoint")
    trainer.save_checkpoint(files.join(url, name))
    if trainer.is_global_zero:
        for old in remote.listed(url)[:-keep] if keep > 0 else []:
            remote.remove(url, old)
    trainer.strategy.barrier("checkpoint")
    return files.join(url, name)


def read(path: Path) -> dict:
    """A checkpoint of any strategy as one that lies in a single file; tensors are read when they are used."""
    return pieces.read(path) if path.is_dir() else pieces.read_file(path)


class AnyLayout(TorchCheckpointIO):
    """Writes one file, and goes on from whatever a strategy has written: a run may change its trainer between sessions."""

    def load_checkpoint(self, path, map_location=None, weights_only=None) -> dict:
        return read(Path(path))


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
