"""A model directory, read and written in this one place; training checkpoints and run directories are read here too.

    config.json         the model's shape, the format version, the checksum of the weights, the tokenizer's fingerprint
    model.safetensors   tensors named as in `GPT.state_dict()`, the embedding without its padding rows
    tokenizer.json      as Hugging Face's `tokenizers` reads it
    generation.json     how to sample by default

What is missing, damaged or of another make raises UserError: one line with the file and the remedy. torch is imported where
weights are needed, not before, so that `header` can refuse a wrong model at once.
"""

import hashlib
import json
import math
import os
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from cngpt import files, pieces
from cngpt.errors import UserError
from cngpt.tokens import Tokenizer

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from cngpt.model import GPT, Shape

FORMAT = 1
CONFIG, WEIGHTS, TOKENIZER, GENERATION = "config.json", "model.safetensors", "tokenizer.json", "generation.json"
EMBEDDING = "tok.weight"
KEY = "cngpt"  # in a training checkpoint: {"shape", "tokenizer", "generation", "training", "step"}
AGAIN = "copy the whole model directory again"
SPARE = 128  # rows of an embedding that may have no token: some trainers round up
PREFIX = "gpt."  # of the model's tensors in a training checkpoint


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


def sizes_of(tensors: "dict[str, Tensor]") -> "dict[str, tuple[torch.dtype, tuple[int, ...]]]":
    """Type and shape of each, ordered so that every tensor of a file will be aligned, as the format asks."""
    return {name: (t.dtype, tuple(t.shape)) for name, t in sorted(tensors.items(), key=lambda item: -item[1].itemsize)}


def write(
    folder: str | Path,
    shape: dict,
    sizes: "dict[str, tuple[torch.dtype, tuple[int, ...]]]",
    tensors: "Iterable[Tensor]",
    tokenizer: Tokenizer,
    generation: dict | None = None,
    overwrite: bool = False,
    step: int | None = None,
) -> None:
    """`save` for a model that is not in memory: `tensors` come one by one, in the order of `sizes` and as large as it says."""
    _check_vocabulary(folder, shape, tokenizer)
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


def bytes_of(sizes: dict) -> int:
    return sum(math.prod(size) * dtype.itemsize for dtype, size in sizes.values())


