"""The planner's memory against the real model: names and shapes, states, and every byte that autograd saves."""

import contextlib
import math

import pytest
import torch

from cngpt.model.gpt import GPT
from cngpt.model.shape import Shape, tensors
from cngpt.plan.memory import activations, autocast_copies, memory
from cngpt.plan.setup import Setup
from cngpt.plan.strategies import strategy_of
from cngpt.training import optim
from cngpt.training.module import next_token_loss
from cngpt.training.settings import Adafactor, AdamW, Gpt2mlAdafactor

BLOCKS = ("preln", "gpt2ml")
OPTIMIZERS = {
    "adamw": AdamW(lr=1e-3, weight_decay=0.1),
    "adafactor": Adafactor(lr=1e-2, weight_decay=0.1),
    "gpt2ml_adafactor": Gpt2mlAdafactor(lr=1e-3, weight_decay=0.01),
}


def states(setup: Setup) -> tuple[float, float, float]:
    return strategy_of(setup).states(setup)


def shape_of(block: str, **changes) -> Shape:
    return Shape(**{"block": block, "vocab_size": 1000, "n_ctx": 64, "n_layer": 3, "n_head": 4, "width": 128, **changes})


def saved_bytes(gpt: GPT, ids: torch.Tensor, targets: torch.Tensor, precision: str) -> int:
    """Bytes of all storages, each counted once, that a training step's graph holds beside the parameters."""
    parameters = {p.untyped_storage().data_ptr() for p in gpt.parameters()}
    seen, alive = {}, []

    def pack(t: torch.Tensor) -> torch.Tensor:
        alive.append(t)
        storage = t.untyped_storage()
        if storage.data_ptr() not in parameters:
            seen[storage.data_ptr()] = storage.nbytes()
        return t

    mixed = torch.autocast("cpu", torch.bfloat16) if precision == "bf16-mixed" else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), mixed:
        next_token_loss(gpt(ids), targets)
    return sum(seen.values())


@pytest.mark.parametrize("block", BLOCKS)
def test_names_and_shapes_are_the_models(block):
    shape = shape_of(block)
    assert tensors(shape) == {k: tuple(v.shape) for k, v in GPT(shape).state_dict().items()}
    assert list(tensors(shape)) == list(GPT(shape).state_dict())


@pytest.mark.parametrize("checkpointing", (False, True), ids=("", "checkpointing"))
@pytest.mark.parametrize("dropout", (0.0, 0.1))
@pytest.mark.parametrize("precision", ("32-true", "bf16-mixed", "bf16-true"))
@pytest.mark.parametrize("block", BLOCKS)
def test_saved_activations_are_what_autograd_saves(block, precision, dropout, checkpointing):
    shape = shape_of(block, dropout=dropout)
    setup = Setup(shape=shape, precision=precision, micro=2, activation_checkpointing=checkpointing)
    gpt = GPT(shape).init_weights().train()
    gpt.activation_checkpointing = checkpointing
    if precision == "bf16-true":
        gpt = gpt.bfloat16()
    ids, targets = torch.randint(shape.vocab_size, (2, 2, 64))[:, :, :].clone(), torch.randint(shape.vocab_size, (2, 64))
    predicted = activations(setup) + autocast_copies(setup).kept + 4 * setup.tokens * shape.vocab_size
    assert predicted == pytest.approx(saved_bytes(gpt, ids[0].clone(), targets, precision), rel=0.01)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("block", BLOCKS)
def test_weights_gradients_and_optimizer_are_exact(block, name):
    shape = shape_of(block)
    gpt = GPT(shape).init_weights()
    optimizer = optim.build(gpt, OPTIMIZERS[name])
    next_token_loss(gpt(torch.randint(1000, (1, 64))), torch.randint(1000, (1, 64))).backward()
    optimizer.step()
    state = [v for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    made = (
        sum(p.nbytes for p in gpt.parameters()),
        sum(p.grad.nbytes for p in gpt.parameters()),
        sum(v.numel() * v.element_size() for v in state),
    )
    assert states(Setup(shape=shape, optimizer=name)) == made


@pytest.mark.parametrize("strategy", ("fsdp", "deepspeed_zero3"))
def test_shards_are_a_share_of_the_whole(strategy):
    alone = states(Setup(shape=shape_of("preln")))
    shared = states(Setup(shape=shape_of("preln"), strategy=strategy, devices=8, accelerator="gpu"))
    assert sum(shared) == pytest.approx(sum(alone) / 8, rel=0.02)


def test_each_saving_measure_saves():
    big = Setup(
        shape=shape_of("preln", n_layer=24, width=1024, n_ctx=1024),
        accelerator="gpu",
        micro=4,
        precision="bf16-mixed",
    )
    before = memory(big).total
    for change in (
        {"activation_checkpointing": True},
        {"micro": 1},
        {"optimizer": "adafactor"},
        {"strategy": "fsdp", "devices": 8},
    ):
        from dataclasses import replace

        assert memory(replace(big, **change)).total < before, change
    assert math.isfinite(before)
