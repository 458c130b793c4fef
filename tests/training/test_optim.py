"""The seed's Adafactor and schedule against numbers recorded from its own code; the shapes of the other schedules."""

import json

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from cngpt.model import GPT
from cngpt.training import schedule
from cngpt.training.module import next_token_loss
from cngpt.training.optim import build, seed_tensors
from tests.conftest import tiny_shape
from tests.golden_seed import load_seed_model, our_tensor, variables


def seed_optimizer(gpt, seed: dict, lr: float):
    """Our optimizer in the state of the golden checkpoint's own slots."""
    optimizer = build(gpt, "gpt2ml_adafactor", lr=lr, weight_decay=0.01, beta2=0.999, clip_update=1.0)
    parts = seed_tensors(gpt)
    for name, p in gpt.named_parameters():
        state = optimizer.state[p]
        for n, (first, end) in enumerate(parts.get(id(p), [[0, p.shape[0]]])):
            place = slot_name(name, n)
            if p.ndim == 2:  # the seed's kernels are (in, out), ours (out, in); its embeddings are as ours
                swap = name.startswith("blocks")
                state[f"rows_{n}"] = torch.tensor(seed[place + ("/adafactor_vc" if swap else "/adafactor_vr")])
                state[f"columns_{n}"] = torch.tensor(seed[place + ("/adafactor_vr" if swap else "/adafactor_vc")])
                assert state[f"rows_{n}"].shape == (end - first,)
            else:
                state[f"square_{n}"] = torch.tensor(seed[place + "/adafactor_v"])
    return optimizer


def slot_name(name: str, part: int) -> str:
    """The seed's variable behind part `part` of one of our parameters."""
    marker = {k: np.array([[n]] if k.endswith(("kernel", "_embed")) else [n]) for n, k in enumerate(NAMES)}
    return NAMES[our_tensor(name, marker).ravel()[part]]


NAMES: list[str] = []


@pytest.fixture
def golden(shared):
    folder = shared("golden")
    NAMES[:] = [n for n in variables(folder) if "adafactor" not in n and n != "global_step"]
    return folder


def test_one_step_of_the_seeds_adafactor_is_the_seeds(golden):
    recorded, lr = np.load(golden / "train_steps.npz"), json.loads((golden / "train_steps.json").read_text())["record"]["lr"][5]
    gpt = load_seed_model(golden)
    optimizer = seed_optimizer(gpt, variables(golden), lr)
    batch = torch.from_numpy(recorded["batches"][5]).long()
    next_token_loss(gpt(batch[:, :-1]), batch[:, 1:].where(batch[:, 1:] != 0, -100)).backward()
    optimizer.step()
    after = {k.removeprefix("after6/"): recorded[k] for k in recorded.files if k.startswith("after6/")}
    for name, p in gpt.named_parameters():
        want = torch.tensor(our_tensor(name, after))
        got = p.detach()[: len(want)].clone()
        if name.endswith("qkv.bias"):  # a key bias has no true gradient: the seed's is rounding noise, blown up
            third = len(want) // 3
            got[third : 2 * third] = want[third : 2 * third]
        assert_close(got, want, atol=1e-6, rtol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


def test_three_more_steps_lose_what_the_seed_lost(golden):
    recorded, record = np.load(golden / "train_steps.npz"), json.loads((golden / "train_steps.json").read_text())["record"]
    gpt = load_seed_model(golden)
    optimizer = seed_optimizer(gpt, variables(golden), 0.0)
    for step in (5, 6, 7):
        batch = torch.from_numpy(recorded["batches"][step]).long()
        loss = next_token_loss(gpt(batch[:, :-1]), batch[:, 1:].where(batch[:, 1:] != 0, -100))
        assert loss.item() == pytest.approx(record["loss"][step], abs=2e-5)
        for group in optimizer.param_groups:
            group["lr"] = record["lr"][step]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_the_seeds_learning_rates_are_the_seeds(shared):
    for case in json.loads(shared("golden/lr_schedule.json").read_text()).values():
        for step, want in case["step_lr"]:
            factor = schedule.gpt2ml(step, case["num_warmup_steps"], case["num_train_steps"])
            assert case["learning_rate"] * factor == pytest.approx(want, rel=2e-6, abs=1e-12)


@pytest.mark.parametrize("curve", [schedule.cosine, schedule.linear, schedule.wsd])
def test_schedules_rise_to_one_and_come_down(curve):
    factors = [curve(step, 10, 100) for step in range(130)]
    assert factors[0] > 0 and max(factors) == 1.0 and factors[10] == 1.0
    assert factors[:11] == sorted(factors[:11]) and factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[100] == factors[129] == (pytest.approx(0.1) if curve is schedule.cosine else 0.0)


def test_decay_groups_hold_matrices_and_nothing_else():
    gpt = GPT(tiny_shape())
    for name, options in (
        ("adamw", {"betas": [0.9, 0.95], "eps": 1e-8}),
        ("adafactor", {"beta2_decay": -0.8, "clip_update": 1.0}),
    ):
        decayed, plain = build(gpt, name, lr=1e-3, weight_decay=0.1, **options).param_groups
        assert {p.ndim for p in decayed["params"]} == {2} and {p.ndim for p in plain["params"]} == {1}
        assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
