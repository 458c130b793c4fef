"""What each filter keeps, and that a draw follows the probabilities."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from cngpt.errors import ConfigError
from cngpt.generation import Sampling, saved_defaults
from cngpt.generation.sampling import choose, draw, generator, repetition_penalty, top_k, top_p
from tests.conftest import ROOT

NOTHING = torch.zeros(5, dtype=torch.bool)


def logits_of(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities]).log()


def kept(logits: torch.Tensor) -> list[int]:
    return torch.where(logits[0] > -math.inf)[0].tolist()


def test_the_nucleus_keeps_the_token_that_crosses_p_and_gpt2mls_drops_it():
    logits = logits_of(0.1, 0.4, 0.2, 0.3)
    assert kept(top_p(logits, 0.8)) == [1, 2, 3]
    assert kept(top_p(logits, 0.8, keep_crossing=False)) == [1, 3]


def test_the_likeliest_token_stays_whatever_p_is():
    for keep_crossing in (True, False):
        assert kept(top_p(logits_of(0.1, 0.6, 0.3), 0.0, keep_crossing)) == [1]
        assert kept(top_p(logits_of(0.1, 0.6, 0.3), 0.5, keep_crossing)) == [1]


def test_gpt2mls_nucleus_is_the_seeds_with_the_pad_masked_before_sorting(shared):
    golden = np.load(shared("golden/topp_masks.npz"))
    for logits, p, want in zip(golden["logits"], golden["p"], golden["kept"], strict=True):
        row = torch.from_numpy(logits)[None].clone()
        row[:, 0] = -math.inf
        got = top_p(row, float(p), keep_crossing=False)[0] > -math.inf
        assert torch.equal(got, torch.from_numpy(want))


def test_banned_ids_are_gone_before_the_nucleus_is_measured():
    logits = logits_of(0.6, 0.2, 0.1, 0.06, 0.04)
    banned = torch.tensor([True, False, False, False, False])
    sampling = Sampling(temperature=1.0, top_p=0.5, compat="gpt2ml")  # without id 0: 0.5, 0.25, ...
    assert {choose(logits, sampling, banned, None, [generator(s, 0, [])]).item() for s in range(50)} == {1}


def test_top_k_keeps_k_and_no_more_than_there_are():
    logits = logits_of(0.1, 0.4, 0.2, 0.3)
    assert kept(top_k(logits, 2)) == [1, 3]
    assert kept(top_k(logits, 99)) == [0, 1, 2, 3]


def test_the_repetition_penalty_makes_seen_tokens_less_likely_on_both_sides_of_zero():
    logits, seen = torch.tensor([[2.0, -2.0, 2.0, -2.0]]), torch.tensor([[True, True, False, False]])
    assert_close(repetition_penalty(logits, seen, 2.0), torch.tensor([[1.0, -4.0, 2.0, -2.0]]))


def test_temperature_zero_is_the_likeliest_and_takes_no_random_number():
    random = generator(1, 0, [])
    before = random.bit_generator.state
    got = choose(logits_of(0.1, 0.2, 0.4, 0.2, 0.1), Sampling(temperature=0.0), NOTHING, None, [random])
    assert got.tolist() == [2]
    assert random.bit_generator.state == before


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=20), st.floats(0, 1, exclude_max=True), st.data())
@settings(max_examples=200, deadline=None)
def test_a_draw_never_takes_what_was_filtered_out(values, uniform, data):
    logits = torch.tensor([values])
    out = data.draw(st.lists(st.integers(0, len(values) - 1), max_size=len(values) - 1))
    if len(set(out)) == len(values):
        out = []
    logits[0, out] = -math.inf
    assert draw(logits, [uniform]).item() not in out


def test_draws_follow_the_probabilities():
    want, n = torch.tensor([0.5, 0.0, 0.3, 0.15, 0.05]), 20_000
    random = generator(7, 0, [1, 2])
    got = draw(want.log().expand(n, -1), random.random(n).tolist()).bincount(minlength=5) / n
    assert_close(got, want, atol=0.015, rtol=0)  # four standard deviations
    assert got[1] == 0


def test_temperature_is_a_power_on_the_probabilities():
    uniform = [0.79, 0.81]  # 0.8^2 / (0.8^2 + 0.2^2) = 0.94
    assert draw(logits_of(0.8, 0.2).expand(2, -1), uniform).tolist() == [0, 1]
    assert draw(logits_of(0.8, 0.2).expand(2, -1) / 0.5, uniform).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("temperature", -0.1, "temperature=-0.1: must be 0 or more"),
        ("temperature", math.inf, "temperature=inf: must be 0 or more"),
        ("temperature", "warm", "temperature=warm: a number 0 or more is needed"),
        ("top_k", -1, "top_k=-1: must be 0 or more"),
        ("top_k", 1.5, "top_k=1.5: a whole number 0 or more is needed"),
        ("top_k", True, "top_k=true: a whole number 0 or more is needed"),
        ("top_p", 1.1, "top_p=1.1: must be from 0 to 1"),
        ("top_p", math.nan, "top_p=nan: must be from 0 to 1"),
        ("compat", "gpt2", "compat=gpt2: one of none, gpt2ml. Did you mean gpt2ml?"),
        ("min_len", 9, "min_len=9: goes with generation.compat=gpt2ml; else min_new_tokens=..."),
        ("repetition_penalty", 0, "repetition_penalty=0: must be above 0"),
        ("max_new_tokens", 0, "max_new_tokens=0: must be 1 or more"),
        ("min_new_tokens", 201, "min_new_tokens=201: must be at most max_new_tokens, 200"),
        ("seed", None, "seed=null: a whole number 0 or more is needed"),
        ("seed", -1, "seed=-1: must be 0 or more"),
    ],
)
def test_a_wrong_value_is_one_line_that_begins_with_its_key(key, value, line):
    with pytest.raises(ConfigError) as caught:
        Sampling(**{key: value})
    assert str(caught.value) == f"generation.{line}"


@pytest.mark.parametrize(
    ("tried", "key"),
    [("length", "max_new_tokens"), ("temp", "temperature"), ("penalty", "repetition_penalty"), ("topp", "top_p")],
)
def test_a_word_that_people_try_is_answered_with_the_key(tried, key):
    with pytest.raises(ConfigError, match=rf"^generation\.{tried}: no such key; .* Did you mean (generation\.)?{key}\?$"):
        Sampling(**{tried: 1})


@pytest.mark.parametrize("key", ["nucleus", "stop", "join"])
def test_a_key_of_earlier_versions_names_its_successor(key):
    with pytest.raises(ConfigError, match=rf"^generation\.{key}: .*generation\.compat=gpt2ml$"):
        Sampling(**{key: "gpt2ml"})


@pytest.mark.parametrize(
    ("nucleus", "stop", "join", "compat"),
    [
        ("usual", "usual", "usual", "none"),
        ("gpt2ml", "gpt2ml", "gpt2ml", "gpt2ml"),
        ("gpt2ml", "usual", "usual", "gpt2ml"),
        ("usual", "gpt2ml", "usual", "gpt2ml"),
        ("usual", "usual", "gpt2ml", "none"),
    ],
)
def test_what_older_versions_saved_is_read(nucleus, stop, join, compat):
    saved = {"top_p": 0.8, "nucleus": nucleus, "stop": stop, "join": join, "min_len": 0}
    assert Sampling(**saved_defaults(saved)) == Sampling(top_p=0.8, compat=compat)


def test_of_what_was_saved_nothing_is_lost():
    assert saved_defaults({}) == {}
    today = {**Sampling(compat="gpt2ml", min_len=9).model_dump(), "rerank": None}
    assert saved_defaults(today) == today
    assert saved_defaults({"stop": "gpt2ml", "min_len": 9, "topp": 1}) == {"compat": "gpt2ml", "min_len": 9, "topp": 1}
    with pytest.raises(ConfigError, match=r"^generation\.stop=gpt2: .*usual, gpt2ml"):
        saved_defaults({"stop": "gpt2"})


def test_settings_are_read_without_torch():
    code = "import sys; from cngpt.generation import Sampling; Sampling(top_p=0.5); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_keys_and_values_are_those_of_the_configuration():
    from omegaconf import OmegaConf

    default = OmegaConf.to_container(OmegaConf.load(ROOT / "conf/generation/default.yaml"))
    assert {**Sampling().model_dump(), "rerank": None} == default
