"""Out: a checkpoint of ours as a folder that transformers loads.

config.json model.safetensors generation_config.json      the model; a class that transformers lacks comes as a file beside it
tokenizer.json tokenizer_config.json                      a fast tokenizer with our ids
README.md                                                 the model card
"""

from pathlib import Path

from cngpt import checkpoints, files
from cngpt.checkpoints.weights_file import bytes_of, sizes_of, write_weights
from cngpt.errors import UserError
from cngpt.interop.huggingface import generation, names
from cngpt.interop.huggingface.architectures import architecture_of
from cngpt.interop.huggingface.card import model_card
from cngpt.interop.huggingface.tokenizer_out import convert_tokenizer
from cngpt.model.shape import EMBEDDING


def export(ckpt: str | Path, out: str | Path, overwrite: bool = False) -> list[str]:
    """Writes the folder `out`, whole or not at all; returns notes, a line each, on what transformers needs or does otherwise.

    `ckpt`: a model directory, a run directory or a training checkpoint. Tensors keep their type. An `out` that is there raises
    UserError unless it is empty, or `overwrite` and a model for transformers; so does a block that transformers has no name for.
    transformers is not needed. torch is.
    """
    header, out = checkpoints.header(ckpt), Path(out)
    architecture = architecture_of(header.path, header.shape["block"])
    files.check_out(out, overwrite, _is_exported, "model for transformers", [ckpt, header.path])
    gpt, tokenizer = checkpoints.load(ckpt)
    shape, tensors = gpt.shape.as_dict(), {}
    for name, tensor in gpt.state_dict().items():
        theirs, transposed = architecture.tensor(name)
        # the head is the embedding, which is there once and without padding rows
        tensor = tensor[: shape["vocab_size"]] if name == EMBEDDING else tensor
        tensors[architecture.prefix + theirs] = tensor.T if transposed else tensor
    sizes = sizes_of(tensors)
    files.check_space(out, bytes_of(sizes))

    spec, tokenizer_config, notes = convert_tokenizer(tokenizer, shape["n_ctx"])
    sampling, more = generation.to_transformers(header.generation, shape["n_ctx"], tokenizer.eos_is_text)
    notes += more
    begin = tokenizer.eos_id if tokenizer.opening_id is None else tokenizer.opening_id
    ids = {"bos_token_id": begin, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.pad_id}
    never = [*tokenizer.control_ids, *range(tokenizer.vocab_size, shape["vocab_size"])]
    dtype = str(gpt.tok.weight.dtype).removeprefix("torch.")
    modelling_file = architecture.modelling_file
    card = model_card(out.resolve().name, gpt, header.step, tokenizer, bool(modelling_file), notes)
    if modelling_file:
        why = f"its block is not GPT-2's, {modelling_file.name} beside the weights has it"
        notes.insert(0, f"this model needs trust_remote_code=True: {why}")
    with files.atomic_folder(out, overwrite) as new:
        write_weights(new / names.WEIGHTS, sizes, (tensors[name] for name in sizes))
        files.write_json(new / names.CONFIG, {**architecture.to_config(shape), **ids, "torch_dtype": dtype})
        files.write_json(new / names.GENERATION, {**ids, **sampling, "suppress_tokens": never})
        files.write_json(new / names.TOKENIZER, spec)
        files.write_json(new / names.TOKENIZER_CONFIG, tokenizer_config)
        files.write_text(new / "README.md", card)
        if modelling_file:
            files.write_text(new / modelling_file.name, modelling_file.read_text(encoding="utf-8"))
    return notes


def _is_exported(folder: Path) -> bool:
    try:
        return bool({"model_type", "architectures"} & files.read_object(folder / names.CONFIG).keys())
    except UserError:
        return False
