"""A training checkpoint in one file, as torch.save writes it: plain values and tensors alone, nothing that runs code."""

import zipfile
import zlib
from pathlib import Path

from cngpt import runs
from cngpt.errors import UserError, first_line


def damaged(path: Path, what: str) -> UserError:
    """The error of a checkpoint, a file or a folder, that names the one before it."""
    checkpoint = path if path.suffix == runs.SUFFIX else path.parent  # a file inside the folder
    before = runs.checkpoint_before(checkpoint)
    remedy = f"the one before it is {before}" if before else "there is none before it in its folder"
    return UserError(f"{path} is damaged or no checkpoint ({what}); {remedy}")


def read(path: Path) -> dict:
    """What torch.save wrote, plain values and tensors alone; tensors stay on disk until they are used."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # RuntimeError, UnpicklingError, EOFError, ValueError ... by the kind of damage
        raise damaged(path, f"{type(error).__name__}: {first_line(error)}") from None


def verify(path: Path) -> None:
    """Raises UserError unless every byte is as it was written: torch.load does not compare the checksums that torch.save writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            if broken := archive.testzip():
                raise damaged(path, f"{broken} is not what was written")
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise damaged(path, first_line(error)) from None
