"""The sizes of one of gpt2-ml's models: from its variables, and from the seed's JSON for what no tensor shows."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cngpt import files
from cngpt.checkpoints.model_directory import SPARE
from cngpt.errors import ConfigError, UserError
from cngpt.interop.gpt2ml import mapping
from cngpt.interop.gpt2ml.bundle import Entry
from cngpt.interop.numbers import requirement
from cngpt.model.shape import Shape

HEAD_WIDTH = 64  # of all of the seed's configurations
# keys of the seed's JSON, and what they are in Shape
SIZES = {"vocab_size": "vocab_size", "hidden_size": "width", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
SIZES |= {"max_position_embeddings": "n_ctx"}
RATES = {"initializer_range": "initializer_range", "hidden_dropout_prob": "dropout"}
# the seed's values where its JSON is not at hand; the range is another in mega alone
DROPOUT, RANGE, RANGE_OF_MEGA, WIDTH_OF_MEGA = 0.1, 0.02, 0.014142135623731, 1536


def read_config(path: str | Path, complete: bool) -> dict[str, Any]:
    """The seed's JSON. `complete`: nothing else tells the sizes, so that it has to name all of them."""
    try:
        config = files.read_object(path, "give the JSON of the seed's configs/, such as mega.json")
    except UserError as error:
        raise ConfigError(f"config={error}") from None
    if missing := [key for key in (SIZES if complete else ("hidden_size", "num_hidden_layers")) if key not in config]:
        raise ConfigError(
            f"config={path}: has no {' and no '.join(missing)}; give the JSON of the seed's configs/, such as mega.json"
        )
    for key in (SIZES | RATES).keys() & config.keys():
        if needed := requirement(config[key], whole=key in SIZES):
            raise ConfigError(f"config={path}: {key}={config[key]} must be {needed}; give the JSON that it was trained with")
    return config


def shape_of_config(config: Mapping[str, Any]) -> Shape:
    """The model that the seed's JSON describes."""
    return _shape({ours: config[key] for key, ours in (SIZES | RATES).items() if key in config}, "such as its configs/mega.json")


def shape_of(variables: Mapping[str, tuple[int, ...]], config: Mapping[str, Any] | None, path: str) -> Shape:
    """The shape of a model from its variables' sizes; the number of heads, which no tensor shows, from the seed's JSON.

    Without it there is one head for 64 of the width, as in all of the seed's configurations. Raises UserError where the
    variables are not a GPT of the seed's, or contradict `config`; `path` is the file that the message names.
    """
    config = config or {}
    layers = {int(m[1]) for name in variables if (m := re.match(rf"{mapping.PREFIX}layer(\d+)/", name))}
    word, pos = (variables.get(f"{mapping.PREFIX}embeddings/{name}_embed", ()) for name in ("word", "pos"))
    if not layers or len(word) != 2 or len(pos) != 2:
        raise UserError(
            f"{path} holds no GPT of gpt2-ml: {mapping.PREFIX}embeddings/word_embed and {mapping.PREFIX}layer00/... are missing"
            f" (it has {', '.join(sorted(variables)[:3])} ...)"
        )
    rows, width = word
    sizes = {"vocab_size": rows, "n_ctx": pos[0], "n_layer": max(layers) + 1, "width": width}
    actual = {key: sizes[ours] for key, ours in SIZES.items() if ours in sizes}
    for key, value in (actual | {"intermediate_size": 4 * width, "hidden_act": "gelu"}).items():
        stated = config.get(key, value)
        # the 15 GB release has two rows more than its JSON
        if stated != value and not (key == "vocab_size" and rows - SPARE <= stated <= rows):
            raise UserError(f"config: {key}={stated}, but {path} has {value}; give the JSON it was trained with")
    if not config and width % HEAD_WIDTH:
        raise UserError(
            f"config=... is needed, the JSON {path} was trained with: its width {width} does not divide by {HEAD_WIDTH}"
        )
    chosen = {
        "n_head": config.get("num_attention_heads", max(1, width // HEAD_WIDTH)),
        "dropout": config.get("hidden_dropout_prob", DROPOUT),
        "initializer_range": config.get("initializer_range", RANGE_OF_MEGA if width == WIDTH_OF_MEGA else RANGE),
    }
    return _shape(sizes | chosen, f"the one {path} was trained with")


def check_variables(entries: Mapping[str, Entry], shape: Shape, optimizer: bool, path: str) -> None:
    """UserError unless these are the variables of such a model, with or without its optimizer's; `optimizer`: it must be there."""
    expected, model = mapping.variables(shape), mapping.variables(shape, slots=False)
    if surplus := sorted(entries.keys() - expected.keys()):
        more = f" and {len(surplus) - 1} more" if len(surplus) > 1 else ""
        raise UserError(f"{path}: {surplus[0]}{more} belong to no model of gpt2-ml")
    for name, size in expected.items():
        entry, dtype = entries.get(name), np.dtype(mapping.dtype_of(name))
        if entry is None and name not in model:
            continue
        if entry is None or entry.shape != size:
            problem = f"is {_times(entry.shape)}" if entry else "is missing"
            raise UserError(f"{path}: {name} {problem}, and a model of {shape.n_layer} layers x {shape.width} has {_times(size)}")
        if entry.dtype != dtype:
            raise UserError(f"{path}: {name} is {entry.dtype}, and gpt2-ml wrote {dtype}; save it so")
    if optimizer and (missing := sorted(expected.keys() - entries.keys())):
        raise ConfigError(
            f"optimizer=true: {path} holds no state of the optimizer ({missing[0]} is missing); leave it out for a model directory"
        )


def _shape(values: Mapping[str, Any], which: str) -> Shape:
    try:
        return Shape(block="gpt2ml", **values)
    except (TypeError, ValueError, UserError) as error:
        raise UserError(f"config: {error}; give the seed's JSON, {which}") from None


def _times(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size)) or "a single number"
