"""task=convert: other people's models and data to ours, and a training checkpoint of ours to a model directory."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cngpt import hosts, runs
from cngpt.errors import ConfigError
from cngpt.settings import Field, Hints, Text, show
from cngpt.tasks.command import Command, Common, typed_as

READS = ("overwrite", "paths.models", "paths.data", "prepare.shard_mb")
HANDLES_SIGNALS = False
INTERRUPTED = ", nothing was written"


class Keys(Common):
    source: Literal["gpt2ml", "gpt2ml_tfrecord", "huggingface", "checkpoint"] = Field(
        alias="from", description="gpt2ml, gpt2ml_tfrecord, huggingface or checkpoint"
    )
    path: Annotated[Text, Hints("input", "source", "in")] = Field(
        description="what to convert: a checkpoint's prefix or folder, a file or folder of TFRecords, a run or its step_*.ckpt"
    )
    vocab: Text | None = Field(None, description="vocab.txt, clue or bert; null: the one that goes with the model")
    config: Text | None = Field(None, description="gpt2ml: its JSON, such as the seed's configs/mega.json")
    eos: Text | None = Field(None, description="the token that ends a text, 'eos=\"[SEP]\"'; null: as its makers had it")
    valid_fraction: float = Field(0.001, ge=0, le=0.5, description="gpt2ml_tfrecord: of the articles, kept aside for validation")
    optimizer: bool = Field(
        False, description="gpt2ml: a training checkpoint with the optimizer's state instead of a model directory"
    )
    out: Text | None = Field(None, description="folder to write; null: one in paths.models or paths.data, named after path")


# keys -> the sources that they go with
OTHERS = ("gpt2ml", "gpt2ml_tfrecord", "huggingface")
GOES_WITH = {"config": ("gpt2ml",), "optimizer": ("gpt2ml",), "vocab": OTHERS, "eos": OTHERS}


def run(command: Command) -> None:
    s = command.settings
    for key, sources in GOES_WITH.items():
        if (value := getattr(s, key)) and s.source not in sources:
            raise ConfigError(f"{key}={show(value)}: goes with from={' and from='.join(sources)}, not with from={s.source}")
    CONVERTERS[s.source](command)


def from_checkpoint(command: Command) -> None:
    s = command.settings
    if not Path(s.path).exists():
        raise ConfigError(f"path={s.path}: there is nothing of this name")
    out = command.new_folder("models", name_for(Path(s.path)))
    tell_model(out, [write_model(Path(s.path), out, s.overwrite)])


def from_huggingface(command: Command) -> None:
    from cngpt.interop.huggingface.convert import convert

    s = command.settings
    out = command.new_folder("models", name_for(Path(s.path)))
    tell_model(out, convert(s.path, out, vocab=s.vocab, eos=s.eos, overwrite=s.overwrite))


def from_gpt2ml(command: Command) -> None:
    from cngpt.interop.gpt2ml.convert import convert

    s = command.settings
    out = command.new_folder("models", name_for(Path(s.path)))
    options = {"vocab": s.vocab, "config": s.config, "eos": s.eos, "optimizer": s.optimizer}
    notes = convert(s.path, out, **options, overwrite=s.overwrite)
    if not s.optimizer:
        tell_model(out, notes)
        return
    for note in notes:
        hosts.log(note)
    hosts.log(f"run      {out}   (python run.py experiment=gpt2ml_continue {typed_as('ckpt', out)} data.root=<folder>)")


def from_gpt2ml_tfrecord(command: Command) -> None:
    s = command.settings
    if not s.vocab:
        raise ConfigError("vocab=... is needed: the vocab.txt that the records were made with, clue or bert")
    out = command.new_folder("data", f"{name_for(Path(s.path)).removesuffix('.tfrecord')}-gpt2ml")

    from cngpt.interop.gpt2ml import shards

    report = shards.convert(s.path, out, s.vocab, s.eos, s.valid_fraction, s.prepare.shard_mb << 20, s.overwrite)
    hosts.log(
        f"{report['records']:,} articles of {len(report['files'])} file(s), {report['tokens']:,} tokens; {report['full']:,} fill their row:"
        f" what was longer had been cut off"
    )
    hosts.log(f"shards   {out}   (python run.py data=shards {typed_as('data.root', out)})")


CONVERTERS: dict[str, Callable[[Command], None]] = {
    "gpt2ml": from_gpt2ml,
    "gpt2ml_tfrecord": from_gpt2ml_tfrecord,
    "huggingface": from_huggingface,
    "checkpoint": from_checkpoint,
}


def tell_model(out: Path, notes: list[str]) -> None:
    for note in notes:
        hosts.log(note)
    hosts.log(f"model    {out}   (python run.py task=generate {typed_as('ckpt', out)})")


def write_model(path: Path, out: Path, overwrite: bool) -> str:
    """A checkpoint of any strategy to a model directory; a line on what it was."""
    from cngpt import checkpoints

    header = checkpoints.header(path)
    gpt, tokenizer = checkpoints.load(path)
    checkpoints.save(out, gpt, tokenizer, header.generation, overwrite, step=header.step)
    return f"read     {header.path}" + (f", step {header.step}" if header.step else "")


def name_for(path: Path) -> str:
    """What a thing to convert is called, by its path: model.ckpt-100000 of any of its files."""
    path = path.resolve()
    if runs.step_of(path) is not None:
        return f"{runs.run_of(path).name}-{path.stem}"
    name = path.parent.name if path.name == "checkpoint" else path.name
    return re.sub(r"\.(index|meta)$", "", name).partition(".data-")[0]
