"""What a run begins with: nothing, weights, or a whole training checkpoint; and the shape, tokenizer and sampling that follow."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cngpt import checkpoints, hosts
from cngpt.checkpoints import Header, distributed
from cngpt.checkpoints.model_directory import has_model
from cngpt.corpus.prepared import local_shards
from cngpt.errors import ConfigError
from cngpt.generation.settings import Sampling, saved_defaults
from cngpt.model.shape import Shape
from cngpt.runs import SUFFIX, Bucket, Run
from cngpt.tasks.command import Command
from cngpt.tokens import Tokenizer, load_tokenizer
from cngpt.tokens.load import from_settings

DECIDE_SHAPE = ("block", "n_ctx", "n_layer", "n_head", "width")  # dropout may be chosen anew


@dataclass(frozen=True)
class StartingPoint:
    """Nothing, the weights of `path`, or (`resume`) everything in the checkpoint `path`."""

    path: Path | None = None
    resume: bool = False
    header: Header | None = None


def starting_point(command: Command) -> StartingPoint:
    """From ckpt=, init= and what the run's own folder holds. ConfigError where they contradict each other or the configuration."""
    s, run = command.settings, Run(Path(command.settings.paths.runs) / command.settings.name)
    if s.ckpt and s.init:
        raise ConfigError(
            "ckpt and init are both given: ckpt goes on with the optimizer's state, init begins afresh with the weights"
        )
    for key, path in ("ckpt", s.ckpt), ("init", s.init):
        if s.overwrite and path and Path(path).resolve().is_relative_to(run.folder.resolve()):
            raise ConfigError(f"{key}={path}: overwrite=true would remove it with {run.folder}; take another name=...")
    if (bucket := s.callbacks.checkpoint.folder) and not s.overwrite and hosts.is_local_zero():
        Bucket(bucket).fetch_newest(run.checkpoints, distributed.verify)
    own = None if s.overwrite else run.newest_checkpoint()
    asked = checkpoint_of(Path(s.ckpt)) if s.ckpt else None
    if asked and (not own or asked.parent.resolve() == own.parent.resolve()):
        start = StartingPoint(asked, True, checkpoints.header(asked))
    elif own:
        start = StartingPoint(own, True, checkpoints.header(own))
    elif s.init:
        start = StartingPoint(Path(s.init), False, checkpoints.header(s.init))
        if not (command.overridden.within("experiment") or command.overridden.within("optim")):
            raise ConfigError(f"init={s.init}: a rate is needed too: optim.lr=..., or experiment=finetune")
    else:
        return StartingPoint()
    check_shape(command, start.header)
    if start.resume:
        check_kept(command.plain, start)
        if own:
            check_same_texts(command, run)
    return start


def checkpoint_of(path: Path) -> Path:
    """What ckpt= means for training: a checkpoint, or the newest one of a run directory."""
    if has_model(path):
        raise ConfigError(
            f"ckpt={path}: a model directory has no optimizer state to go on from; begin with its weights: init={path}"
        )
    if newest := Run(path).newest_checkpoint():
        return newest
    if path.is_dir() and path.suffix != SUFFIX:
        raise ConfigError(f"ckpt={path}: holds no checkpoints/step_*.ckpt")
    return path


def check_kept(plain: Mapping[str, Any], start: StartingPoint) -> None:
    """ConfigError where a setting that a resumed run must keep is another now."""
    for key, before in start.header.training.items():
        now: Any = plain
        for part in key.split("."):
            now = now[part]
        if now != before:
            raise ConfigError(
                f"{key}={now}: {start.path} was trained with {key}={before}, and goes on with it only; init={start.path} begins afresh"
            )


def check_same_texts(command: Command, run: Run) -> None:
    """ConfigError where a run of this name has read other texts: mixing them needs a name of its own."""
    if not run.config.exists():
        return
    try:
        before = yaml.safe_load(run.config.read_text(encoding="utf-8"))["data"]["sources"]
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError):
        hosts.log(f"note: {run.config} cannot be read, so nobody knows which texts this run was trained on")
        return
    if before != command.plain["data"]["sources"]:
        roots = ", ".join(str(source["root"]) for source in before)
        raise ConfigError(
            f"data={command.settings.data.name}: {run.folder} was trained on {roots}; to go on with other texts take"
            f" another name=... with ckpt={run.folder} or init={run.folder}"
        )


def tokenizer_of(command: Command, start: StartingPoint) -> Tokenizer:
    """The tokenizer of the configuration, or of the checkpoint, where there is one; they must not contradict each other."""
    s, typed = command.settings, command.overridden.within("tokenizer")
    own = start.header.tokenizer if start.header else None
    if own is not None and not typed:
        return own
    if own is None and not typed and s.data.name == "shards":
        beside = local_shards(s.data, Path(s.paths.data)) / "tokenizer.json"
        if beside.is_file():  # as convert leaves it beside the shards
            return load_tokenizer(beside)
    made = from_settings(s.tokenizer)
    if own is not None and own.fingerprint != made.fingerprint:
        raise ConfigError(
            f"tokenizer={s.tokenizer.name}: {start.path} was trained with another vocabulary ({own.name}); leave tokenizer= out, or train afresh"
        )
    return made


def check_shape(command: Command, header: Header) -> None:
    """ConfigError where a model= that was typed contradicts a checkpoint."""
    if not command.overridden.within("model"):
        return
    for key in DECIDE_SHAPE:
        if (typed := getattr(command.settings.model, key)) != header.shape[key]:
            raise ConfigError(
                f"model.{key}={typed}: {header.path} has {key}={header.shape[key]}; leave model= out, the shape comes from the checkpoint"
            )


def shape_of(command: Command, start: StartingPoint, vocab_size: int) -> Shape:
    """The shape of the configuration, or of the checkpoint; dropout as typed in any case."""
    model = command.settings.model
    if start.header is None:
        return Shape(vocab_size=vocab_size, **model.sizes())
    own = dict(start.header.shape)
    return Shape(**own | ({"dropout": model.dropout} if "model.dropout" in command.overridden else {}))


def sampling_of(command: Command, header: Header | None) -> dict[str, Any]:
    """The keys of Sampling: as typed, else of the group that was typed, else as the model of `header` has them, else the defaults.

    A limit that nobody typed gives way to one that was.
    """
    overridden = command.overridden
    # a model says how it is sampled, and knows no folder of this machine
    chosen = command.settings.generation.model_dump(exclude={"rerank"})
    if header and "generation" not in overridden:
        saved = saved_defaults(header.generation)
        chosen |= {k: v for k, v in saved.items() if f"generation.{k}" not in overridden and k in chosen}
    if "generation.min_new_tokens" not in overridden:
        chosen["min_new_tokens"] = min(chosen["min_new_tokens"], chosen["max_new_tokens"])
    if "generation.min_len" not in overridden and chosen["compat"] != "gpt2ml":
        chosen["min_len"] = 0
    return Sampling(**chosen).model_dump()
