"""From settings to a finished run: model, data, strategy, loggers and callbacks put together, trained, saved."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytorch_lightning as pl
import torch

from cngpt import page, store
from cngpt.errors import UserError
from cngpt.model import GPT, Shape
from cngpt.plan.flops import flops_per_token
from cngpt.tokens import Tokenizer
from cngpt.tokens.order import divide
from cngpt.tokens.shards import Shards
from cngpt.training import callbacks, process, strategies, tracking
from cngpt.training.datamodule import ShardsDataModule
from cngpt.training.module import GPTModule
from cngpt.training.throughput import Stopwatch


@dataclass
class Outcome:
    """What a call of `fit` left behind."""

    step: int
    stopped_by: int | None  # the signal that ended it before its last step
    metrics: dict[str, float]  # the newest value of each


KEPT = ("seed", "tokens_per_step", "optim.name")  # which window is read when, and what the optimizer's state means


def fit(
    settings: dict, tokenizer: Tokenizer, shards: Path, folder: Path, resume: Path | None = None, init: Path | None = None
) -> Outcome:
    """Trains until settings["max_steps"] in the run directory `folder`, which exists.

    `settings` is the resolved configuration as plain values, settings["model"] what `Shape` takes. `resume` is a training
    checkpoint to go on from, `init` any checkpoint or model directory to begin with; without either, weights are drawn from
    settings["seed"].
    """
    process.quiet()
    if settings["trainer"]["accelerator"] == "cpu":
        process.keep_freed_memory()
    first_step = 0
    if resume:
        store.verify_checkpoint(resume)
        first_step = store.header(resume)["step"]
    torch.manual_seed(settings["seed"])
    gpt = GPT(Shape(**settings["model"])).init_weights()
    if init:
        gpt.load_state_dict(store.load(init)[0].state_dict())
    module = build_module(settings, gpt, tokenizer)
    data = build_data(settings, shards)
    guests = build_callbacks(settings, data, tokenizer, folder)
    trainer = build_trainer(settings, guests, folder)  # before the loggers: now every process knows whether it is the first
    loggers = trainer.loggers = [tracking.MetricsCSV(folder / "metrics.csv", first_step)]
    if settings["logger"]["name"] == "wandb":
        loggers.append(tracking.wandb_logger(folder, settings["name"], settings["logger"], settings))
    if trainer.is_global_zero:
        print(
            describe(settings, trainer.world_size * getattr(trainer.strategy, "devices_a_process", 1), first_step),
            file=sys.stderr,
        )
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
        step, stopped_by = trainer.global_step, guests.checkpoints.stopped_by
        if trainer.is_global_zero:
            page.loss_curve(tracking.read_metrics(folder / "metrics.csv"), folder / "loss.svg", title=settings["name"])
    finally:
        tracking.close(loggers)
    return Outcome(step, stopped_by, guests.metrics.latest)


def build_module(settings: dict, gpt: GPT, tokenizer: Tokenizer) -> "Module":
    """The LightningModule, which knows what a checkpoint must hold to become a model again."""
    trainer = settings["trainer"]
    gpt.activation_checkpointing = trainer["activation_checkpointing"]
    about = {"shape": gpt.shape.as_dict(), "tokenizer": tokenizer.to_json(), "generation": settings["generation"]}
    about["training"] = {key: pick(settings, key) for key in KEPT}
    module = Module(gpt, settings["optim"], settings["schedule"], settings["seed"], trainer["clip_norm"], about)
    module.sharded, module.compiled = trainer["strategy"] == "fsdp", trainer["compile"]
    return module


def build_data(settings: dict, shards: Path) -> ShardsDataModule:
    """train/ and valid/ of a folder of shards; UserError where they do not fill one window."""
    train, valid, n_ctx = Shards(shards / "train"), Shards(shards / "valid"), settings["model"]["n_ctx"]
    if train.tokens <= n_ctx:
        raise UserError(f"{shards / 'train'} holds {train.tokens} tokens, and one window needs {n_ctx + 1}: more text is needed")
    every, workers = settings["callbacks"]["validation"], settings["trainer"]["num_workers"]
    options = {"num_workers": workers, "valid_windows": every["windows"], "valid_every": every["every"]}
    return ShardsDataModule(train, valid, n_ctx, seed=settings["seed"], **options, **batch(settings))


def batch(settings: dict) -> dict:
    """The settings that `divide` turns into micro-batches and accumulation."""
    trainer = settings["trainer"]
    return {
        "tokens_per_step": settings["tokens_per_step"],
        "micro_batch": trainer["micro_batch"],
        "micro_batch_tokens": trainer["micro_batch_tokens"],
    }


class Guests(NamedTuple):
    """The callbacks, in the order in which they are called: metrics first, so that a pause of the others does not count."""

    metrics: callbacks.Metrics
    samples: callbacks.Samples
    checkpoints: callbacks.Checkpoints
    progress: callbacks.Progress
    model_directory: callbacks.ModelDirectory


def build_callbacks(settings: dict, data: ShardsDataModule, tokenizer: Tokenizer, folder: Path) -> Guests:
    every, stopwatch = settings["callbacks"], Stopwatch()
    tokens_per_character = data.valid.tokens / max(1, data.valid.characters)
    flops = flops_per_token(**settings["model"])
    metrics = callbacks.Metrics(every["log_every"], settings["tokens_per_step"], flops, tokens_per_character, stopwatch)
    progress = callbacks.Progress(metrics)
    options = {"sampling": settings["generation"], "progress": progress, "stopwatch": stopwatch}
    samples = callbacks.Samples(folder / "samples.jsonl", tokenizer, **every["samples"], **options)
    checkpoints = {**every["checkpoint"], "folder": every["checkpoint"]["folder"] or folder / "checkpoints"}
    checkpoints = callbacks.Checkpoints(**checkpoints, stopwatch=stopwatch)
    model_directory = callbacks.ModelDirectory(folder / "model", tokenizer, settings["generation"])
    return Guests(metrics, samples, checkpoints, progress, model_directory)


def build_trainer(settings: dict, guests: Guests, folder: Path) -> pl.Trainer:
    """Lightning's Trainer with its own checkpoints, summaries, samplers and sanity runs off: they are ours, or not wanted."""
    return pl.Trainer(
        **strategies.place(settings["trainer"]),
        strategy=strategies.build(settings["trainer"]),
        plugins=strategies.plugins(settings["trainer"]),
        max_steps=settings["max_steps"],
        max_epochs=-1,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        callbacks=list(guests),
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )


