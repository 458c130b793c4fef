"""Fixtures that many rooms share."""

import os
from pathlib import Path

import pytest
import torch

from cngpt.model.gpt import GPT
from cngpt.model.shape import Shape
from cngpt.tokens import Tokenizer

torch.set_num_threads(1)  # tiny models on busy machines: a second thread waits more than it works
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared():
    """Corpora, golden files and vocabularies that stay outside the repository: $CNGPT_SHARED, else ../shared."""
    folder = Path(os.environ.get("CNGPT_SHARED", ROOT.parent / "shared"))

    def path(inside: str) -> Path:
        if not (folder / inside).exists():
            pytest.skip(f"{inside} is not here (set CNGPT_SHARED to the folder that holds it)")
        return folder / inside

    return path


def tiny_shape(block="preln", **changes) -> Shape:
    return Shape(**{"block": block, "vocab_size": 64, "n_ctx": 32, "n_layer": 2, "n_head": 2, "width": 16, **changes})


def tiny_tokenizer(vocab_size=64, manner="hf") -> Tokenizer:
    """[PAD] [UNK] [CLS] [SEP] [MASK] and the line end, then letters (alone and as ##x) and Chinese characters."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\n", *"abcdefgh", *(f"##{c}" for c in "abcdefgh"), *"，。"]
    tokens += [chr(0x4E00 + n) for n in range(vocab_size - len(tokens))]
    return Tokenizer.from_vocab(tokens, name="tiny", manner=manner, lowercase=False)


@pytest.fixture(params=["preln", "gpt2ml"])
def gpt(request) -> GPT:
    """A tiny random model of either block, in eval mode."""
    torch.manual_seed(0)
    model = GPT(tiny_shape(request.param)).init_weights()
    for p in model.parameters():  # zero biases and unit norms would hide a missing or doubled one
        p.data += 0.1 * torch.randn_like(p)
    return model.eval()
