"""A model directory: the one thing that generate, evaluate, export and serve read.

    config.json         the model's shape, the format version, the checksum of the weights, the tokenizer's fingerprint
    model.safetensors   tensors named as in `GPT.state_dict()`, the embedding without its padding rows
    tokenizer.json      as Hugging Face's `tokenizers` reads it
    generation.json     how to sample by default

What is missing, damaged or of another make raises UserError: one line with the file and the remedy.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cngpt import files
from cngpt.checkpoints.weights_file import bytes_of, sizes_of, write_weights
from cngpt.errors import UserError, first_line
from cngpt.model.shape import EMBEDDING
from cngpt.tokens import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from cngpt.checkpoints.weights_file import Sizes
    from cngpt.model.gpt import GPT

FORMAT = 1
CONFIG, WEIGHTS, TOKENIZER, GENERATION = "config.json", "model.safetensors", "tokenizer.json", "generation.json"
AGAIN = "copy the model directory again"
# an embedding may have so many rows without a token: some trainers round up
SPARE = 128


def save(
    folder: str | Path,
    gpt: "GPT",
    tokenizer: Tokenizer,
    generation: dict | None = None,
    overwrite: bool = False,
    step: int | None = None,
) -> None:
    """Writes a model directory, whole or not at all. An existing one raises UserError unless `overwrite`.

    The tensors keep their type. `generation`: defaults for sampling, `step`: how long it was trained; both plain values.
    """
    save_state(folder, gpt.shape.as_dict(), gpt.state_dict(), tokenizer, generation, overwrite, step)


def save_state(
    folder: str | Path,
    shape: dict,
    state: "dict[str, Tensor]",
    tokenizer: Tokenizer,
    generation: dict | None = None,
    overwrite: bool = False,
    step: int | None = None,
) -> None:
    """`save` for the tensors of a model, as `GPT.state_dict()` has them; the embedding with or without its padding rows."""
    tensors = {**state, EMBEDDING: state[EMBEDDING][: shape["vocab_size"]]}
    sizes = sizes_of(tensors)
    write(folder, shape, sizes, (tensors[name] for name in sizes), tokenizer, generation, overwrite, step)


def write(
    folder: str | Path,
    shape: dict,
    sizes: "Sizes",
    tensors: "Iterable[Tensor]",
    tokenizer: Tokenizer,
    generation: dict | None = None,
    overwrite: bool = False,
    step: int | None = None,
) -> None:
    """`save` for a model that is not in memory: `tensors` come one by one, in the order of `sizes` and as large as it says."""
    check_vocabulary(folder, shape, tokenizer)
    files.check_out(folder, overwrite, is_model_directory, "model directory", size=bytes_of(sizes))
    with files.atomic_folder(folder, overwrite) as new:
        digest = write_weights(new / WEIGHTS, sizes, tensors)
        config = {"format": FORMAT, "shape": shape, "step": step, "tokenizer": tokenizer.fingerprint}
        files.write_json(new / CONFIG, {**config, "weights": {"sha256": digest}})
        files.write_text(new / TOKENIZER, tokenizer.to_json())
        files.write_json(new / GENERATION, generation or {})


def is_model_directory(folder: Path) -> bool:
    """Whether `save` may replace a folder: its config.json is of our format, whichever version."""
    try:
        config = files.read_object(folder / CONFIG)
    except UserError:
        return False
    return isinstance(config.get("format"), int) and "shape" in config


def has_model(path: Path) -> bool:
    """Whether a folder is a model directory, whole or damaged."""
    return path.is_dir() and ((path / CONFIG).exists() or (path / WEIGHTS).exists())


def read_config(folder: Path) -> dict:
    path = folder / CONFIG
    config = files.read_object(path, AGAIN)
    version = config.get("format")
    if not isinstance(version, int):
        theirs = "; one of Hugging Face becomes one: task=convert from=huggingface path=..." if "model_type" in config else ""
        raise UserError(f"{path} was not written by cngpt (it names no format); give a model directory that cngpt wrote{theirs}")
    if version != FORMAT:
        remedy = "update cngpt" if version > FORMAT else "load and save it with the cngpt that wrote it"
        raise UserError(f"{path} has format {version}, this cngpt reads format {FORMAT}; {remedy}")
    for key, kind in {"shape": dict, "weights": dict, "tokenizer": str}.items():
        if not isinstance(config.get(key), kind):
            raise UserError(f"{path} is damaged: {key} is missing; {AGAIN}")
    return config


def read(folder: Path, verify: bool) -> "tuple[dict, dict[str, Tensor], Tokenizer]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config, weights = read_config(folder), folder / WEIGHTS
    tokenizer = read_tokenizer(folder, config)
    try:
        if verify and files.sha256(weights) != config["weights"].get("sha256"):
            raise UserError(f"{weights} is damaged or changed: its sha256 is not the one in {CONFIG}; {AGAIN}")
        return config, load_file(weights), tokenizer
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing; {AGAIN}") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{weights} is damaged ({first_line(error)}); {AGAIN}") from None


def read_generation(folder: Path) -> dict:
    """How to sample by default; nothing where the folder does not say."""
    path = folder / GENERATION
    return files.read_object(path, AGAIN) if path.exists() else {}


def read_tokenizer(folder: Path, config: dict) -> Tokenizer:
    path = folder / TOKENIZER
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {AGAIN}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({first_line(error)}); {AGAIN}") from None
    tokenizer = parse_tokenizer(path, text)
    if tokenizer.fingerprint != config["tokenizer"]:
        raise UserError(f"{path} is not the one this model was trained with; {AGAIN}")
    return tokenizer


def parse_tokenizer(path: Path, text: str) -> Tokenizer:
    try:
        return Tokenizer.from_json(text)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def check_vocabulary(path: str | Path, shape: dict, tokenizer: Tokenizer) -> None:
    rows = shape["vocab_size"]
    if tokenizer.vocab_size > rows:  # fewer are fine: gpt2-ml's 15 GB release has 21,130 rows for 21,128 tokens
        raise UserError(
            f"{path}: the model has {rows:,} rows, its tokenizer {tokenizer.vocab_size:,} tokens: they do not go together"
        )
