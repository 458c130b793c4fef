"""The same tiny random GPT-2 twice, in Hugging Face's code and in ours."""

import torch

from cngpt.model.gpt import GPT
from tests.conftest import tiny_shape

NAMES = {
    "wte": "tok",
    "wpe": "pos",
    "ln_f": "ln_final",
    "h": "blocks",
    "ln_1": "ln1",
    "ln_2": "ln2",
    "c_attn": "qkv",
    "c_fc": "up",
}


def hugging_face_twins():
    """(theirs, ours) with the shape of `tiny_shape`, both in eval mode."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2)).eval()
    ours = GPT(tiny_shape("preln")).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p += 0.2 * torch.randn_like(p)
        for name, p in theirs.named_parameters():
            parts = [NAMES.get(part, part) for part in name.removeprefix("transformer.").split(".")]
            if parts[-2] == "c_proj":
                parts[-2] = "out" if parts[-3] == "attn" else "down"
            target = ours.get_parameter(".".join(parts))
            value = p.T if p.ndim == 2 and parts[0] == "blocks" else p  # Conv1D keeps (in, out)
            target[: len(value)] = value
    return theirs, ours
