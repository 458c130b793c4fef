"""The seed's Adafactor and schedule against numbers recorded from its own code; the shapes of the other schedules."""

import copy
import json

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from cngpt.interop.gpt2ml import mapping
from cngpt.model.gpt import GPT
from cngpt.model.shape import Shape
from cngpt.training import schedule
from cngpt.training.module import next_token_loss
from cngpt.training.optim import build
from cngpt.training.settings import Adafactor, AdamW, Gpt2mlAdafactor
from tests.conftest import tiny_shape
from tests.golden_seed import as_training_checkpoint, our_tensors


@pytest.fixture(scope="module")
def golden(shared):
    return shared("golden")


@pytest.fixture(scope="module", params=["ckpt", "ckpt_snappy"])
def checkpoint(golden, tmp_path_factory, request) -> dict:
    """The seed's checkpoint at step 5, converted with the state of its optimizer."""
    run = as_training_checkpoint(golden, tmp_path_factory.mktemp("run"), request.param)
    return torch.load(run / "checkpoints/step_00000005.ckpt", weights_only=True)


def resumed(checkpoint: dict, lr: float):
    """The model, dropout off, and its optimizer, as a resumed run has them."""
    gpt = GPT(Shape(**checkpoint["cngpt"]["shape"])).eval()
    gpt.load_state_dict({name.removeprefix("gpt."): tensor for name, tensor in checkpoint["state_dict"].items()})
    optimizer = build(gpt, Gpt2mlAdafactor(lr=max(lr, 1e-12), weight_decay=0.01))
    optimizer.load_state_dict(copy.deepcopy(checkpoint["optimizer_states"][0]))  # it would share its tensors with the file's
    for group in optimizer.param_groups:
        group["lr"] = lr
    return gpt, optimizer


def test_one_step_of_the_seeds_adafactor_from_its_own_slots_is_the_seeds(golden, checkpoint):
    recorded, lr = np.load(golden / "train_steps.npz"), json.loads((golden / "train_steps.json").read_text())["record"]["lr"][5]
    gpt, optimizer = resumed(checkpoint, lr)
    batch = torch.from_numpy(recorded["batches"][5]).long()
    next_token_loss(gpt(batch[:, :-1]), batch[:, 1:].where(batch[:, 1:] != 0, -100)).backward()
    optimizer.step()
    after = {k.removeprefix("after6/"): recorded[k] for k in recorded.files if k.startswith("after6/")}
    want = our_tensors(gpt.shape, after)
    for name, p in gpt.named_parameters():
        compare(name, p.detach()[: len(want[name])], want[name])
        slots = {key: torch.from_numpy(array.copy()) for key, array in mapping.slots(name, after.__getitem__).items()}
        assert slots.keys() == optimizer.state[p].keys()
        for key, slot in slots.items():
            if not (name.endswith("qkv.bias") and key == "square_1"):  # of the key bias
                assert_close(optimizer.state[p][key], slot, atol=1e-6, rtol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


def compare(name: str, got: torch.Tensor, want: torch.Tensor) -> None:
    """To 1e-6; a key bias has no true gradient: the seed's is rounding noise, blown up."""
    if name.endswith("qkv.bias"):
        third = len(want) // 3
        got, want = (torch.cat([t[:third], t[2 * third :]]) for t in (got, want))
    assert_close(got, want, atol=1e-6, rtol=1e-6, msg=lambda m: f"{name}: {m}")


def test_three_more_steps_lose_what_the_seed_lost(golden, checkpoint):
    recorded, record = np.load(golden / "train_steps.npz"), json.loads((golden / "train_steps.json").read_text())["record"]
    gpt, optimizer = resumed(checkpoint, 0.0)
    for step in (5, 6, 7):
        batch = torch.from_numpy(recorded["batches"][step]).long()
        loss = next_token_loss(gpt(batch[:, :-1]), batch[:, 1:].where(batch[:, 1:] != 0, -100))
        assert loss.item() == pytest.approx(record["loss"][step], abs=2e-5)
        for group in optimizer.param_groups:
            group["lr"] = record["lr"][step]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = {k.removeprefix("after8/"): recorded[k] for k in recorded.files if k.startswith("after8/")}
    for name, p in gpt.named_parameters():
        if all(variable in after for variable in mapping.names_of(name)) and not name.endswith("qkv.bias"):
            (variable,) = mapping.names_of(name)
            assert_close(p.detach(), torch.from_numpy(after[variable].copy()), atol=2e-5, rtol=1e-4)


def test_the_seeds_learning_rates_are_the_seeds(shared):
    for case in json.loads(shared("golden/lr_schedule.json").read_text()).values():
        curve = schedule.Gpt2ml(warmup_steps=case["num_warmup_steps"], total_steps=case["num_train_steps"])
        for step, want in case["step_lr"]:
            factor = curve.factor(step)
            assert case["learning_rate"] * factor == pytest.approx(want, rel=2e-6, abs=1e-12)


@pytest.mark.parametrize("curve", [schedule.Cosine, schedule.Linear, schedule.Wsd])
def test_schedules_rise_to_one_and_come_down(curve):
    factors = [curve(warmup_steps=10, total_steps=100).factor(step) for step in range(130)]
    assert factors[0] > 0 and max(factors) == 1.0 and factors[10] == 1.0
    assert factors[:11] == sorted(factors[:11]) and factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[100] == factors[129] == (pytest.approx(0.1) if curve is schedule.Cosine else 0.0)


def test_decay_groups_hold_matrices_and_nothing_else():
    gpt = GPT(tiny_shape())
    for settings in (
        AdamW(lr=1e-3, weight_decay=0.1),
        Adafactor(lr=1e-3, weight_decay=0.1),
        Gpt2mlAdafactor(lr=1e-3, weight_decay=0.1),
    ):
        decayed, plain = build(gpt, settings).param_groups
        assert {p.ndim for p in decayed["params"]} == {2} and {p.ndim for p in plain["params"]} == {1}
        assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
