"""Out: a checkpoint of ours as a folder that transformers loads.

config.json model.safetensors generation_config.json      GPT2LMHeadModel (`preln`), or with modeling_cngpt.py (`gpt2ml`)
tokenizer.json tokenizer_config.json                      a fast tokenizer with our ids
README.md                                                 the model card
"""

from pathlib import Path

from cngpt import files, store
from cngpt.errors import UserError
from cngpt.interop.huggingface import card, generation, names, tokenizer

REMOTE = Path(__file__).parent / "remote" / "modeling_cngpt.py"


def export(ckpt: str | Path, out: str | Path, overwrite: bool = False) -> list[str]:
    """Writes the folder `out`, whole or not at all; returns notes, a line each, on what transformers needs or does otherwise.

    `ckpt`: a model directory, a run directory or a training checkpoint. Tensors keep their type. An `out` that is there raises
    UserError unless it is empty, or `overwrite` and a model for transformers. transformers is not needed. torch is.
    """
    head = store.header(ckpt)
    out = Path(out)
    check_out(out, Path(head["path"]), overwrite, _is_theirs, "model for transformers")
    gpt, ours = store.load(ckpt)
    shape, parameters = gpt.shape.as_dict(), gpt.num_parameters()
    remote = shape["block"] == "gpt2ml"

    spec, tokenizer_config, of_tokenizer = tokenizer.to_theirs(ours, shape["n_ctx"])
    sampling, of_sampling = generation.to_theirs(head["generation"], shape["n_ctx"], ours.eos_is_text)
    begin = ours.eos_id if ours.opening_id is None else ours.opening_id
    ids = {"bos_token_id": begin, "eos_token_id": ours.eos_id, "pad_token_id": ours.pad_id}
    never = [*ours.control_ids, *range(ours.vocab_size, shape["vocab_size"])]
    notes = [*of_tokenizer, *of_sampling]
    dtype = str(gpt.tok.weight.dtype).removeprefix("torch.")
    text = card.model_card(out.resolve().name, shape, parameters, head["step"], ours, remote, notes)
    if remote:
        notes.insert(
            0, f"this model needs trust_remote_code=True: its block is not GPT-2's, {REMOTE.name} beside the weights has it"
        )

    from safetensors.torch import save_file

    tensors = _tensors(gpt)
    del gpt
    with files.atomic_folder(out, overwrite) as new:
        save_file(tensors, new / names.WEIGHTS, metadata={"format": "pt"})
        files.write_json(new / names.CONFIG, {**(_gpt2ml(shape) if remote else _gpt2(shape)), **ids, "torch_dtype": dtype})
        files.write_json(new / names.GENERATION, {**ids, **sampling, "suppress_tokens": never})
        files.write_json(new / tokenizer.TOKENIZER, spec)
        files.write_json(new / tokenizer.CONFIG, tokenizer_config)
        files.write_text(new / "README.md", text)
        if remote:
            files.write_text(new / REMOTE.name, REMOTE.read_text(encoding="utf-8"))
    return notes


def check_out(out: Path, source: Path, overwrite: bool, replaceable, what: str) -> None:
    """Raises UserError where writing the folder `out` would destroy something: `source`, or what `overwrite` does not mean."""
    here = out.resolve()
    if here == source.resolve() or here in source.resolve().parents:
        raise UserError(f"out={out} is or holds what is read, {source}; give another folder")
    if not out.exists() or files.is_empty(out):
        return
    if not overwrite:
        raise UserError(f"{out} exists already; overwrite=true replaces it")
    if not replaceable(out):
        raise UserError(f"{out} is no {what}, and overwrite=true replaces nothing else; give another name")


def _is_theirs(folder: Path) -> bool:
    try:
        return bool({"model_type", "architectures"} & files.read_json(folder / names.CONFIG).keys())
    except (OSError, ValueError, AttributeError):
        return False


def _tensors(gpt) -> dict:
    """The tensors with their names; the head is the embedding, which is there once and without padding rows."""
    shape, state = gpt.shape, gpt.state_dict()
    for parameter in gpt.parameters():
        parameter.data = parameter.data.new_empty(0)  # a transposed copy of a large model is one model more, not two
    prefix = "" if shape.block == "gpt2ml" else names.PREFIX
    tensors = {}
    while state:
        name, tensor = state.popitem(last=False)
        if name == store.EMBEDDING:
            tensor = tensor[: shape.vocab_size].clone()
        theirs, transposed = names.theirs(shape.block, name)
        tensors[prefix + theirs] = tensor.T.contiguous() if transposed else tensor.contiguous()
    return tensors


def _gpt2(shape: dict) -> dict:
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
        **dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), shape["dropout"]),
        "tie_word_embeddings": True,
    }


def _gpt2ml(shape: dict) -> dict:
    module = REMOTE.stem
    return {
        "architectures": [names.GPT2ML_CLASS],
        "model_type": names.GPT2ML,
        "auto_map": {"AutoConfig": f"{module}.Gpt2mlConfig", "AutoModelForCausalLM": f"{module}.{names.GPT2ML_CLASS}"},
        **{key: value for key, value in shape.items() if key != "block"},
        "tie_word_embeddings": True,
    }
