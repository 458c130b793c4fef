"""Out: a checkpoint of ours as a folder that transformers loads.

config.json model.safetensors generation_config.json      GPT2LMHeadModel (`preln`), or with modeling_cngpt.py (`gpt2ml`)
tokenizer.json tokenizer_config.json                      a fast tokenizer with our ids
README.md                                                 the model card
"""

from pathlib import Path

from cngpt import files, store
from cngpt.errors import UserError
from cngpt.interop.huggingface import card, config, generation, names, tokenizer_out
from cngpt.interop.huggingface.names import REMOTE


def export(ckpt: str | Path, out: str | Path, overwrite: bool = False) -> list[str]:
    """Writes the folder `out`, whole or not at all; returns notes, a line each, on what transformers needs or does otherwise.

    `ckpt`: a model directory, a run directory or a training checkpoint. Tensors keep their type. An `out` that is there raises
    UserError unless it is empty, or `overwrite` and a model for transformers. transformers is not needed. torch is.
    """
    head, out = store.header(ckpt), Path(out)
    files.check_out(out, overwrite, _is_theirs, "model for transformers", [ckpt, head["path"]])
    gpt, ours = store.load(ckpt)
    shape = gpt.shape.as_dict()
    tensors = _tensors(gpt)
    sizes = store.sizes_of(tensors)
    files.check_space(out, store.bytes_of(sizes))

    spec, tokenizer_config, of_tokenizer = tokenizer_out.to_theirs(ours, shape["n_ctx"])
    sampling, of_sampling = generation.to_theirs(head["generation"], shape["n_ctx"], ours.eos_is_text)
    begin = ours.eos_id if ours.opening_id is None else ours.opening_id
    ids = {"bos_token_id": begin, "eos_token_id": ours.eos_id, "pad_token_id": ours.pad_id}
    never = [*ours.control_ids, *range(ours.vocab_size, shape["vocab_size"])]
    notes = [*of_tokenizer, *of_sampling]
    dtype = str(gpt.tok.weight.dtype).removeprefix("torch.")
    remote = shape["block"] == "gpt2ml"
    text = card.model_card(out.resolve().name, shape, gpt.num_parameters(), head["step"], ours, remote, notes)
    if remote:
        notes.insert(
            0, f"this model needs trust_remote_code=True: its block is not GPT-2's, {REMOTE.name} beside the weights has it"
        )
    with files.atomic_folder(out, overwrite) as new:
        store.write_weights(new / names.WEIGHTS, sizes, (tensors[name] for name in sizes))
        files.write_json(new / names.CONFIG, {**config.to_theirs(shape), **ids, "torch_dtype": dtype})
        files.write_json(new / names.GENERATION, {**ids, **sampling, "suppress_tokens": never})
        files.write_json(new / names.TOKENIZER, spec)
        files.write_json(new / names.TOKENIZER_CONFIG, tokenizer_config)
        files.write_text(new / "README.md", text)
        if remote:
            files.write_text(new / REMOTE.name, REMOTE.read_text(encoding="utf-8"))
    return notes


def _is_theirs(folder: Path) -> bool:
    try:
        return bool({"model_type", "architectures"} & files.read_object(folder / names.CONFIG).keys())
    except UserError:
        return False


def _tensors(gpt) -> dict:
    """Views of the tensors with their names; the head is the embedding, which is there once and without padding rows."""
    shape, prefix = gpt.shape, "" if gpt.shape.block == "gpt2ml" else names.PREFIX
    tensors = {}
    for name, tensor in gpt.state_dict().items():
        theirs, transposed = names.theirs(shape.block, name)
        tensor = tensor[: shape.vocab_size] if name == store.EMBEDDING else tensor
        tensors[prefix + theirs] = tensor.T if transposed else tensor
    return tensors
