"""What transformers calls each of our blocks: the class that computes it, its config.json, the names of its tensors.

A block that is not in ARCHITECTURES can be neither exported nor read.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cngpt.errors import UserError
from cngpt.interop.numbers import requirement

DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
RATES = ("dropout", "initializer_range")  # of Shape; the others are sizes


@dataclass(frozen=True)
class Architecture:
    model_type: str
    model_class: str
    keys: dict[str, tuple[str, ...]]  # key of Shape -> keys of config.json
    defaults: dict[str, Any] = field(default_factory=dict)  # for what a config.json leaves out
    required: dict[str, tuple] = field(default_factory=dict)  # what our block computes, the default first
    fixed: dict[str, Any] = field(default_factory=dict)  # further keys of config.json
    prefix: str = ""  # of the tensors' names
    parts: dict[str, str] = field(default_factory=dict)  # of the names of GPT.state_dict(), where they differ
    transposed: tuple[str, ...] = ()  # endings of those names
    modelling_file: Path | None = None  # None: transformers has the class

    def tensor(self, name: str) -> tuple[str, bool]:
        """The name in transformers, without the prefix, of a tensor of GPT.state_dict(), and whether it is transposed there."""
        return ".".join(self.parts.get(part, part) for part in name.split(".")), name.endswith(self.transposed)

    def to_config(self, shape: dict[str, Any]) -> dict[str, Any]:
        """config.json without the ids of control tokens."""
        values = {theirs: shape[ours] for ours, keys in self.keys.items() for theirs in keys}
        return {"architectures": [self.model_class], "model_type": self.model_type, **values, **self.fixed}

    def from_config(self, path: Path, config: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """What Shape takes, but for the block, and notes; from the content of the config.json `path`."""
        notes, config = [], self.defaults | config
        for key, allowed in self.required.items():
            value = allowed[0] if config.get(key) is None else config[key]
            if value not in allowed:
                shown = value if isinstance(value, int | float | str) else "given"
                only = "none" if allowed == (None,) else " or ".join(map(str, allowed))
                raise UserError(f"{path}: {key}={shown}; our block computes {only} only, so this model cannot be read")
        shape = {ours: config.get(keys[0]) for ours, keys in self.keys.items()}
        for ours, keys in self.keys.items():
            if any(config.get(key) != shape[ours] for key in keys):
                values = ", ".join(f"{key}={config.get(key)}" for key in keys)
                notes.append(f"{ours}: {values}; ours is one number, {shape[ours]} is taken")
            if needed := requirement(shape[ours], whole=ours not in RATES):
                raise UserError(f"{path}: {keys[0]}={shape[ours]} must be {needed}; fetch it again")
        width, heads, inner = shape["width"], shape["n_head"], config.get("n_inner")
        if width % heads:
            raise UserError(f"{path}: width {width} does not divide into {heads} heads; fetch it again")
        if inner not in (None, 4 * width):
            wanted = f"4 x n_embd = {4 * width}"
            raise UserError(f"{path}: n_inner={inner}; our block computes {wanted} only, so this model cannot be read")
        return shape, notes


# its names and defaults: transformers, models/gpt2
GPT2 = Architecture(
    "gpt2",
    "GPT2LMHeadModel",
    keys={"vocab_size": ("vocab_size",), "n_ctx": ("n_positions",), "n_layer": ("n_layer",), "n_head": ("n_head",)}
    | {"width": ("n_embd",), "dropout": DROPOUTS, "initializer_range": ("initializer_range",)},
    defaults={"vocab_size": 50257, "n_positions": 1024, "n_layer": 12, "n_head": 12, "n_embd": 768, "initializer_range": 0.02}
    | dict.fromkeys(DROPOUTS, 0.1),
    required={
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "layer_norm_epsilon": (1e-5,),
        "scale_attn_weights": (True,),
    }
    | {"scale_attn_by_inverse_layer_idx": (False,), "add_cross_attention": (False,), "quantization_config": (None,)},
    fixed={"n_inner": None, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True},
    prefix="transformer.",
    parts={"tok": "wte", "pos": "wpe", "blocks": "h", "ln1": "ln_1", "ln2": "ln_2", "ln_final": "ln_f"}
    | {"qkv": "c_attn", "out": "c_proj", "up": "c_fc", "down": "c_proj"},
    # its Conv1D keeps (in, out)
    transposed=("qkv.weight", "out.weight", "up.weight", "down.weight"),
)
REMOTE = Path(__file__).parent / "remote" / "modeling_cngpt.py"
GPT2ML = Architecture(
    "gpt2ml",
    "Gpt2mlForCausalLM",
    keys={key: (key,) for key in ("vocab_size", "n_ctx", "n_layer", "n_head", "width", "dropout", "initializer_range")},
    fixed={"auto_map": {"AutoConfig": f"{REMOTE.stem}.Gpt2mlConfig", "AutoModelForCausalLM": f"{REMOTE.stem}.Gpt2mlForCausalLM"}}
    | {"tie_word_embeddings": True},
    modelling_file=REMOTE,
)
ARCHITECTURES = {"preln": GPT2, "gpt2ml": GPT2ML}  # by block


def architecture_of(path: Path, block: str) -> Architecture:
    """What transformers calls the block of the model at `path`; UserError where it has no name for it."""
    if block not in ARCHITECTURES:
        raise UserError(f"{path}: a model of block={block} cannot be exported; one of {', '.join(ARCHITECTURES)} can")
    return ARCHITECTURES[block]


def read_shape(path: Path, config: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """(Shape as a dict, notes), from the content of the config.json `path`. UserError for what our blocks do not compute."""
    model_type, classes = config.get("model_type"), config.get("architectures")
    if model_type is None and "format" in config:
        raise UserError(f"{path.parent} is a model directory of cngpt already; it can be used as it is")
    for block, architecture in ARCHITECTURES.items():
        if model_type == architecture.model_type and classes in (None, [architecture.model_class]):
            shape, notes = architecture.from_config(path, config)
            return {"block": block, **shape}, notes
    raise UserError(
        f"{path}: model_type={model_type}, architectures={classes}; only {GPT2.model_type} with {GPT2.model_class} can be read,"
        " and what task=export wrote"
    )
