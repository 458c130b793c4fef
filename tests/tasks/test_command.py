"""What a configuration means to a task, where several sources of one value meet."""

from pathlib import Path

import pytest

from cngpt.checkpoints import Header
from cngpt.errors import ConfigError
from cngpt.generation import Sampling
from cngpt.hosts import worker_in
from cngpt.tasks.command import typed_as
from cngpt.tasks.convert import name_for
from cngpt.tasks.starting_point import sampling_of
from tests.commands import command


def chosen(saved: dict, *words: str) -> Sampling:
    """How a model that was saved with these defaults is sampled after `python run.py task=generate <words>`."""
    header = Header("model", Path("m"), {}, None, None, saved, {})
    return Sampling(**sampling_of(command("task=generate", *words), header))


def test_sampling_is_as_typed_else_as_the_model_says_else_the_default():
    default = Sampling()
    assert chosen({"top_p": 0.5}).top_p == 0.5
    assert chosen({"top_p": 0.5}, "generation.top_p=0.7").top_p == 0.7
    assert chosen({"top_p": 0.5}, "generation=greedy").top_p == 1.0
    assert chosen({"rerank": "elsewhere", "unheard_of": 1}) == default


def test_a_model_of_before_compat_is_sampled_as_it_was():
    assert chosen({"nucleus": "gpt2ml", "stop": "gpt2ml", "join": "gpt2ml", "min_len": 9}).as_gpt2ml
    assert chosen({"nucleus": "usual", "stop": "usual", "join": "usual"}) == Sampling()


def test_a_limit_that_nobody_typed_gives_way():
    assert chosen({"min_new_tokens": 100}, "generation.max_new_tokens=50").min_new_tokens == 50
    with pytest.raises(ConfigError, match=r"min_new_tokens=100"):
        chosen({}, "generation.max_new_tokens=50", "generation.min_new_tokens=100")
    assert chosen({"compat": "gpt2ml", "min_len": 1024}, "generation.compat=none").min_len == 0
    assert chosen({}, "generation=gpt2ml", "generation.compat=none").min_len == 0


@pytest.mark.parametrize(
    "path", ["m/model.ckpt-7", "m/model.ckpt-7.index", "m/model.ckpt-7.meta", "m/model.ckpt-7.data-00000-of-00001"]
)
def test_a_checkpoint_is_called_by_its_prefix(path):
    assert name_for(Path(path)) == "model.ckpt-7"


def test_what_is_printed_can_be_typed():
    assert typed_as("ckpt", "models/a-1") == "ckpt=models/a-1"
    assert typed_as("ckpt", "models/模 型") == """'ckpt="models/模 型"'"""


def test_a_host_of_a_tpu_slice_finds_its_number_in_the_metadata():
    assert worker_in("ACCELERATOR_TYPE: 'v3-256'\nWORKER_ID: '13'\nZONE: 'x'\n") == 13
    assert worker_in("nothing of the kind") == 0
