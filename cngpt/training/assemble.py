"""A training checkpoint made of parts: what Lightning would have written, had the steps before been done here."""

import logging
import warnings
from collections.abc import Callable

import pytorch_lightning as pl
from torch import Tensor

from cngpt.checkpoints.load import without_memory
from cngpt.checkpoints.training_checkpoint import HEADER, PREFIX
from cngpt.model.shape import Shape
from cngpt.training import optim
from cngpt.training.module import with_schedule
from cngpt.training.schedule import Schedule
from cngpt.training.settings import Optimizer


def assemble(
    shape: Shape,
    weights: dict[str, Tensor],
    slots: Callable[[str], dict[str, Tensor]],
    optimizer: Optimizer,
    schedule: Schedule,
    step: int,
    metadata: dict,
) -> dict:
    """What torch.save writes as step_<step>.ckpt.

    weights: as `GPT.state_dict()` names them, padding rows included. slots: what the optimizer keeps for one of them.
    metadata: see GPTModule.
    """
    gpt = without_memory(shape)
    made = with_schedule(optim.build(gpt, optimizer), schedule)
    names = {id(p): name for name, p in gpt.named_parameters()}
    state = made["optimizer"].state_dict()
    order = [p for group in made["optimizer"].param_groups for p in group["params"]]  # the numbers that state_dict gives them
    state["state"] = {n: slots(names[id(p)]) for n, p in enumerate(order)}
    scheduler = made["lr_scheduler"]["scheduler"]
    scheduler.last_epoch, scheduler._step_count = step, step + 1
    return {
        "epoch": 0,
        "global_step": step,
        "pytorch-lightning_version": pl.__version__,
        "state_dict": {PREFIX + name: tensor for name, tensor in weights.items()},
        "loops": loops(step),
        "callbacks": {},
        "optimizer_states": [state],
        "lr_schedulers": [scheduler.state_dict()],
        HEADER: {**metadata, "step": step},
    }


def loops(step: int) -> dict:
    """Lightning's own counters, as they stand after `step` optimizer steps."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(accelerator="cpu", devices=1, max_steps=step + 1, **off)
    loop = trainer.fit_loop.epoch_loop
    progress = loop.automatic_optimization.optim_progress.optimizer
    for span in ("total", "current"):
        getattr(progress.step, span).ready = getattr(progress.step, span).completed = step
        zeroed = getattr(progress.zero_grad, span)
        zeroed.ready = zeroed.started = zeroed.completed = step
        scheduled = getattr(loop.scheduler_progress, span)
        scheduled.ready = scheduled.completed = step
    loop._batches_that_stepped = step - 1
    for span in ("total", "current"):
        epochs = getattr(trainer.fit_loop.epoch_progress, span)
        epochs.ready = epochs.started = 1
    return {"fit_loop": trainer.fit_loop.state_dict(), "validate_loop": trainer.validate_loop.state_dict()}
