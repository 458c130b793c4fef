"""In: the tensors of a GPT-2 as transformers saves it: .safetensors, or .bin of torch (since 1.6 a zip), whole or in shards."""

import re
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from cngpt import files
from cngpt.errors import UserError, first_line
from cngpt.interop.huggingface import names
from cngpt.interop.huggingface.architectures import ARCHITECTURES
from cngpt.model.shape import EMBEDDING, Shape
from cngpt.model.shape import tensors as tensors_of

if TYPE_CHECKING:
    from torch import Tensor

INDEX = ".index.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in this order, each whole or with an index of its shards
BUFFERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # the causal mask, which old versions saved
HEAD = "lm_head.weight"


def find_weights(folder: Path) -> tuple[Path, list[Path]]:
    """(the file with the weights, or the index of them; the files that hold them)."""
    for name in WEIGHTS:
        whole, index = folder / name, folder / (name + INDEX)
        if whole.is_file():
            return whole, [whole]
        if index.is_file():
            return index, _shards(index)
    raise UserError(f"{folder} has no weights: no {', no '.join(WEIGHTS)}, whole or in shards; fetch the whole model")


def read_weights(source: Path, parts: list[Path], shape: dict) -> "dict[str, Tensor]":
    """The tensors by our names and in our layout, of the type that they have in the files that `find_weights` found; the embedding
    has no padding rows. Raises UserError for what is damaged and for tensors that are not those of `shape`."""
    import torch

    architecture = ARCHITECTURES[shape["block"]]
    read = [_read_safetensors(part) if part.suffix == ".safetensors" else _read_pickle(part) for part in parts]
    state = {name.removeprefix(architecture.prefix): tensor for part in read for name, tensor in part.items()}
    state = {name: tensor for name, tensor in state.items() if not BUFFERS.fullmatch(name)}
    head = state.pop(HEAD, None)
    # counted before the names are listed, as a damaged n_layer may be huge
    layers = {name.split(".")[1] for name in state if name.startswith(("h.", "blocks."))}
    if len(layers) != shape["n_layer"]:
        raise UserError(f"{source} has {len(layers)} layers, {names.CONFIG} wants {shape['n_layer']}: they do not go together")
    sources = {name: (size, *architecture.tensor(name)) for name, size in tensors_of(Shape(**shape), padding=False).items()}
    sizes = {theirs: size[::-1] if transposed else size for size, theirs, transposed in sources.values()}
    for name in sorted(sizes.keys() | state.keys()):
        actual = tuple(state[name].shape) if name in state else None
        if actual != sizes.get(name):
            came, wanted = ("absent" if size is None else " x ".join(map(str, size)) for size in (actual, sizes.get(name)))
            raise UserError(f"{source}: tensor {name} is {came}, {names.CONFIG} wants {wanted}: they do not go together")
        if state[name].dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            dtype = str(state[name].dtype).removeprefix("torch.")
            raise UserError(f"{source}: tensor {name} is of {dtype}; quantized models cannot be read, fetch the original one")
    tensors = {ours: state[theirs].T if transposed else state[theirs] for ours, (_, theirs, transposed) in sources.items()}
    if head is not None and not torch.equal(head, tensors[EMBEDDING]):
        raise UserError(f"{source}: {HEAD} is not the token embedding; our head is tied to it, so this model cannot be read")
    return tensors


def _shards(index: Path) -> list[Path]:
    parts = files.read_object(index, names.AGAIN).get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(p, str) and Path(p).name == p for p in parts.values()):
        raise UserError(f"{index} is damaged: weight_map does not name files beside it; {names.AGAIN}")
    paths = [index.parent / name for name in sorted(set(parts.values()))]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise UserError(f"{index} names {len(paths)} files, and {missing[0]} is missing; {names.AGAIN}")
    return paths


def _read_safetensors(path: Path) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged ({first_line(error)}); {names.AGAIN}") from None


def _read_pickle(path: Path) -> "dict[str, Tensor]":
    """torch.load with weights_only: nothing in the file is run."""
    import torch

    try:
        # what is no zip is from before torch 1.6, and cannot be mapped
        zipped = zipfile.is_zipfile(path)
        if zipped:
            # torch.load does not compare the checksums
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise zipfile.BadZipFile(f"{damaged} is not what was written")
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # RuntimeError, UnpicklingError, KeyError ... by the kind of damage
        of_the_file = isinstance(error, zipfile.BadZipFile | zlib.error | EOFError | OSError | NotImplementedError)
        problem = "is damaged" if of_the_file else "is damaged or holds more than weights"
        raise UserError(f"{path} {problem} ({first_line(error)}); {names.AGAIN}") from None
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(t, torch.Tensor) for k, t in state.items()):
        raise UserError(f"{path} holds no plain state_dict; save the model with save_pretrained")
    return state