def write_weights(path: Path, sizes: dict, tensors: "Iterable[Tensor]") -> str:
    """A .safetensors file (8 bytes length, a JSON header, the tensors end to end), and its sha256.

    Written here because the library wants all tensors in memory at once. https://huggingface.co/docs/safetensors has the format.
    """
    import torch

    codes = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, size) in sizes.items():
        start, end = end, end + math.prod(size) * dtype.itemsize
        header[name] = {"dtype": codes[dtype], "shape": list(size), "data_offsets": [start, end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    digest = hashlib.sha256()
    with open(path, "wb") as file:

        def put(block) -> None:
            digest.update(block)
            file.write(block)

        put(len(head).to_bytes(8, "little"))
        put(head)
        for (name, (dtype, size)), tensor in zip(sizes.items(), tensors, strict=True):
            if (tensor.dtype, tuple(tensor.shape)) != (dtype, size):
                raise ValueError(f"{name}: {tensor.dtype} {tuple(tensor.shape)} came, {dtype} {size} was announced")
            put(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def load(path: str | Path, device="cpu", verify: bool = True) -> "tuple[GPT, Tokenizer]":
    """The model, in eval mode, and its tokenizer, from any of

    - a model directory
    - a training checkpoint `step_*.ckpt`, a file or a folder of pieces (cngpt/pieces.py)
    - a run directory: its `model/`, else its newest checkpoint

    `verify` compares the weights with their checksums. They have the type that they have in the file.
    """
    from cngpt.model import Shape

    path = _find(path)
    if of_model := _is_model(path):
        about, tensors, tokenizer = _read_folder(path, verify)
        where = path / WEIGHTS
    else:
        if verify:
            verify_checkpoint(path)
        about, tensors = _read_checkpoint(path)
        tokenizer = _tokenizer(path, about["tokenizer"])
        where = path
    try:
        shape = Shape(**about["shape"])
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{path} describes no model that this cngpt knows ({files.first_line(error)}); use the cngpt that wrote it"
        ) from None
    _check_vocabulary(path, about["shape"], tokenizer)

    gpt, wanted = bare(shape)
    if not of_model and EMBEDDING in tensors:
        tensors[EMBEDDING] = tensors[EMBEDDING][: shape.vocab_size]
    _check_tensors(where, wanted, _shapes(tensors))
    tensors[EMBEDDING] = padded(tensors[EMBEDDING])
    # copied, so that nothing depends on the file any more: training rotates its checkpoints
    gpt.load_state_dict({name: tensor.to(device, copy=True) for name, tensor in tensors.items()}, assign=True)
    return gpt.eval(), tokenizer


def bare(shape: "Shape") -> "tuple[GPT, dict[str, tuple[int, ...]]]":
    """A model without memory or random numbers, and the shapes that its tensors have in a file: without padding rows."""
    import torch

    from cngpt.model import GPT

    with torch.device("meta"):
        gpt = GPT(shape)
    return gpt, {**_shapes(gpt.state_dict()), EMBEDDING: (shape.vocab_size, shape.width)}


def padded(embedding: "Tensor") -> "Tensor":
    """(V, D) -> (rows of `GPT.tok`, D): the embedding of a file with the padding rows of a model in memory."""
    import torch

    from cngpt.model.gpt import PAD_TO

    return torch.cat([embedding, embedding.new_zeros(-len(embedding) % PAD_TO, embedding.shape[1])])


def header(path: str | Path) -> dict:
    """What is known without reading weights: {"kind": "model" or "checkpoint", "path", "shape": {...}, "step": int or None,
    "tokenizer": Tokenizer, "generation": {...}, "training": {...}}. `training` holds the settings that a resumed run must
    keep, as keys and values (empty for a model directory). `path` as in `load`."""
    found = _find(path)
    if of_model := _is_model(found):
        config, generation = _config(found), found / GENERATION
        about = {**config, "generation": files.read_object(generation, AGAIN) if generation.exists() else {}}
        tokenizer = _folder_tokenizer(found, config)
    else:
        about = _open_checkpoint(found)[KEY]
        tokenizer = _tokenizer(found, about["tokenizer"])
    kind = "model" if of_model else "checkpoint"
    known = {"shape": dict(about["shape"]), "step": about.get("step"), "tokenizer": tokenizer}
    rest = {key: dict(about.get(key) or {}) for key in ("generation", "training")}
    return {"kind": kind, "path": str(found), **known, **rest}


def newest(runs: str | Path) -> Path | None:
    """The run directory under `runs` whose model or checkpoint was written last."""
    runs = Path(runs)
    folders = [run for run in runs.iterdir() if run.is_dir()] if runs.is_dir() else []
    found = [(_written(what), run) for run in folders if (what := _of_run(run))]
    return max(found)[1] if found else None


def _find(path: str | Path) -> Path:
    """The model directory or the checkpoint that `path` means."""
    if files.is_remote(path):
        raise UserError(f"{path} is not on this machine; copy it here first")
    path = Path(path)
    if not path.exists():
        raise UserError(f"there is no {path}; give a model directory, a run directory or a checkpoint step_*.ckpt")
    if path.is_file() or _is_model(path) or pieces.are_in(path):
        return path
    if found := _of_run(path):
        return found
    raise UserError(f"{path} is no model: it has no {CONFIG}, no model/ and no checkpoints/step_*.ckpt")


def _is_model(path: Path) -> bool:
    return path.is_dir() and ((path / CONFIG).exists() or (path / WEIGHTS).exists())


def _of_run(run: Path) -> Path | None:
    # the step has a fixed number of digits, so the last name is the newest
    newest = max(run.glob("checkpoints/step_*.ckpt"), default=None)
    model = run / "model"
    if not (model / CONFIG).exists():
        return newest
    # a finished run that was resumed has a model/ of the earlier end until it ends again
    step = _config(model).get("step")
    return newest if newest and isinstance(step, int) and newest.name > f"step_{step:08d}.ckpt" else model


def _written(what: Path) -> float:
    return (what / CONFIG if what.suffix != ".ckpt" else what).stat().st_mtime


def _read_folder(folder: Path, verify: bool) -> "tuple[dict, dict[str, Tensor], Tokenizer]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config, weights = _config(folder), folder / WEIGHTS
    tokenizer = _folder_tokenizer(folder, config)
    try:
        if verify and files.sha256(weights) != config["weights"].get("sha256"):
            raise UserError(
                f"{weights} is damaged or changed: its sha256 is not the one in {CONFIG}; copy the model directory again"
            )
        return config, load_file(weights), tokenizer
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is missing; {AGAIN}") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{weights} is damaged ({files.first_line(error)}); copy the model directory again") from None


def _folder_tokenizer(folder: Path, config: dict) -> Tokenizer:
    path = folder / TOKENIZER
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {AGAIN}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({files.first_line(error)}); copy the model directory again") from None
    tokenizer = _tokenizer(path, text)
    if tokenizer.fingerprint != config["tokenizer"]:
        raise UserError(f"{path} is not the one this model was trained with; copy the model directory again")
    return tokenizer


def _config(folder: Path) -> dict:
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
            raise UserError(f"{path} is damaged: {key} is missing; copy the model directory again")
    return config


def verify_checkpoint(path: Path) -> None:
    """Raises UserError, naming the checkpoint before it, unless every byte of a checkpoint is as it was written:
    torch.load does not compare the checksums that torch.save writes."""
    if path.is_dir():
        pieces.verify(path)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise pieces.damaged(path, f"{damaged} is not what was written")
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise pieces.damaged(path, files.first_line(error)) from None


def _open_checkpoint(path: Path) -> dict:
    """The whole checkpoint; tensors stay on disk until they are used."""
    checkpoint = pieces.read(path) if path.is_dir() else pieces.read_file(path)
    about = checkpoint.get(KEY) if isinstance(checkpoint, dict) else None
    if not (isinstance(about, dict) and {"shape", "tokenizer"} <= about.keys()):
        raise UserError(f"{path} was not written by cngpt's training; give a step_*.ckpt of a run, or a model directory")
    return checkpoint


def _read_checkpoint(path: Path) -> "tuple[dict, dict[str, Tensor]]":
    checkpoint = _open_checkpoint(path)
    state = checkpoint.get("state_dict", {})
    return checkpoint[KEY], {name.removeprefix(PREFIX): tensor for name, tensor in state.items() if name.startswith(PREFIX)}


def _tokenizer(where: Path, text: str) -> Tokenizer:
    try:
        return Tokenizer.from_json(text)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _check_vocabulary(where: str | Path, shape: dict, tokenizer: Tokenizer) -> None:
    rows = shape["vocab_size"]
    if tokenizer.vocab_size > rows:  # fewer are fine: gpt2-ml's 15 GB release has 21,130 rows for 21,128 tokens
        raise UserError(
            f"{where}: the model has {rows:,} rows, its tokenizer {tokenizer.vocab_size:,} tokens: they do not go together"
        )


def _shapes(tensors: "dict[str, Tensor]") -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _check_tensors(where: Path, wanted: dict[str, tuple], found: dict[str, tuple]) -> None:
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            came, want = (" x ".join(map(str, s[name])) if name in s else "absent" for s in (found, wanted))
            raise UserError(f"{where}: tensor {name} is {came}, the model's shape wants {want}: they do not go together")
