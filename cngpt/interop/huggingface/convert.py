"""In: a GPT-2 as transformers saves it, as a model directory of ours. Nothing is fetched but a vocabulary that is known by name."""

from pathlib import Path

from cngpt import checkpoints, files
from cngpt.checkpoints.model_directory import SPARE
from cngpt.errors import ConfigError, UserError
from cngpt.interop.huggingface import generation, names, tokenizer_in
from cngpt.interop.huggingface.architectures import read_shape
from cngpt.interop.huggingface.weights import find_weights, read_weights


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
    shape, notes = read_shape(folder / names.CONFIG, files.read_object(folder / names.CONFIG, names.AGAIN))
    source, parts = find_weights(folder)
    sources = [folder, vocab] if vocab and Path(vocab).exists() else [folder]
    size = sum(part.stat().st_size for part in parts)
    files.check_out(out, overwrite, checkpoints.is_model_directory, "model directory", sources, size)
    tokenizer, more = tokenizer_in.read_tokenizer(folder, vocab, eos)
    notes += more
    rows, entries = shape["vocab_size"], tokenizer.vocab_size
    if entries > rows:
        sizes = f"the model has {rows:,} rows, its tokenizer {entries:,} tokens"
        raise UserError(f"{folder}: {sizes}; give its own vocabulary with vocab=...")
    if rows - entries > SPARE:
        notes.append(
            f"warning: {rows - entries:,} of the model's {rows:,} rows have no token in {vocab or folder}, which has {entries:,}:"
            " perhaps it is another model's vocabulary, or cut off"
        )
    sampling, more = _generation(folder / names.GENERATION)
    checkpoints.save_state(out, shape, read_weights(source, parts, shape), tokenizer, sampling, overwrite)
    return notes + more


def _folder(path: str | Path) -> Path:
    folder = Path(path)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ConfigError(f"path={path}: is a file; give the folder that holds it, with its config.json")
    hub = f"; fetch a model of the Hugging Face hub first: hf download {path} --local-dir FOLDER"
    raise ConfigError(f"path={path}: there is no such folder{hub if str(path).count('/') == 1 else ''}")


def _generation(path: Path) -> tuple[dict, list[str]]:
    if not path.exists():
        return {}, []
    try:
        return generation.from_transformers(files.read_object(path, names.AGAIN))
    except (ConfigError, TypeError) as error:
        raise UserError(f"{path}: {error}") from None
