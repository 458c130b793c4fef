"""The seed's variables and ours: names, shapes, layouts, and the sizes of a model read from its tensors.

    ours                          the seed's, under newslm/                               layout
    tok.weight, pos.weight        embeddings/{word,pos}_embed                             the same
    ln_embed.weight, .bias        embeddings/LayerNorm_embed_norm/{gamma,beta}            the same
    blocks.N.ln0, .ln1            layerNN/LayerNorm_mlp_ln0, _ln1/{gamma,beta}            the same
    blocks.N.attn.qkv             layerNN/{query,key,value}_layer/{kernel,bias}           kernels transposed, the three joined
    blocks.N.attn.out             layerNN/context_projection_layer/{kernel,bias}          kernel transposed
    blocks.N.mlp.up, .down        layerNN/{intermediate,output}/{kernel,bias}             kernel transposed

Its Adafactor keeps `<variable>/adafactor_v` for a vector, `_vr` (by row) and `_vc` (by column) for a matrix.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from cngpt.errors import UserError
from cngpt.model import Shape
from cngpt.store import SPARE

PREFIX, STEP = "newslm/", "global_step"
SLOTS = ("/adafactor_v", "/adafactor_vr", "/adafactor_vc")
TOP = {
    "tok.weight": "embeddings/word_embed",
    "pos.weight": "embeddings/pos_embed",
    "ln_embed.weight": "embeddings/LayerNorm_embed_norm/gamma",
    "ln_embed.bias": "embeddings/LayerNorm_embed_norm/beta",
}
DENSE = {
    "attn.qkv": ("query_layer", "key_layer", "value_layer"),
    "attn.out": ("context_projection_layer",),
    "mlp.up": ("intermediate",),
    "mlp.down": ("output",),
}
NORMS = {"ln0": "LayerNorm_mlp_ln0", "ln1": "LayerNorm_mlp_ln1"}
HEAD_WIDTH = 64  # of all of the seed's configurations
CONFIG_KEYS = {  # of the seed's JSON, and what they are in Shape
    "vocab_size": "vocab_size", "hidden_size": "width", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
    "max_position_embeddings": "n_ctx", "initializer_range": "initializer_range", "hidden_dropout_prob": "dropout",
}  # fmt: skip


def names_of(name: str) -> list[str]:
    """The seed's variables behind one of our parameters, in the order in which they are joined."""
    if name in TOP:
        return [PREFIX + TOP[name]]
    _, layer, *module, kind = name.split(".")
    place, module = f"{PREFIX}layer{int(layer):02d}/", ".".join(module)
    if module in NORMS:
        return [f"{place}{NORMS[module]}/{'gamma' if kind == 'weight' else 'beta'}"]
    return [f"{place}{dense}/{'kernel' if kind == 'weight' else 'bias'}" for dense in DENSE[module]]


def is_kernel(name: str) -> bool:
    """Whether one of our parameters is the transpose of the seed's."""
    return name.startswith("blocks.") and name.endswith(".weight") and name.split(".")[-2] not in NORMS


