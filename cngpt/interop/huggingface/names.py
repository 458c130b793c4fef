"""What the tensors of a model are called here and in transformers, and the parts of its config.json that both sides must agree on."""

from pathlib import Path

CONFIG, WEIGHTS, GENERATION = "config.json", "model.safetensors", "generation_config.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
KEY = "cngpt"  # in tokenizer_config.json, because `tokenizers` keeps nothing in tokenizer.json that it does not know
REMOTE = Path(__file__).parent / "remote" / "modeling_cngpt.py"
AGAIN = "fetch the whole model again"
GPT2, GPT2_CLASS = "gpt2", "GPT2LMHeadModel"
GPT2ML, GPT2ML_CLASS = "gpt2ml", "Gpt2mlForCausalLM"  # model_type and class in remote/modeling_cngpt.py
PREFIX = "transformer."

_PARTS = {  # of PreLN's names in GPT.state_dict()
    "tok": "wte",
    "pos": "wpe",
    "blocks": "h",
    "ln1": "ln_1",
    "ln2": "ln_2",
    "qkv": "c_attn",
    "up": "c_fc",
    "out": "c_proj",
    "down": "c_proj",
    "ln_final": "ln_f",
}
_TRANSPOSED = ("qkv.weight", "out.weight", "up.weight", "down.weight")  # their Conv1D keeps (in, out)


def theirs(block: str, name: str) -> tuple[str, bool]:
    """The name in transformers of the tensor `name` of GPT.state_dict(), without "transformer.", and whether it is transposed there.

    Source of their names: transformers, models/gpt2/modeling_gpt2.py; those of `gpt2ml` are ours.
    """
    if block == "gpt2ml":
        return name, False
    return ".".join(_PARTS.get(part, part) for part in name.split(".")), name.endswith(_TRANSPOSED)
