"""What a model is: our Shape and transformers' config.json, both ways."""

from pathlib import Path

from cngpt.errors import UserError
from cngpt.interop.huggingface import names

GPT2_DEFAULTS = {  # of transformers' GPT2Config, for what a config.json leaves out
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "initializer_range": 0.02,
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
}
DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
KEYS = ("vocab_size", "n_ctx", "n_layer", "n_head", "width", "dropout", "initializer_range")  # of Shape
MUST = {  # what our block computes, the first value being the default there
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
}


def to_theirs(shape: dict) -> dict:
    """config.json without the ids of control tokens."""
    if shape["block"] == "gpt2ml":
        auto = {"AutoConfig": f"{names.REMOTE.stem}.Gpt2mlConfig"}
        auto["AutoModelForCausalLM"] = f"{names.REMOTE.stem}.{names.GPT2ML_CLASS}"
        head = {"architectures": [names.GPT2ML_CLASS], "model_type": names.GPT2ML, "auto_map": auto}
        return {**head, **{key: shape[key] for key in KEYS}, "tie_word_embeddings": True}
    return {
        "architectures": [names.GPT2_CLASS],
        "model_type": names.GPT2,
        "vocab_size": shape["vocab_size"],
        "n_positions": shape["n_ctx"],
        "n_embd": shape["width"],
        "n_layer": shape["n_layer"],
        "n_head": shape["n_head"],
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "initializer_range": shape["initializer_range"],
        **dict.fromkeys(DROPOUTS, shape["dropout"]),
        "tie_word_embeddings": True,
    }


def to_ours(where: Path, config: dict) -> tuple[dict, list[str]]:
    """(Shape as a dict, notes), from the content of the config.json `where`. UserError for what our blocks do not compute."""
    kind, classes = config.get("model_type"), config.get("architectures")
    if kind is None and "format" in config:
        raise UserError(f"{where.parent} is a model directory of cngpt already; it can be used as it is")
    notes = []
    if kind == names.GPT2ML and classes == [names.GPT2ML_CLASS]:
        shape = {"block": "gpt2ml", **{key: config.get(key) for key in KEYS}}
    elif kind == names.GPT2 and classes in (None, [names.GPT2_CLASS]):
        shape = _gpt2(where, {**GPT2_DEFAULTS, **config}, notes)
    else:
        raise UserError(
            f"{where}: model_type={kind}, architectures={classes}; only {names.GPT2} with {names.GPT2_CLASS} can be read,"
            " and what task=export wrote"
        )
    for key in KEYS:
        value, whole = shape[key], key not in ("dropout", "initializer_range")
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not (number and (0 < value < 1 << 31 if whole else 0 <= value <= 1)):
            raise UserError(
                f"{where}: {key}={value} is no {'number of things' if whole else 'number from 0 to 1'}; fetch it again"
            )
    if shape["width"] % shape["n_head"]:
        raise UserError(f"{where}: width {shape['width']} does not divide into {shape['n_head']} heads; fetch it again")
    return shape, notes


def _gpt2(where: Path, config: dict, notes: list[str]) -> dict:
    for key, allowed in MUST.items():
        value = allowed[0] if config.get(key) is None else config[key]
        if value not in allowed:
            said = value if isinstance(value, int | float | str) else "given"
            only = "none" if allowed == (None,) else " or ".join(map(str, allowed))
            raise UserError(f"{where}: {key}={said}; our block computes {only} only, so this model cannot be read")
    width, inner = config["n_embd"], config.get("n_inner")
    if inner is not None and inner != 4 * width:
        raise UserError(
            f"{where}: n_inner={inner}; our block computes 4 x n_embd = {4 * width} only, so this model cannot be read"
        )
    dropout = config[DROPOUTS[0]]
    if any(config[key] != dropout for key in DROPOUTS):
        said = ", ".join(f"{key}={config[key]}" for key in DROPOUTS)
        notes.append(f"dropout: {said}; ours is one number, {dropout} is taken")
    return {
        "block": "preln",
        "vocab_size": config["vocab_size"],
        "n_ctx": config["n_positions"],
        "n_layer": config["n_layer"],
        "n_head": config["n_head"],
        "width": width,
        "dropout": dropout,
        "initializer_range": config["initializer_range"],
    }
