"""The planner's memory against the real model: names and shapes, states, and every byte that autograd saves."""

import contextlib
import math

import pytest
import torch

from cngpt.model import GPT, Shape
from cngpt.plan import tensors
from cngpt.plan.memory import activations, autocast_copies, memory, states
from cngpt.plan.setup import Setup
from cngpt.training import optim
from cngpt.training.module import next_token_loss

BLOCKS = ("preln", "gpt2ml")
OPTIMIZERS = {
    "adamw": {"lr": 1e-3, "weight_decay": 0.1, "betas": [0.9, 0.95], "eps": 1e-8},
    "adafactor": {"lr": 1e-2, "weight_decay": 0.1, "beta2_decay": -0.8, "clip_update": 1.0},
    "gpt2ml_adafactor": {"lr": 1e-3, "weight_decay": 0.01, "beta2": 0.999, "clip_update": 1.0},
}


def model_of(block: str, dropout: float = 0.0, vocab_size: int = 1000) -> dict:
    return {"block": block, "vocab_size": vocab_size, "n_ctx": 64, "n_layer": 3, "n_head": 4, "width": 128, "dropout": dropout}


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
    model = model_of(block)
    assert tensors.shapes(**model) == {k: tuple(v.shape) for k, v in GPT(Shape(**model)).state_dict().items()}


@pytest.mark.parametrize("checkpointing", (False, True), ids=("", "checkpointing"))
@pytest.mark.parametrize("dropout", (0.0, 0.1))
@pytest.mark.parametrize("precision", ("32-true", "bf16-mixed", "bf16-true"))
@pytest.mark.parametrize("block", BLOCKS)
def test_saved_activations_are_what_autograd_saves(block, precision, dropout, checkpointing):
    model = model_of(block, dropout)
    setup = Setup(model=model, precision=precision, micro=2, activation_checkpointing=checkpointing)
    gpt = GPT(Shape(**model)).init_weights().train()
    gpt.activation_checkpointing = checkpointing
    if precision == "bf16-true":
        gpt = gpt.bfloat16()
    ids, targets = torch.randint(model["vocab_size"], (2, 2, 64))[:, :, :].clone(), torch.randint(model["vocab_size"], (2, 64))
    predicted = activations(setup) + autocast_copies(setup).kept + 4 * setup.tokens * model["vocab_size"]
    assert predicted == pytest.approx(saved_bytes(gpt, ids[0].clone(), targets, precision), rel=0.01)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("block", BLOCKS)
def test_weights_gradients_and_optimizer_are_exact(block, name):
    model = model_of(block)
    gpt = GPT(Shape(**model)).init_weights()
    optimizer = optim.build(gpt, name, **OPTIMIZERS[name])
    next_token_loss(gpt(torch.randint(1000, (1, 64))), torch.randint(1000, (1, 64))).backward()
    optimizer.step()
    state = [v for s in optimizer.state.values() for v in s.values() if torch.is_tensor(v)]
    made = (
        sum(p.nbytes for p in gpt.parameters()),
        sum(p.grad.nbytes for p in gpt.parameters()),
        sum(v.numel() * v.element_size() for v in state),
    )
    assert states(Setup(model=model, optimizer=name)) == made


@pytest.mark.parametrize("strategy", ("fsdp", "deepspeed_zero3"))
def test_shards_are_a_share_of_the_whole(strategy):
    alone = states(Setup(model=model_of("preln")))
    shared = states(Setup(model=model_of("preln"), strategy=strategy, devices=8, accelerator="gpu"))
    assert sum(shared) == pytest.approx(sum(alone) / 8, rel=0.02)


def test_each_saving_measure_saves():
    big = Setup(
        model=model_of("preln") | {"n_layer": 24, "width": 1024, "n_ctx": 1024},
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
