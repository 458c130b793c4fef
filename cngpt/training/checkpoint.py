"""Training checkpoints: written whole or not at all, found again, and kept few."""

import re
import shutil
from pathlib import Path

import pytorch_lightning as pl

NAME = re.compile(r"step_(\d{8})\.ckpt$")


def listed(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, oldest first."""
    return sorted(p for p in folder.glob("step_*.ckpt") if NAME.search(p.name)) if folder.is_dir() else []


def step_of(path: Path) -> int:
    return int(NAME.search(path.name)[1])


def save(trainer: pl.Trainer, folder: Path, keep: int) -> Path:
    """`step_<n>.ckpt` (a file, or a folder where the strategy shards), of which the newest `keep` stay (-1: all).

    Every rank must call it. The name appears only when everything is written.
    """
    path = folder / f"step_{trainer.global_step:08d}.ckpt"
    temporary = path.with_suffix(".tmp")
    trainer.save_checkpoint(temporary)
    if trainer.is_global_zero:
        remove(path)
        temporary.rename(path)
        for old in listed(folder)[:-keep] if keep > 0 else []:
            remove(old)
    trainer.strategy.barrier("checkpoint")
    return path


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
