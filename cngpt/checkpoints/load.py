"""A model and its tokenizer from whatever holds them: a model directory, a training checkpoint, a run directory.

torch is imported where weights are needed, not before, so that `header` can refuse a wrong model at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cngpt import files, runs
from cngpt.checkpoints import model_directory, training_checkpoint
from cngpt.checkpoints.distributed import is_distributed
from cngpt.errors import UserError, first_line
from cngpt.model import shape as shapes
from cngpt.model.shape import EMBEDDING, Shape
from cngpt.tokens import Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from cngpt.model.gpt import GPT


@dataclass(frozen=True)
class Header:
    """What is known of a model without reading its weights."""

    kind: Literal["model", "checkpoint"]
    path: Path  # of the model directory or checkpoint
    shape: dict[str, Any]  # what `Shape` takes
    step: int | None  # how long it was trained
    tokenizer: Tokenizer
    generation: dict[str, Any]  # how to sample by default
    training: dict[str, Any]  # settings that a resumed run must keep; empty of a model directory


def header(path: str | Path) -> Header:
    """The header of what `path` means, as in `load`."""
    path = find(path)
    if model_directory.has_model(path):
        config = model_directory.read_config(path)
        metadata = {**config, "generation": model_directory.read_generation(path)}
        kind, tokenizer = "model", model_directory.read_tokenizer(path, config)
    else:
        metadata = training_checkpoint.read_with_header(path)[training_checkpoint.HEADER]
        kind, tokenizer = "checkpoint", model_directory.parse_tokenizer(path, metadata["tokenizer"])
    generation, training = (dict(metadata.get(key) or {}) for key in ("generation", "training"))
    return Header(kind, path, dict(metadata["shape"]), metadata.get("step"), tokenizer, generation, training)


def load(path: str | Path, device="cpu", verify: bool = True) -> "tuple[GPT, Tokenizer]":
    """The model, in eval mode, and its tokenizer, from any of

    - a model directory
    - a training checkpoint `step_*.ckpt`, a file or a folder
    - a run directory: its `model/`, else its newest checkpoint

    `verify` compares the weights with their checksums. They have the type that they have in the file.
    """
    path = find(path)
    if model_directory.has_model(path):
        metadata, tensors, tokenizer = model_directory.read(path, verify)
        source = path / model_directory.WEIGHTS
        shape = _shape(path, metadata)
    else:
        if verify:
            training_checkpoint.verify(path)
        checkpoint = training_checkpoint.read_with_header(path)
        metadata, tensors = checkpoint[training_checkpoint.HEADER], training_checkpoint.weights_of(checkpoint)
        tokenizer, source = model_directory.parse_tokenizer(path, metadata["tokenizer"]), path
        shape = _shape(path, metadata)
        if EMBEDDING in tensors:  # there with its padding rows
            tensors[EMBEDDING] = tensors[EMBEDDING][: shape.vocab_size]
    model_directory.check_vocabulary(path, metadata["shape"], tokenizer)
    check_tensors(source, shape, tensors)
    return model_of(shape, tensors, device), tokenizer


def model_of(shape: Shape, tensors: "dict[str, Tensor]", device="cpu") -> "GPT":
    """A model in eval mode with these weights, the embedding without padding rows.

    They are copied, so that nothing depends on the file that they came from: training rotates its checkpoints.
    """
    gpt = without_memory(shape)
    tensors = {**tensors, EMBEDDING: with_padding(tensors[EMBEDDING])}
    gpt.load_state_dict({name: tensor.to(device, copy=True) for name, tensor in tensors.items()}, assign=True)
    return gpt.eval()


def without_memory(shape: Shape) -> "GPT":
    """A model without memory or random numbers, on torch's meta device."""
    import torch

    from cngpt.model.gpt import GPT

    with torch.device("meta"):
        return GPT(shape)


def with_padding(embedding: "Tensor") -> "Tensor":
    """(V, D) -> (rows of `GPT.tok`, D): the embedding of a file with the padding rows of a model in memory."""
    import torch

    more = shapes.padded(len(embedding)) - len(embedding)
    return torch.cat([embedding, embedding.new_zeros(more, embedding.shape[1])])


def check_tensors(source: Path, shape: Shape, tensors: "dict[str, Tensor]") -> None:
    """UserError unless these are the tensors of such a model, the embedding without padding rows; `source` is named in it."""
    wanted, present = shapes.tensors(shape, padding=False), {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(wanted.keys() | present.keys()):
        if wanted.get(name) != present.get(name):
            came, want = (" x ".join(map(str, sizes[name])) if name in sizes else "absent" for sizes in (present, wanted))
            raise UserError(f"{source}: tensor {name} is {came}, the model's shape wants {want}: they do not go together")


def find(path: str | Path) -> Path:
    """The model directory or the checkpoint that `path` means; UserError where it means none."""
    if files.is_remote(path):
        raise UserError(f"{path} is not on this machine; copy it here first")
    path = Path(path)
    if not path.exists():
        raise UserError(f"there is no {path}; give a model directory, a run directory or a checkpoint step_*.ckpt")
    if path.is_file() or model_directory.has_model(path) or is_distributed(path):
        return path
    if newest := _newest_of(runs.Run(path)):
        return newest
    raise UserError(f"{path} is no model: it has no {model_directory.CONFIG}, no model/ and no checkpoints/step_*.ckpt")


def newest_run(folder: str | Path) -> Path | None:
    """The run directory in `folder` whose model or checkpoint was written last."""
    folder = Path(folder)
    candidates = [run for run in folder.iterdir() if run.is_dir()] if folder.is_dir() else []
    written = [(_time_of(newest), run) for run in candidates if (newest := _newest_of(runs.Run(run)))]
    return max(written)[1] if written else None


def _newest_of(run: runs.Run) -> Path | None:
    """The model directory of a run, or the checkpoint that is newer: a finished run that was resumed has the model of its earlier end."""
    checkpoint = run.newest_checkpoint()
    if not (run.model / model_directory.CONFIG).exists():
        return checkpoint
    step = model_directory.read_config(run.model).get("step")
    return checkpoint if checkpoint and isinstance(step, int) and runs.step_of(checkpoint) > step else run.model


def _time_of(path: Path) -> float:
    return (path if path.suffix == runs.SUFFIX else path / model_directory.CONFIG).stat().st_mtime


def _shape(path: Path, metadata: dict) -> Shape:
    try:
        return Shape(**metadata["shape"])
    except (UserError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} describes no model that this cngpt knows ({first_line(error)}); use the cngpt that wrote it"
        ) from None
