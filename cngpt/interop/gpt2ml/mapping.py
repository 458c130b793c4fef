"""The seed's variables and our tensors: names, layouts, and what its optimizer keeps for each.

    ours                          the seed's, under newslm/                               layout
    tok.weight, pos.weight        embeddings/{word,pos}_embed                             the same
    ln_embed.weight, .bias        embeddings/LayerNorm_embed_norm/{gamma,beta}            the same
    blocks.N.ln0, .ln1            layerNN/LayerNorm_mlp_ln0, _ln1/{gamma,beta}            the same
    blocks.N.attn.qkv             layerNN/{query,key,value}_layer/{kernel,bias}           kernels transposed, the three joined
    blocks.N.attn.out             layerNN/context_projection_layer/{kernel,bias}          kernel transposed
    blocks.N.mlp.up, .down        layerNN/{intermediate,output}/{kernel,bias}             kernel transposed

Its Adafactor keeps `<variable>/adafactor_v` for a vector, `_vr` (by row) and `_vc` (by column) for a matrix.
"""

from collections.abc import Callable, Iterator

import numpy as np

from cngpt.model.shape import Shape
from cngpt.model.shape import tensors as tensors_of

PREFIX, STEP = "newslm/", "global_step"
KERNEL = "/kernel"  # ending of the variables that are transposed in ours
SLOTS = ("/adafactor_v", "/adafactor_vr", "/adafactor_vc")
TOP = {"tok": "word_embed", "pos": "pos_embed"}
NORMS = {"ln_embed": "LayerNorm_embed_norm", "ln0": "LayerNorm_mlp_ln0", "ln1": "LayerNorm_mlp_ln1"}
DENSE = {"attn.qkv": ("query_layer", "key_layer", "value_layer"), "attn.out": ("context_projection_layer",)}
DENSE |= {"mlp.up": ("intermediate",), "mlp.down": ("output",)}


def names_of(name: str) -> list[str]:
    """The seed's variables behind one of our tensors, in the order in which they are joined."""
    module, _, kind = name.rpartition(".")
    folder = f"{PREFIX}embeddings/"
    if module.startswith("blocks."):
        _, layer, module = module.split(".", 2)
        folder = f"{PREFIX}layer{int(layer):02d}/"
    if module in TOP:
        return [folder + TOP[module]]
    if module in NORMS:
        return [f"{folder}{NORMS[module]}/{'gamma' if kind == 'weight' else 'beta'}"]
    return [f"{folder}{dense}/{'kernel' if kind == 'weight' else 'bias'}" for dense in DENSE[module]]


def variables(shape: Shape, slots: bool = True) -> dict[str, tuple[int, ...]]:
    """The seed's variables for a model of this shape and their sizes; with `slots` what its optimizer keeps and the step."""
    sizes: dict[str, tuple[int, ...]] = {}
    for name, size in tensors_of(shape, padding=False).items():
        joined = names_of(name)
        size = (size[0] // len(joined), *size[1:])
        sizes |= {variable: size[::-1] if variable.endswith(KERNEL) else size for variable in joined}
    if slots:
        for variable, size in list(sizes.items()):
            v, vr, vc = (variable + slot for slot in SLOTS)
            sizes |= {v: size} if len(size) == 1 else {vr: size[:1], vc: size[1:]}
        sizes[STEP] = ()
    return sizes


def dtype_of(variable: str) -> str:
    return "int64" if variable == STEP else "float32"


def tensors(shape: Shape, read: Callable[[str], np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Our tensors one by one, in our layout, in the order of `model.shape.tensors`; `read` gives the seed's variable of a name."""
    for name in tensors_of(shape, padding=False):
        arrays = [read(variable).T if variable.endswith(KERNEL) else read(variable) for variable in names_of(name)]
        yield name, np.ascontiguousarray(arrays[0] if len(arrays) == 1 else np.concatenate(arrays))


def slots(name: str, read: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
    """What `Gpt2mlAdafactor` keeps for one of our tensors: rows_n and columns_n, or square_n, for each variable behind it."""
    state = {}
    for n, variable in enumerate(names_of(name)):
        v, vr, vc = (variable + slot for slot in SLOTS)
        if variable.endswith((KERNEL, "_embed")):
            rows, columns = (vc, vr) if variable.endswith(KERNEL) else (vr, vc)
            state |= {f"rows_{n}": read(rows), f"columns_{n}": read(columns)}
        else:
            state[f"square_{n}"] = read(v)
    return state
