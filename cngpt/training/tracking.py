"""Where metrics go: metrics.csv always, Weights & Biases when asked; both go on where a resumed run goes on."""

import csv
import netrc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from cngpt.runs import Run

if TYPE_CHECKING:
    from cngpt.training.settings import Wandb

COLUMNS = (
    "step", "tokens", "loss", "lr", "grad_norm", "tokens_per_second", "mfu",
    "val_loss", "val_perplexity", "val_bits_per_character", "seconds",
)  # fmt: skip


class MetricsCSV(Logger):
    """`metrics.csv`, one row a logged step; rows beyond the step from which a run resumes are dropped, as they come again."""

    def __init__(self, path: Path, first_step: int):
        super().__init__()
        self.path, self.first_step = path, first_step
        self._started = False

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args, **kwargs) -> None:
        """Settings are in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict, step: int | None = None) -> None:
        if not self._started:
            self._start()
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow({"step": step, **metrics})

    def _start(self) -> None:
        kept = []
        if self.path.exists():
            with self.path.open(newline="") as file:
                kept = [
                    row for row in csv.DictReader(file) if (row["step"] or "").isdigit() and int(row["step"]) <= self.first_step
                ]
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)
        temporary.replace(self.path)
        self._started = True


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv, numbers as numbers and empty cells left out; none where nothing was logged yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def has_key() -> bool:
    """Whether W&B could log in by itself: a key in the environment or in ~/.netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def wandb_logger(run: Run, name: str, settings: "Wandb", config: dict) -> WandbLogger:
    """A W&B run whose id is kept in `wandb_run_id`, so the same name goes on in the same run; says how to sync when offline."""
    run_id = run.wandb_run_id.read_text().strip() if run.wandb_run_id.exists() else None
    mode = settings.mode
    if mode == "auto":
        mode = os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline")
    if run_id is None:
        import secrets

        run_id = secrets.token_hex(4)
        if rank_zero_only.rank == 0:
            run.wandb_run_id.write_text(run_id + "\n")
    if mode == "offline" and rank_zero_only.rank == 0:
        why = "" if settings.mode == "offline" or os.environ.get("WANDB_MODE") else " (no key)"
        print(f"wandb is offline{why}; to upload later: wandb login && wandb sync {run.wandb}/offline-run-*", file=sys.stderr)
    os.environ.setdefault("WANDB_SILENT", "true")
    logger = WandbLogger(
        name=name,
        id=run_id,
        save_dir=run.folder,
        project=settings.project,
        entity=settings.entity,
        tags=settings.tags,
        mode=mode,
        resume="allow",
        config=config,
        settings={"console": "off"},
    )
    logger._wandb_init.pop("anonymous")  # Lightning always passes it, wandb warns of it
    return logger


@rank_zero_only
def close(loggers: list[Logger]) -> None:
    """Ends the W&B run, so that the next job of a sweep begins its own."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()


@rank_zero_only
def log_samples(loggers: list[Logger], rows: list[dict], step: int) -> None:
    """Generated texts as a W&B table, where there is a W&B logger."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            columns = ["step", "prompt", "manner", "text"]
            logger.log_text("samples", columns=columns, data=[[row[c] for c in columns] for row in rows], step=None)
