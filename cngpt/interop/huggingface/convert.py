"""In: a GPT-2 as transformers saves it, as a model directory of ours.

Its config.json: see config.py; weights: weights.py; tokenizers: tokenizer_in.py. Nothing is fetched.
"""

from pathlib import Path

from cngpt import files, store
from cngpt.errors import ConfigError, UserError
from cngpt.interop.huggingface import config, generation, names, tokenizer_in, weights


def convert(
    path: str | Path, out: str | Path, vocab: str | Path | None = None, overwrite: bool = False, eos: str | None = None
) -> list[str]:
    """Reads the folder `path` and writes the model directory `out`, whole or not at all; returns notes, a line each, on what was
    decided on the way.

    `path`: a GPT2LMHeadModel, or what `export` wrote. `vocab`: a vocab.txt, a vocab.json beside its merges.txt or a tokenizer.json,
    instead of the folder's own. `eos`: the token that ends a text, instead of the one that its files name. Tensors keep their type.
    Raises UserError, one line, for a model that our blocks do not compute and for files that are missing or damaged; a flipped bit in
    the weights is noticed in .bin files of torch 1.6 and later alone, the others, safetensors too, have no checksums.
    """
    folder = _folder(path)
    shape, notes = config.to_ours(folder / names.CONFIG, files.read_object(folder / names.CONFIG, names.AGAIN))
    where, parts = weights.find(folder)
    read = [folder, vocab] if vocab and Path(vocab).exists() else [folder]
    size = sum(part.stat().st_size for part in parts)
    files.check_out(out, overwrite, store.is_model_directory, "model directory", read, size)
    ours, of_tokenizer = tokenizer_in.to_ours(folder, vocab, eos)
    if ours.vocab_size > shape["vocab_size"]:
        rows, entries = f"{shape['vocab_size']:,}", f"{ours.vocab_size:,}"
        raise UserError(
            f"{folder}: the model has {rows} rows, its tokenizer {entries} tokens; give its own vocabulary with vocab=..."
        )
    if (spare := shape["vocab_size"] - ours.vocab_size) > store.SPARE:
        of_tokenizer.append(
            f"warning: {spare:,} of the model's {shape['vocab_size']:,} rows have no token in {vocab or folder}, which has {ours.vocab_size:,}:"
            " perhaps it is another model's vocabulary, or cut off"
        )
    sampling, of_sampling = _generation(folder)
    store.save_state(out, shape, weights.read(where, parts, shape), ours, sampling, overwrite)
    return [*notes, *of_tokenizer, *of_sampling]


def _folder(path: str | Path) -> Path:
    folder = Path(path)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ConfigError(f"path={path}: is a file; give the folder that holds it, with its config.json")
    fetch = (
        f"; fetch a model of the Hugging Face hub first: hf download {path} --local-dir FOLDER"
        if str(path).count("/") == 1
        else ""
    )
    raise ConfigError(f"path={path}: there is no such folder{fetch}")


def _generation(folder: Path) -> tuple[dict, list[str]]:
    path = folder / names.GENERATION
    if not path.exists():
        return {}, []
    try:
        return generation.to_ours(files.read_object(path, names.AGAIN))
    except (ConfigError, TypeError) as error:
        raise UserError(f"{path}: {error}") from None
