"""task=train: texts to shards where they are missing, shards to a trained model, in runs/<name>/."""

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from cngpt import files, hosts
from cngpt.errors import ConfigError
from cngpt.model.shape import Shape, parameters
from cngpt.plan import spread
from cngpt.runs import Bucket, Run
from cngpt.tasks.command import Command, Common
from cngpt.training.settings import Training

if TYPE_CHECKING:
    from cngpt.tasks.starting_point import StartingPoint

READS = (
    "name", "seed", "ckpt", "init", "overwrite", "tokens_per_step", "max_steps", "plugins", "plan", "prepare", "model", "tokenizer",
    "data", "clean", "dedup", "optim", "schedule", "trainer", "generation", "callbacks", "logger", "paths",
)  # fmt: skip
# ctrl-C and SIGTERM save a checkpoint first
HANDLES_SIGNALS = True


class Keys(Common):
    """Train has no keys of its own."""


def run(command: Command) -> None:
    command = with_warmup_that_fits(command)
    check(command)
    folder = Run(Path(command.settings.paths.runs) / command.settings.name)
    if not hosts.is_global_zero():
        begin(command, folder)
        return
    with folder.locked():
        begin(command, folder)


def begin(command: Command, folder: Run) -> None:
    """Everything is decided and checked, the shards are found or made, and the model is trained."""
    from cngpt.corpus.prepared import prepared
    from cngpt.tasks.starting_point import sampling_of, shape_of, starting_point, tokenizer_of
    from cngpt.tokens.order import divide
    from cngpt.tokens.shards import Shards

    s = command.settings
    start = starting_point(command)
    announce(command, start)
    trainer = s.trainer.settled()
    sizes = s.model if start.header is None else Shape(**start.header.shape)
    readers = spread.readers_here(trainer, s.optim.name, sizes)
    batch = {"tokens_per_step": s.tokens_per_step, "n_ctx": sizes.n_ctx}
    batch |= {"micro_batch": trainer.micro_batch, "micro_batch_tokens": trainer.micro_batch_tokens}
    if readers is not None:
        divide(world=readers, **batch)  # raises where it does not

    tokenizer = tokenizer_of(command, start)
    shape, sampling = shape_of(command, start, tokenizer.vocab_size), sampling_of(command, start.header)
    if start.resume and start.header.step >= s.max_steps:
        finished(folder, start, s.max_steps, s.ckpt)
        return
    if s.plan.enforce:
        spread.check_fits(trainer, shape, s.optim.name, s.tokens_per_step, lambda world: divide(world=world, **batch).per_device)
    options = {"clean": command.plain["clean"], "dedup": s.dedup, "prepare": s.prepare}
    shards = prepared(s.data, tokenizer, **options, folder=Path(s.paths.data))
    tokens = Shards(shards / "train").tokens
    passes = s.max_steps * s.tokens_per_step / max(1, tokens)
    hosts.log(f"{parameters(shape):,} parameters; {tokens:,} training tokens in {shards}, read {passes:.2g} times over")

    # what config.yaml and W&B hold: the shape, precision and sampling that were decided, not those that were typed
    config = {**command.plain, "model": {**command.plain["model"], **shape.as_dict()}, "trainer": trainer.model_dump()}
    config["generation"] = {**command.plain["generation"], **sampling}
    settings = Training(
        name=s.name, seed=s.seed, max_steps=s.max_steps, tokens_per_step=s.tokens_per_step, shape=shape, trainer=trainer, optim=s.optim,
        schedule=s.schedule, callbacks=s.callbacks, logger=s.logger, generation=sampling, config=config,
    )  # fmt: skip
    if hosts.is_global_zero():
        make_room(s, folder, start, config)
    train(settings, tokenizer, shards, folder, start, s.overwrite)


def with_warmup_that_fits(command: Command) -> Command:
    """A recipe's warmup that does not fit into few steps becomes a tenth of them, unless it was typed."""
    schedule = command.settings.schedule
    fitted = schedule.fitted()
    if fitted is schedule or "schedule.warmup_steps" in command.overridden:
        return command
    total = fitted.total_steps
    hosts.log(f"note: schedule.warmup_steps={fitted.warmup_steps}, for {schedule.warmup_steps} do not fit into {total} steps")
    plain = {**command.plain, "schedule": fitted.model_dump()}
    return dataclasses.replace(command, settings=command.settings.model_copy(update={"schedule": fitted}), plain=plain)


