"""The seed's tiny golden checkpoint as our model, and its recorded arrays in our layout."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from cngpt.interop.gpt2ml import mapping
from cngpt.interop.gpt2ml.bundle import Bundle
from cngpt.interop.gpt2ml.sizes import SIZES
from cngpt.model.gpt import GPT
from cngpt.model.shape import Shape


def seed_shape(golden: Path) -> Shape:
    c = json.loads((golden / "tiny_config.json").read_text())
    return Shape(block="gpt2ml", **{ours: c[key] for key, ours in SIZES.items()})


def our_tensors(shape: Shape, recorded: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Recorded arrays under the seed's names as tensors under ours."""
    return {name: torch.from_numpy(array.copy()) for name, array in mapping.tensors(shape, recorded.__getitem__)}


def load_seed_model(golden: Path) -> GPT:
    """The golden checkpoint in our `Gpt2ml` blocks, dropout off."""
    gpt = GPT(seed_shape(golden)).init_weights()
    bundle = Bundle.open(golden / "ckpt/model.ckpt-5")
    with torch.no_grad():
        for name, value in mapping.tensors(gpt.shape, bundle.read):
            gpt.get_parameter(name)[: len(value)] = torch.from_numpy(value.copy())
    return gpt.eval()


def write_vocab(path: Path, entries: int = 300) -> Path:
    """A vocab.txt for the golden checkpoint, which has none of its own."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "。", *"abcdefgh", *(f"##{c}" for c in "abcdefgh")]
    tokens += [chr(0x4E00 + n) for n in range(entries - len(tokens))]
    path.write_text("".join(token + "\n" for token in tokens), encoding="utf-8")
    return path


def as_training_checkpoint(golden: Path, folder: Path, source: str = "ckpt") -> Path:
    """The golden checkpoint converted with its optimizer's state: the run directory."""
    from cngpt.interop.gpt2ml.convert import convert

    vocab = write_vocab(folder / "vocab.txt")
    convert(golden / source, folder / "run", vocab=str(vocab), config=golden / "tiny_config.json", optimizer=True)
    return folder / "run"
