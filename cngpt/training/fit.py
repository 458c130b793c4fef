"""From settings to a finished run: model, data, strategy, loggers and callbacks put together, trained, saved."""

from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch

from cngpt import checkpoints, hosts, html
from cngpt.checkpoints import training_checkpoint
from cngpt.errors import UserError
from cngpt.model.gpt import GPT
from cngpt.runs import Run
from cngpt.tokens import Tokenizer
from cngpt.tokens.order import divide
from cngpt.tokens.shards import Shards
from cngpt.training import callbacks, process, strategies, tracking
from cngpt.training.callbacks import Checkpoints, Context, Metrics, Progress
from cngpt.training.datamodule import ShardsDataModule
from cngpt.training.module import GPTModule
from cngpt.training.settings import Training
from cngpt.training.strategies.base import Strategy
from cngpt.training.throughput import Stopwatch

# what a resumed run must keep: which window is read when, and what the optimizer's state means
KEPT = {"seed": lambda s: s.seed, "tokens_per_step": lambda s: s.tokens_per_step, "optim.name": lambda s: s.optim.name}


@dataclass
class Outcome:
    """What a call of `fit` left behind."""

    step: int
    stopped_by: int | None  # the signal that ended it before its last step
    metrics: dict[str, float]  # the newest value of each


def fit(
    settings: Training, tokenizer: Tokenizer, shards: Path, run: Run, resume: Path | None = None, init: Path | None = None
) -> Outcome:
    """Trains until settings.max_steps in the run directory, which exists.

    `resume` is a training checkpoint to go on from, `init` any checkpoint or model directory to begin with; without either,
    weights are drawn from settings.seed.
    """
    process.quiet()
    if settings.trainer.accelerator == "cpu":
        process.keep_freed_memory()
    first_step = 0
    if resume:
        training_checkpoint.verify(resume)
        first_step = checkpoints.header(resume).step
    torch.manual_seed(settings.seed)
    gpt = GPT(settings.shape).init_weights()
    if init:
        gpt.load_state_dict(checkpoints.load(init)[0].state_dict())
    gpt.activation_checkpointing = settings.trainer.activation_checkpointing
    module, data = build_module(settings, gpt, tokenizer), build_data(settings, shards)
    stopwatch = Stopwatch()
    metrics = Metrics(settings, data.valid.tokens / max(1, data.valid.characters), stopwatch)
    context = Context(run, tokenizer, settings.generation, metrics, Progress(metrics), stopwatch)
    # before the loggers: now every process knows whether it is the first
    trainer = build_trainer(settings, callbacks.build(settings.callbacks, context), run.folder)
    hosts.set_global_rank(trainer.global_rank)
    loggers = trainer.loggers = [tracking.MetricsCSV(run.metrics, first_step)]
    if settings.logger.name == "wandb":
        loggers.append(tracking.wandb_logger(run, settings.name, settings.logger, settings.config))
    if trainer.is_global_zero:
        hosts.log(describe(settings, trainer.strategy, first_step))
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
        if trainer.is_global_zero:
            html.loss_curve(tracking.read_metrics(run.metrics), run.loss_curve, title=settings.name)
    finally:
        tracking.close(loggers)
        hosts.set_global_rank(None)
    stopped_by = next(c.stopped_by for c in trainer.callbacks if isinstance(c, Checkpoints))
    return Outcome(trainer.global_step, stopped_by, metrics.latest)


def build_module(settings: Training, gpt: GPT, tokenizer: Tokenizer) -> GPTModule:
    """The LightningModule, which knows what a checkpoint must hold to become a model again."""
    metadata = {"shape": gpt.shape.as_dict(), "tokenizer": tokenizer.to_json(), "generation": settings.generation}
    metadata["training"] = {key: of(settings) for key, of in KEPT.items()}
    trainer = settings.trainer
    options = {"seed": settings.seed, "clip_norm": trainer.clip_norm, "compile": trainer.compile}
    return GPTModule(gpt, settings.optim, settings.schedule, metadata=metadata, **options)


def build_data(settings: Training, shards: Path) -> ShardsDataModule:
    """train/ and valid/ of a folder of shards; UserError where they do not fill one window."""
    train, valid, n_ctx = Shards(shards / "train"), Shards(shards / "valid"), settings.shape.n_ctx
    if train.tokens <= n_ctx:
        raise UserError(f"{shards / 'train'} holds {train.tokens} tokens, and one window needs {n_ctx + 1}: more text is needed")
    validation = settings.callbacks.validation
    options = {"num_workers": settings.trainer.num_workers, "valid_windows": validation.windows, "valid_every": validation.every}
    return ShardsDataModule(train, valid, n_ctx, seed=settings.seed, **options, **settings.batch())


def build_trainer(settings: Training, chosen: list[pl.Callback], folder: Path) -> pl.Trainer:
    """Lightning's Trainer with its own checkpoints, summaries, samplers and sanity runs off: they are ours, or not wanted."""
    strategy = strategies.build(settings.trainer)
    return pl.Trainer(
        **strategy.trainer_arguments(settings.trainer),
        strategy=strategy,
        plugins=strategy.plugins(),
        max_steps=settings.max_steps,
        max_epochs=-1,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        callbacks=chosen,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )


def describe(settings: Training, strategy: Strategy, first_step: int) -> str:
    """One line: where it runs and how a step is divided. ConfigError where it does not divide."""
    n_ctx, trainer = settings.shape.n_ctx, settings.trainer
    devices = strategy.world_size * strategy.devices_per_process
    batches = divide(n_ctx=n_ctx, world=devices // trainer.tensor_parallel, **settings.batch())
    where = f"{devices} x {trainer.accelerator}" if devices > 1 else trainer.accelerator
    resumed = f"; goes on from step {first_step}" if first_step else ""
    return (
        f"on {where}, {trainer.precision}, a step reads {batches.windows} windows of {n_ctx} tokens"
        f" (micro-batch {batches.micro}, accumulated {batches.accumulate} times){resumed}"
    )