def check(command: Command) -> None:
    """ConfigError for keys that do not go together."""
    s = command.settings
    s.schedule.check()
    folder, strategy = s.callbacks.checkpoint.folder, s.trainer.strategy
    if folder and (s.trainer.accelerator != "tpu" or not files.is_remote(folder)):
        raise ConfigError(
            f"callbacks.checkpoint.folder={folder}: is for a bucket (gs://...) with trainer=tpu or tpu_pod; others write to the"
            " run's own folder, paths.runs=..."
        )
    if command.sweep and (strategy != "single" or s.trainer.num_nodes > 1):
        raise ConfigError(f"trainer.strategy={strategy} with -m: a sweep runs on single devices; use trainer=cpu or trainer=gpu")
    if s.data.name == "shards" and s.prepare.out:
        raise ConfigError(
            f"prepare.out={s.prepare.out}: data=shards reads data.root={s.data.root} as it is; leave prepare.out out"
        )
    if folder:  # it is looked into before the run is announced
        spread.check_installed(strategy)


def announce(command: Command, start: "StartingPoint") -> None:
    """What is going to be done, in one line, before the machine is looked at."""
    s, choices = command.settings, command.choices
    if s.data.name == "sample":
        source = "the bundled sample, 190 thousand characters (data=... for a real corpus)"
    else:
        source = s.data.root
    shape = start.header.shape if start.header else s.model.sizes()
    model = f"model from {start.path}" if start.path else f"model={choices['model']}"
    hosts.log(
        f"{s.name}: {model} ({shape['n_layer']} layers x {shape['width']}) on data={choices['data']}: {source};"
        f" {s.max_steps:,} steps of {s.tokens_per_step:,} tokens"
    )


def make_room(s: Keys, run: Run, start: "StartingPoint", config: dict) -> None:
    """By the first process: what overwrite=true replaces and later checkpoints give way, and the configuration is written."""
    if s.overwrite:
        for path in run.folder.iterdir():
            if path.name != run.lock.name:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    if start.resume and start.path.parent.resolve() == run.checkpoints.resolve():
        run.set_aside_after(start.path)
    if bucket := s.callbacks.checkpoint.folder:
        Bucket(bucket).remove_after(start.path.name if start.resume else "")
    files.write_text(run.config, yaml.safe_dump(config, allow_unicode=True, sort_keys=False))


def train(settings: Training, tokenizer, shards: Path, run: Run, start: "StartingPoint", overwrite: bool) -> None:
    from cngpt.training.fit import fit

    run.checkpoints.mkdir(parents=True, exist_ok=True)
    resume, init = (start.path, None) if start.resume else (None, start.path)
    outcome = fit(settings, tokenizer, shards, run, resume, init)
    if outcome.stopped_by is not None:
        again = "the same options, without overwrite=true," if overwrite else "the same options"
        hosts.log(f"stopped at step {outcome.step}; python run.py name={settings.name} with {again} goes on")
        raise SystemExit(128 + outcome.stopped_by)  # so that a scheduler, or a sweep, knows
    loss, bits = outcome.metrics.get("val_loss"), outcome.metrics.get("val_bits_per_character")
    if loss is not None:
        hosts.log(f"step {outcome.step}: validation loss {loss:.3f} nats a token, {bits:.3f} bits a character")
    hosts.log(f"run      {run.folder}   (config.yaml, samples.jsonl, loss.svg, checkpoints/)")
    hosts.log(f"model    {run.model}   (python run.py task=generate ckpt={run.model})")
    hosts.log(f"metrics  {run.metrics}")


def finished(run: Run, start: "StartingPoint", max_steps: int, ckpt: str | None) -> None:
    """A run that has its steps already: says so, and writes its model/ if it was stopped before that."""
    from cngpt import checkpoints
    from cngpt.tasks.convert import write_model

    step = start.header.step
    if not start.path.resolve().is_relative_to(run.folder.resolve()):
        raise ConfigError(f"max_steps={max_steps}: ckpt={ckpt} has done {step} steps already; give a higher number")
    if hosts.is_global_zero() and (not checkpoints.is_model_directory(run.model) or checkpoints.header(run.model).step != step):
        write_model(start.path, run.model, overwrite=True)
    hosts.log(f"{run.folder} is at step {step} of {max_steps} already: raise max_steps=..., or take another name=...")
