"""The Python face: small, lazy, and enough to go from a file to a text."""

import subprocess
import sys
import tomllib

import pytest
import torch

import cngpt
from cngpt import checkpoints
from cngpt.errors import ConfigError
from cngpt.model.gpt import GPT
from tests.conftest import ROOT, tiny_shape


def test_importing_cngpt_imports_nothing_heavy():
    code = "import sys, cngpt; sys.exit(bool({'torch', 'numpy', 'tokenizers', 'hydra'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_from_a_file_to_a_text_with_the_bundled_tokenizer(tmp_path):
    tokenizer = cngpt.load_tokenizer("hanzi")
    torch.manual_seed(0)
    checkpoints.save(tmp_path / "model", GPT(tiny_shape(vocab_size=tokenizer.vocab_size)).init_weights(), tokenizer)

    gpt, tokenizer = cngpt.load(tmp_path / "model")
    texts = cngpt.generate(gpt, tokenizer, ["双十一", "天气"], n=2, max_new_tokens=12, top_p=0.95, seed=3)
    assert [text[:2] for text in texts] == ["双十", "双十", "天气", "天气"]
    assert len(set(texts)) == 4
    assert cngpt.generate(gpt, tokenizer, "双十一", max_new_tokens=12, top_p=0.95, seed=3) == texts[:1]

    ids = torch.from_numpy(tokenizer.encode("双十一")).long()[None]
    assert gpt(ids).shape == (1, 3, tokenizer.vocab_size)


def test_a_wrong_setting_is_named_before_anything_is_computed():
    with pytest.raises(ConfigError, match=r"top_p=9"):
        cngpt.generate(None, None, ["双十一"], top_p=9)


def test_the_version_is_that_of_the_package():
    assert cngpt.__version__ == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
