"""What a configuration means to a task, where several sources of one value meet."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from cngpt.errors import ConfigError
from cngpt.generation import Sampling
from cngpt.tasks.inputs import generation_of, memory_of, name_for, typed_as
from tests.conftest import ROOT

DEFAULT = OmegaConf.to_container(OmegaConf.load(ROOT / "conf/generation/default.yaml"))


def chosen(typed: dict, own: dict, **group) -> Sampling:
    cfg = OmegaConf.create({"generation": {**DEFAULT, **group, **typed}})
    names = {f"generation.{key}" for key in typed} | ({"generation"} if group else set())
    return Sampling(**generation_of(cfg, names, {"generation": own}))


def test_sampling_is_as_typed_else_as_the_model_says_else_the_default():
    assert chosen({}, {"top_p": 0.5}).top_p == 0.5
    assert chosen({"top_p": 0.7}, {"top_p": 0.5}).top_p == 0.7
    assert chosen({}, {"top_p": 0.5}, temperature=0.0).top_p == DEFAULT["top_p"]
    assert chosen({}, {"rerank": "elsewhere", "unheard_of": 1}) == Sampling(**{k: v for k, v in DEFAULT.items() if k != "rerank"})


def test_a_limit_that_nobody_typed_gives_way():
    assert chosen({"max_new_tokens": 50}, {"min_new_tokens": 100}).min_new_tokens == 50
    with pytest.raises(ConfigError, match=r"min_new_tokens=100"):
        chosen({"max_new_tokens": 50, "min_new_tokens": 100}, {})
    seeds = json.loads(json.dumps(OmegaConf.to_container(OmegaConf.load(ROOT / "conf/generation/gpt2ml.yaml"))))
    seeds.pop("defaults")
    assert chosen({"stop": "usual"}, {}, **seeds).min_len == 0


@pytest.mark.parametrize(
    "path", ["m/model.ckpt-7", "m/model.ckpt-7.index", "m/model.ckpt-7.meta", "m/model.ckpt-7.data-00000-of-00001"]
)
def test_a_checkpoint_is_called_by_its_prefix(path):
    assert name_for(Path(path)) == "model.ckpt-7"


def test_what_is_printed_can_be_typed():
    assert typed_as("ckpt", "models/a-1") == "ckpt=models/a-1"
    assert typed_as("ckpt", "models/模 型") == """'ckpt="models/模 型"'"""


def test_memory_is_an_amount():
    assert memory_of("8GB") == 8_000_000_000 and memory_of("500M") == 500_000_000 and memory_of(10**9) == 10**9
    for wrong in ("8 gallons", "1MB", "-1GB", ""):
        with pytest.raises(ConfigError, match=r"prepare\.memory="):
            memory_of(wrong)


def test_a_host_of_a_tpu_slice_finds_its_number_in_the_metadata():
    from cngpt.tasks.inputs import worker_in

    assert worker_in("ACCELERATOR_TYPE: 'v3-256'\nWORKER_ID: '13'\nZONE: 'x'\n") == 13
    assert worker_in("nothing of the kind") == 0
