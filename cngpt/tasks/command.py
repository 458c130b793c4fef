"""What a task is given: its settings, what of them was typed, and where its results go."""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, model_validator

from cngpt import files
from cngpt.corpus.clean.build import settings_class as clean_settings
from cngpt.corpus.dedup.settings import Dedup
from cngpt.corpus.settings import Data, Prepare
from cngpt.errors import ConfigError
from cngpt.generation.settings import Sampling
from cngpt.plan.hardware import Hardware
from cngpt.plan.settings import Plan, Trainer
from cngpt.settings import Chosen, Field, Hints, Made, Positive, Settings, Text
from cngpt.tokens.settings import TOKENIZERS
from cngpt.training.schedule import SCHEDULES, Schedule
from cngpt.training.settings import LOGGERS, OPTIMIZERS, Callbacks, Model, Optimizer


def _folder_name(name: Any) -> Any:
    if name is not None and not re.fullmatch(r"[^/\\\s.][^/\\]*", str(name)):
        raise ValueError("a folder's name, without / and not beginning with a dot")
    return name


def _existing(path: Any) -> Any:
    if path is not None and not files.is_remote(str(path)) and not Path(str(path)).exists():
        raise ValueError("there is nothing of this name; a run directory, model directory or checkpoint")
    return path


Checkpoint = Annotated[Text | None, BeforeValidator(_existing)]


class Paths(Settings, group="paths"):
    """Where things go, seen from the folder in which the command is run."""

    runs: Text = Field("runs", description="one folder a run")
    data: Text = Field("data", description="one folder a set of shards")
    models: Text = Field("models", description="one folder a converted or exported model")


class Generation(Sampling):
    """The group `generation`: sampling, and what puts its samples in order."""

    rerank: Text | None = Field(
        None, description="folder of a BERT that puts the samples of a prompt in order (n=10); null: none"
    )

    @model_validator(mode="after")
    def _check_lengths(self):
        return self  # a limit that nobody typed may still give way: starting_point.sampling_of


class Common(Settings):
    """What every command has. A task adds keys of its own."""

    task: Text = Field(description="what to do")
    plugins: list[Text] = Field(
        [], description="Python files of your own that add a block, a task, a reader, a rule, a callback, a strategy"
    )
    name: Annotated[Text | None, BeforeValidator(_folder_name)] = Field(
        None, description="of the run, runs/<name>; null: experiment or model, date and time. The same name again goes on"
    )
    seed: int = Field(1, ge=0, description="of initial weights, order of the data, dropout")
    ckpt: Annotated[Checkpoint, Hints("resume", "checkpoint", "resume_from", "model_path")] = Field(
        None, description="train: go on from this training checkpoint. Other tasks: read this checkpoint or model directory"
    )
    init: Annotated[Checkpoint, Hints("init_from", "pretrained", "finetune_from")] = Field(
        None, description="train: begin with the weights of this checkpoint or model directory, everything else fresh"
    )
    overwrite: Annotated[bool, Hints("force")] = Field(False, description="true: what exists under this name is replaced")
    tokens_per_step: Annotated[Positive, Hints("batch_size", "batch", "global_batch_size", "bs")] = Field(
        description="tokens in one optimizer step, over all devices"
    )
    max_steps: Annotated[
        Positive, Hints("steps", "epochs", "iterations", "max_iters", "num_steps", "max_epochs", "train_steps")
    ] = Field(description="optimizer steps")
    plan: Plan
    prepare: Prepare
    model: Model
    tokenizer: Annotated[Settings, Chosen(TOKENIZERS, "tokenizer")]
    data: Data
    clean: Annotated[Settings, Made(clean_settings)]
    dedup: Dedup
    optim: Annotated[Optimizer, Chosen(OPTIMIZERS, "optim")]
    schedule: Annotated[Schedule, Chosen(SCHEDULES, "schedule")]
    trainer: Trainer
    hardware: Hardware
    generation: Generation
    callbacks: Annotated[Callbacks, Made(Callbacks.with_registered)]
    logger: Annotated[Settings, Chosen(LOGGERS, "logger")]
    paths: Paths

    HARDWARE: ClassVar[bool] = False  # whether the task plans for a machine that hardware= names

    @classmethod
    def own_keys(cls) -> set[str]:
        """The keys that a task adds, as typed."""
        return {field.alias or name for name, field in cls.model_fields.items() if name not in Common.model_fields}


class Overridden:
    """Which keys and groups were typed."""

    def __init__(self, keys: Iterable[str]):
        self._keys = frozenset(keys)

    def __contains__(self, key: str) -> bool:
        """This very key, or the choice of this group."""
        return key in self._keys

    def within(self, group: str) -> bool:
        """The choice of the group, or any key in it."""
        return any(key == group or key.startswith(group + ".") for key in self._keys)


@dataclass(frozen=True)
class Command:
    """A command that was composed and checked."""

    settings: Any  # the task's Keys
    plain: dict[str, Any]  # the whole configuration, resolved: for config.yaml, checkpoints, W&B
    overridden: Overridden
    choices: dict[str, str]  # group -> choice
    words: list[str]  # as typed
    sweep: bool  # one of several

    def __post_init__(self):
        typed = next((word for word in self.words if re.match(r"hardware\b", word)), None)
        if typed and not self.settings.HARDWARE:
            raise ConfigError(f"{typed}: is for task=plan; the other tasks take the machine that they run on")
        data = self.settings.data
        if data.name == "sample" and "data.root" in self.overridden:
            raise ConfigError(
                f"data.root={data.root}: data=sample has texts of its own; yours need data=files (or thucnews, ...)"
            )

    def new_folder(self, parent: str, name: str) -> Path:
        """out=..., or a folder of this name in one of paths.*; ConfigError where there is something and overwrite=true was not typed."""
        asked = self.settings.out
        refuse_remote(asked)
        out = Path(asked) if asked else Path(getattr(self.settings.paths, parent)) / name
        if out.exists() and not files.is_empty(out) and not self.settings.overwrite:
            raise ConfigError(f"out={out}: exists already; take another folder, or overwrite=true")
        return out

    def new_file(self) -> Path | None:
        """out=... of a task that writes one file; ConfigError, before anything slow, where it cannot or may not be written."""
        if not self.settings.out:
            return None
        refuse_remote(self.settings.out)
        out = Path(self.settings.out)
        if out.is_dir():
            raise ConfigError(f"out={out}: is a folder; give the name of a file")
        if out.exists() and not self.settings.overwrite:
            raise ConfigError(f"out={out}: exists already; take another file, or overwrite=true")
        above = next(folder for folder in out.resolve().parents if folder.exists())
        if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
            raise ConfigError(f"out={out}: {above} is no folder that this user may write into")
        return out


def refuse_remote(out: str | None) -> None:
    if out and files.is_remote(out):
        raise ConfigError(f"out={out}: is remote, and this is written to a local disk; copy it there afterwards")


def typed_as(key: str, value: object) -> str:
    """key=value as a shell and Hydra understand it."""
    return f"{key}={value}" if re.fullmatch(r"[A-Za-z0-9_./+-]+", str(value)) else f"""'{key}="{value}"'"""


def device() -> str:
    """Where a task that only reads a model computes."""
    import torch

    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
