"""From settings to a finished run: model, data, strategy, loggers and callbacks put together, trained, saved."""

import contextlib
import ctypes
import logging
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from cngpt import page, store
from cngpt.errors import UserError
from cngpt.model import GPT, Shape
from cngpt.plan.flops import flops_per_token
from cngpt.tokens import Tokenizer
from cngpt.tokens.order import divide
from cngpt.tokens.shards import Shards
from cngpt.training import callbacks, strategies, tracking
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
    quiet()
    first_step = 0
    if resume:
        store.verify_checkpoint(resume)
        first_step = store.header(resume)["step"]
    trainer_settings, every = settings["trainer"], settings["callbacks"]
    if trainer_settings["accelerator"] == "cpu":
        keep_freed_memory()
    train, valid = Shards(shards / "train"), Shards(shards / "valid")
    torch.manual_seed(settings["seed"])
    gpt = GPT(Shape(**settings["model"])).init_weights()
    if init:
        gpt.load_state_dict(store.load(init)[0].state_dict())
    gpt.activation_checkpointing = trainer_settings["activation_checkpointing"]
    shape = gpt.shape
    if train.tokens <= shape.n_ctx:
        raise UserError(
            f"{shards / 'train'} holds {train.tokens} tokens, and one window needs {shape.n_ctx + 1}: more text is needed"
        )
    about = {"shape": shape.as_dict(), "tokenizer": tokenizer.to_json(), "generation": settings["generation"]}
    about["training"] = {key: pick(settings, key) for key in KEPT}
    module = Module(gpt, settings["optim"], settings["schedule"], settings["seed"], trainer_settings["clip_norm"], about)
    module.sharded, module.compiled = trainer_settings["strategy"] == "fsdp", trainer_settings["compile"]

    stopwatch = Stopwatch()
    metrics = callbacks.Metrics(
        every["log_every"],
        settings["tokens_per_step"],
        flops_per_token(**shape.as_dict()),
        valid.tokens / max(1, valid.characters),
        stopwatch,
    )
    progress = callbacks.Progress(metrics)
    checkpoints = callbacks.Checkpoints(
        folder / "checkpoints", every["checkpoint"]["every"], every["checkpoint"]["keep"], stopwatch
    )
    samples = callbacks.Samples(
        folder / "samples.jsonl", tokenizer, every["samples"]["prompts"], every["samples"]["every"], every["samples"]["new_tokens"],
        settings["generation"], progress, stopwatch,
    )  # fmt: skip
    loggers = [tracking.MetricsCSV(folder / "metrics.csv", first_step)]
    if settings["logger"]["name"] == "wandb":
        loggers.append(tracking.wandb_logger(folder, settings["name"], settings["logger"], settings))
    trainer = pl.Trainer(
        accelerator=trainer_settings["accelerator"],
        devices=trainer_settings["devices"],
        num_nodes=trainer_settings["num_nodes"],
        strategy=strategies.build(trainer_settings),
        precision=trainer_settings["precision"],
        max_steps=settings["max_steps"],
        max_epochs=-1,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=loggers,
        callbacks=[metrics, samples, checkpoints, progress],
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    batch = {k: trainer_settings[k] for k in ("micro_batch", "micro_batch_tokens")} | {
        "tokens_per_step": settings["tokens_per_step"]
    }
    plan = divide(n_ctx=shape.n_ctx, world=trainer.world_size, **batch)
    if trainer.is_global_zero:
        place = (
            f"{trainer.world_size} x {trainer_settings['accelerator']}"
            if trainer.world_size > 1
            else trainer_settings["accelerator"]
        )
        print(
            f"on {place}, {trainer_settings['precision']}, a step reads {plan.windows} windows of {shape.n_ctx} tokens"
            f" (micro-batch {plan.micro}, accumulated {plan.accumulate} times)"
            + (f"; goes on from step {first_step}" if resume else ""),
            file=sys.stderr,
        )
    data = ShardsDataModule(
        train, valid, shape.n_ctx, seed=settings["seed"], num_workers=trainer_settings["num_workers"],
        valid_windows=every["validation"]["windows"], valid_every=every["validation"]["every"], **batch,
    )  # fmt: skip
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
        step = trainer.global_step
        if checkpoints.stopped_by is None:
            if step % every["validation"]["every"]:
                trainer.validate(module, datamodule=data, verbose=False)
            save_model(trainer, module, tokenizer, settings["generation"], folder / "model")
        if trainer.is_global_zero:
            page.loss_curve(tracking.read_metrics(folder / "metrics.csv"), folder / "loss.svg", title=settings["name"])
    finally:
        tracking.close(loggers)
    return Outcome(step, checkpoints.stopped_by, metrics.latest)


def pick(settings: dict, key: str):
    """settings["optim"]["name"] for "optim.name"."""
    for part in key.split("."):
        settings = settings[part]
    return settings


class Module(GPTModule):
    """The module with what the chosen strategy asks of it."""

    sharded = compiled = False

    def configure_model(self) -> None:
        if self.sharded and not getattr(self, "_is_sharded", False):
            strategies.shard(self)
            self._is_sharded = True
        if self.compiled and self.gpt._compiled_call_impl is None:
            self.gpt.compile()  # in place: wrapping would rename every key to _orig_mod.*


def save_model(trainer: pl.Trainer, module: GPTModule, tokenizer: Tokenizer, generation: dict, folder: Path) -> None:
    """The model directory of a finished run; every rank must call it."""
    # gathers sharded weights tensor by tensor, to the first rank's memory alone
    whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = get_model_state_dict(module.gpt, options=whole)
    if trainer.is_global_zero:
        gpt = GPT(module.gpt.shape)
        gpt.load_state_dict(state)
        store.save(folder, gpt, tokenizer, generation, overwrite=True, step=trainer.global_step)
    trainer.strategy.barrier("model")


def keep_freed_memory() -> None:
    """Lets glibc keep large blocks that were freed. By default it hands each back to the system and gets it again, zeroed
    page by page, many times a step: on 2 CPU cores `tiny` went from 15.8 to 20.0 thousand tokens/s in bf16."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block is a mapping of its own
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap's end is never given back


def quiet() -> None:
    """Lightning's tips and banners are for people who wrote the Trainer call."""
    for name in ("pytorch_lightning", "lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in (
        ".*does not have many workers.*",
        ".*LeafSpec.*",
        ".*IterableDataset.*__len__.*",
        ".*Checkpoint directory.*",
        ".*returned a view tensor.*",  # FSDP2, of our logits without their padding columns; nothing changes them in place
    ):
        warnings.filterwarnings("ignore", message=text)