def parameters(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Our parameters and their shapes, in the order of `GPT.state_dict()`, the embedding without padding rows."""
    D = shape.width
    found = {"tok.weight": (shape.vocab_size, D), "pos.weight": (shape.n_ctx, D), "ln_embed.weight": (D,), "ln_embed.bias": (D,)}
    outputs = {"attn.qkv": 3 * D, "attn.out": D, "ln0": D, "mlp.up": 4 * D, "mlp.down": D, "ln1": D}
    inputs = {"mlp.down": 4 * D}
    for layer in range(shape.n_layer):
        for module, out in outputs.items():
            weight = (out,) if module in NORMS else (out, inputs.get(module, D))
            found |= {f"blocks.{layer}.{module}.weight": weight, f"blocks.{layer}.{module}.bias": (out,)}
    return found


def variables(shape: Shape, slots: bool = True) -> dict[str, tuple[int, ...]]:
    """The seed's variables for a model of this shape and their shapes; with `slots` what its optimizer keeps and the step."""
    found: dict[str, tuple[int, ...]] = {}
    for name, size in parameters(shape).items():
        names = names_of(name)
        size = (size[0] // len(names), *size[1:])
        for variable in names:
            found[variable] = size[::-1] if is_kernel(name) else size
    if slots:
        for variable, size in list(found.items()):
            v, vr, vc = (variable + slot for slot in SLOTS)
            found |= {v: size} if len(size) == 1 else {vr: size[:1], vc: size[1:]}
        found[STEP] = ()
    return found


def shape_of(found: Mapping[str, tuple[int, ...]], config: Mapping[str, Any] | None, where: str) -> Shape:
    """The sizes of a model from its variables' shapes; the number of heads, which no tensor shows, from the seed's JSON.

    Without `config` there is one head for 64 of the width, as in all of the seed's configurations. Raises UserError where the
    variables are not a GPT of the seed's, or contradict `config`; `where` is the file that the message names.
    """
    layers = {int(m[1]) for name in found if (m := re.match(rf"{PREFIX}layer(\d+)/", name))}
    word, pos = (found.get(PREFIX + TOP[name]) for name in ("tok.weight", "pos.weight"))
    if not layers or word is None or pos is None or len(word) != 2 or len(pos) != 2:
        some = ", ".join(sorted(found)[:3])
        raise UserError(
            f"{where} holds no GPT of gpt2-ml: {PREFIX}embeddings/word_embed and {PREFIX}layer00/... are missing (it has {some} ...)"
        )
    sizes = {"vocab_size": word[0], "n_ctx": pos[0], "n_layer": max(layers) + 1, "width": word[1]}
    chosen = {"n_head": max(1, word[1] // HEAD_WIDTH), "dropout": 0.1, "initializer_range": 0.02}  # the seed's
    if word[1] == 1536:
        chosen["initializer_range"] = 0.014142135623731  # of mega
    for key, ours in CONFIG_KEYS.items():
        if config is None or key not in config:
            continue
        if (
            ours in sizes and config[key] != sizes[ours] and ours != "vocab_size"
        ):  # the 15 GB release has 2 rows more than its JSON
            raise UserError(
                f"config: {key}={config[key]}, but the tensors of {where} say {sizes[ours]}; give the JSON it was trained with"
            )
        if ours in chosen:
            chosen[ours] = config[key]
    if config is not None:
        theirs = {"vocab_size": range(word[0] - SPARE, word[0] + 1), "intermediate_size": (4 * word[1],), "hidden_act": ("gelu",)}
        for key, possible in theirs.items():
            if key in config and config[key] not in possible:
                say = "gelu" if key == "hidden_act" else max(possible)
                raise UserError(f"config: {key}={config[key]}, but {where} has {say}; give the JSON it was trained with")
    if config is None and word[1] % HEAD_WIDTH:
        raise UserError(
            f"config=... is needed, the JSON {where} was trained with: its width {word[1]} does not divide by {HEAD_WIDTH}"
        )
    try:
        shape = Shape(block="gpt2ml", **sizes, **chosen)
        plain = isinstance(shape.n_head, int) and shape.n_head > 0
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"config: {error}; give the JSON {where} was trained with") from None
    if not plain:
        raise UserError(f"config: num_attention_heads={shape.n_head}: a whole number from 1 is needed")
    for name, size in variables(shape, slots=False).items():
        if found.get(name) != size:
            came = "is missing" if name not in found else f"is {_times(found[name])}"
            raise UserError(f"{where}: {name} {came}, and a model of {shape.n_layer} layers x {shape.width} has {_times(size)}")
    return shape


def surplus(found: Iterable[str], shape: Shape) -> list[str]:
    """Variables that neither such a model nor its optimizer has."""
    return sorted(set(found) - set(variables(shape)))


def tensors(shape: Shape, read: Callable[[str], np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Our parameters one by one, in our layout, in the order of `parameters`; `read` gives the seed's variable of a name."""
    for name in parameters(shape):
        arrays = [read(variable) for variable in names_of(name)]
        arrays = [a.T for a in arrays] if is_kernel(name) else arrays
        yield name, np.ascontiguousarray(arrays[0] if len(arrays) == 1 else np.concatenate(arrays))


def slots(name: str, read: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
    """What `Gpt2mlAdafactor` keeps for one of our parameters: rows_n and columns_n, or square_n, for each variable behind it."""
    state = {}
    for n, variable in enumerate(names_of(name)):
        if name.endswith(".bias") or "ln" in name:
            state[f"square_{n}"] = read(variable + "/adafactor_v")
            continue
        rows, columns = ("_vc", "_vr") if is_kernel(name) else ("_vr", "_vc")
        state[f"rows_{n}"] = read(f"{variable}/adafactor{rows}")
        state[f"columns_{n}"] = read(f"{variable}/adafactor{columns}")
    return state


def _times(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size)) or "a single number"
