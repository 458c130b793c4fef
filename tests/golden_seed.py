"""The seed's tiny golden checkpoint as our tensors: an uncompressed TensorFlow bundle lies in the order of its names."""

import json
from pathlib import Path

import numpy as np
import torch

from cngpt.model import GPT, Shape

SIZES = {"float32": 4, "int64": 8}


def variables(golden: Path) -> dict[str, np.ndarray]:
    """Name -> array, slots and global_step included."""
    data, found, offset = (golden / "ckpt/model.ckpt-5.data-00000-of-00001").read_bytes(), {}, 0
    listed = json.loads(
        (golden / "ckpt/ckpt_variables.json").read_text()
        if (golden / "ckpt/ckpt_variables.json").exists()
        else (golden / "ckpt_variables.json").read_text()
    )
    for v in sorted(listed, key=lambda v: v["name"]):
        count = int(np.prod(v["shape"], dtype=int))
        found[v["name"]] = np.frombuffer(data, v["dtype"], count, offset).reshape(v["shape"])
        offset += count * SIZES[v["dtype"]]
    assert offset == len(data)
    return found


def our_tensor(name: str, seed: dict[str, np.ndarray], slot: str = "") -> np.ndarray | None:
    """The seed's array for one of our parameter names, in our layout (kernels transposed, q k v joined)."""
    top = {"tok.weight": "embeddings/word_embed", "pos.weight": "embeddings/pos_embed"}
    top |= {"ln_embed.weight": "embeddings/LayerNorm_embed_norm/gamma", "ln_embed.bias": "embeddings/LayerNorm_embed_norm/beta"}
    if name in top:
        return seed["newslm/" + top[name]]
    _, layer, *rest, kind = name.split(".")
    place = f"newslm/layer{int(layer):02d}/"
    if rest[0] in ("ln0", "ln1"):
        return seed[f"{place}LayerNorm_mlp_{rest[0]}/{'gamma' if kind == 'weight' else 'beta'}"]
    names = {
        "qkv": ["query_layer", "key_layer", "value_layer"],
        "out": ["context_projection_layer"],
        "up": ["intermediate"],
        "down": ["output"],
    }
    arrays = [seed[f"{place}{n}/{'kernel' if kind == 'weight' else 'bias'}"] for n in names[rest[-1]]]
    return np.concatenate([a.T for a in arrays]) if kind == "weight" else np.concatenate(arrays)


def load_seed_model(golden: Path) -> GPT:
    """The golden checkpoint in our `Gpt2ml` blocks, dropout off."""
    c = json.loads((golden / "tiny_config.json").read_text())
    gpt = GPT(
        Shape(
            "gpt2ml",
            c["vocab_size"],
            c["max_position_embeddings"],
            c["num_hidden_layers"],
            c["num_attention_heads"],
            c["hidden_size"],
        )
    ).init_weights()
    seed = variables(golden)
    with torch.no_grad():
        for name, p in gpt.named_parameters():
            value = torch.from_numpy(our_tensor(name, seed).copy())
            p[: len(value)] = value
    return gpt.eval()