def describe(settings: dict, world: int, first_step: int) -> str:
    """One line: where it runs and how a step is divided. ConfigError where it does not divide."""
    n_ctx, trainer = settings["model"]["n_ctx"], settings["trainer"]
    plan = divide(n_ctx=n_ctx, world=world // trainer["tensor_parallel"], **batch(settings))
    place = f"{world} x {trainer['accelerator']}" if world > 1 else trainer["accelerator"]
    resumed = f"; goes on from step {first_step}" if first_step else ""
    return (
        f"on {place}, {trainer['precision']}, a step reads {plan.windows} windows of {n_ctx} tokens"
        f" (micro-batch {plan.micro}, accumulated {plan.accumulate} times){resumed}"
    )


def pick(settings: dict, key: str):
    """settings["optim"]["name"] for "optim.name"."""
    for part in key.split("."):
        settings = settings[part]
    return settings


class Module(GPTModule):
    """The module with what the chosen strategy asks of it."""

    sharded = compiled = False

    def on_before_optimizer_step(self, optimizer) -> None:
        if hasattr(self.trainer.strategy, "clip"):  # where gradients are cut, the strategy knows how
            self.trainer.strategy.clip(self)
        else:
            super().on_before_optimizer_step(optimizer)

    def configure_model(self) -> None:
        if self.sharded and not getattr(self, "_is_sharded", False):
            strategies.shard(self)
            self._is_sharded = True
        if self.compiled and self.gpt._compiled_call_impl is None:
            self.gpt.compile()  # in place: wrapping would rename every key to _orig_mod.*
