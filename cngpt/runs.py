"""The run directory: every name in it, its newest checkpoint, what is set aside, who trains in it; on a disk and in a bucket.

runs/<name>/config.yaml        the resolved configuration
            checkpoints/       step_<n>.ckpt: a file, or a folder where the strategy cuts the weights
            metrics.csv        a row a logged step
            samples.jsonl      texts written during training
            loss.svg           the curve
            wandb/             what Weights & Biases keeps, and wandb_run_id, which a resumed run takes again
            model/             the model directory of a run that has done all its steps
            lock               while a process trains here
"""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cngpt import files
from cngpt.errors import UserError
from cngpt.files.lock import Lock

CHECKPOINTS = "checkpoints"
SUFFIX = ".ckpt"
SET_ASIDE = ".set_aside"  # behind the name of a checkpoint after the one to which a run went back
INDEX = ".metadata"  # of a checkpoint that is a folder: written last, so it tells a whole one
_NAME = re.compile(r"step_(\d{8})\.ckpt")


def checkpoint_name(step: int) -> str:
    """step_00000600.ckpt: the number of digits is fixed, so that names sort as steps do."""
    return f"step_{step:08d}{SUFFIX}"


def step_of(path: str | Path) -> int | None:
    """The step in the name of a checkpoint; None where it is no such name."""
    match = _NAME.fullmatch(Path(path).name)
    return int(match[1]) if match else None


def checkpoints_in(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, oldest first."""
    return sorted(path for path in folder.iterdir() if step_of(path) is not None) if folder.is_dir() else []


def checkpoint_before(path: Path) -> Path | None:
    """The checkpoint before this one in its folder; None where there is none."""
    return max((other for other in checkpoints_in(path.parent) if other.name < path.name), default=None)


def run_of(checkpoint: Path) -> Path:
    """The run directory that a checkpoint belongs to."""
    return checkpoint.resolve().parents[1]


def remove_checkpoint(path: Path) -> None:
    """A file or a folder; nothing where there is none."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class Run:
    """The run directory `folder`, whether it is there or not."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.config = self.folder / "config.yaml"
        self.checkpoints = self.folder / CHECKPOINTS
        self.metrics = self.folder / "metrics.csv"
        self.samples = self.folder / "samples.jsonl"
        self.loss_curve = self.folder / "loss.svg"
        self.wandb = self.folder / "wandb"
        self.wandb_run_id = self.folder / "wandb_run_id"
        self.model = self.folder / "model"
        self.lock = self.folder / "lock"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / checkpoint_name(step)

    def all_checkpoints(self) -> list[Path]:
        """The whole ones, oldest first."""
        return checkpoints_in(self.checkpoints)

    def newest_checkpoint(self) -> Path | None:
        return max(self.all_checkpoints(), default=None)

    def set_aside_after(self, checkpoint: Path) -> None:
        """The run goes back to `checkpoint`: later ones keep their bytes under another name."""
        for path in self.all_checkpoints():
            if path.name > checkpoint.name:
                path.rename(path.with_name(path.name + SET_ASIDE))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """No other process of this machine trains here meanwhile; UserError where one does. The folder is made, and goes again if it
        stays empty."""
        made = [folder for folder in (self.folder, self.folder.parent) if not folder.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(self.lock)
        # the one who had it removes the file, so that what was taken may have no name any more
        while (taken := lock.take()) and not lock.is_current():
            lock.release()
        if not taken:
            raise UserError(f"{self.folder} is being trained by process {lock.holder()}; wait for it, or take another name=...")
        try:
            yield
        finally:
            lock.path.unlink(missing_ok=True)
            lock.release()
            for folder in made:
                with suppress(OSError):  # it is not empty
                    folder.rmdir()


class Bucket:
    """Checkpoints in a bucket, to which every host writes its part. A folder step_<n>.ckpt is whole when its index is there."""

    def __init__(self, url: str):
        self.url = url

    def names(self) -> list[str]:
        """Of the whole checkpoints, oldest first."""
        fs, inside = files.filesystem(self.url)
        fs.invalidate_cache()
        folders = (str(path).split("/")[-2] for path in fs.glob(f"{inside}/step_*{SUFFIX}/{INDEX}"))
        return sorted(name for name in folders if step_of(name) is not None)

    def remove(self, name: str) -> None:
        """The index first: half of a checkpoint is none."""
        fs, inside = files.filesystem(files.join(self.url, name))
        if fs.exists(index := f"{inside}/{INDEX}"):
            fs.rm_file(index)
        if fs.exists(inside):
            fs.rm(inside, recursive=True)

    def remove_after(self, name: str) -> None:
        """Those after a step to which the run goes back: they would be taken for the newest."""
        for other in self.names():
            if other > name:
                self.remove(other)

    def fetch_newest(self, folder: Path, verify: Callable[[Path], None]) -> None:
        """Puts the newest checkpoint into `folder`, unless it is there; `verify` raises where it did not come whole."""
        names = self.names()
        if not names or (folder / names[-1]).exists():
            return
        url = files.join(self.url, names[-1])

        def complete(new: Path) -> None:
            fs, inside = files.filesystem(url)
            fs.get_file(f"{inside}/{INDEX}", str(new / INDEX))  # its name begins with a dot: no file for local_copy
            verify(new)

        folder.mkdir(parents=True, exist_ok=True)
        files.local_copy(url, folder / names[-1], complete)
