"""Training checkpoints, in one file or distributed: read alike, as plain values and tensors; their header makes them a model again."""

from pathlib import Path
from typing import TYPE_CHECKING

from cngpt.checkpoints import distributed, single_file
from cngpt.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

HEADER = "cngpt"  # {"shape", "tokenizer", "generation", "training", "step"}
PREFIX = "gpt."  # of the model's tensors


def read(path: Path) -> dict:
    """A checkpoint of any strategy as one that lies in a single file; tensors are read when they are used."""
    return distributed.read(path) if path.is_dir() else single_file.read(path)


def verify(path: Path) -> None:
    """Raises UserError, naming the checkpoint before it, unless every byte is as it was written."""
    distributed.verify(path) if path.is_dir() else single_file.verify(path)


def read_with_header(path: Path) -> dict:
    """The same; UserError where it is no checkpoint of ours."""
    checkpoint = read(path)
    header = checkpoint.get(HEADER) if isinstance(checkpoint, dict) else None
    if not (isinstance(header, dict) and {"shape", "tokenizer"} <= header.keys()):
        raise UserError(f"{path} was not written by cngpt's training; give a step_*.ckpt of a run, or a model directory")
    return checkpoint


def weights_of(checkpoint: dict) -> "dict[str, Tensor]":
    """The model's tensors, named as in `GPT.state_dict()`."""
    state = checkpoint.get("state_dict", {})
    return {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)}
