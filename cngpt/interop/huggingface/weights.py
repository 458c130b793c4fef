"""In: the tensors of a GPT-2 as transformers saves it: .safetensors, or .bin of torch (since 1.6 a zip), whole or in shards."""

import re
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from cngpt import files, store
from cngpt.errors import UserError
from cngpt.interop.huggingface import names

if TYPE_CHECKING:
    from torch import Tensor

INDEX = ".index.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in this order, each whole or with an index of its shards
BUFFERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # the causal mask, which old versions saved
HEAD = "lm_head.weight"


def find(folder: Path) -> tuple[Path, list[Path]]:
    """(the file with the weights, or the index of them; the files that hold them)."""
    for name in WEIGHTS:
        whole, index = folder / name, folder / (name + INDEX)
        if whole.is_file():
            return whole, [whole]
        if index.is_file():
            return index, _shards(index)
    raise UserError(f"{folder} has no weights: no {', no '.join(WEIGHTS)}, whole or in shards; fetch the whole model")


def read(where: Path, parts: list[Path], shape: dict) -> "dict[str, Tensor]":
    """The tensors by our names and in our layout, of the type that they have in the files that `find` found; the embedding has no
    padding rows. Raises UserError for what is damaged and for tensors that are not those of `shape`."""
    import torch

    from cngpt.model import Shape

    found = {}
    for part in parts:
        tensors = _safetensors(part) if part.suffix == ".safetensors" else _pickle(part)
        found |= {name.removeprefix(names.PREFIX): tensor for name, tensor in tensors.items()}
    found = {name: tensor for name, tensor in found.items() if not BUFFERS.fullmatch(name)}
    layers = {name.split(".")[1] for name in found if name.startswith(("h.", "blocks."))}
    if len(layers) != shape["n_layer"]:
        raise UserError(f"{where} has {len(layers)} layers, {names.CONFIG} wants {shape['n_layer']}: they do not go together")
    tied = found.pop(HEAD, None)
    _, wanted = store.bare(Shape(**shape))
    of = {name: names.theirs(shape["block"], name) for name in wanted}
    sizes = {theirs: wanted[ours][::-1] if flip else wanted[ours] for ours, (theirs, flip) in of.items()}
    for name in sorted(sizes.keys() | found.keys()):
        came = tuple(found[name].shape) if name in found else None
        if came != sizes.get(name):
            came, want = (" x ".join(map(str, size)) if size is not None else "absent" for size in (came, sizes.get(name)))
            raise UserError(f"{where}: tensor {name} is {came}, {names.CONFIG} wants {want}: they do not go together")
        if found[name].dtype not in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
            kind = str(found[name].dtype).removeprefix("torch.")
            raise UserError(f"{where}: tensor {name} is of {kind}; quantized models cannot be read, fetch the original one")
    if tied is not None and not torch.equal(tied, found[of[store.EMBEDDING][0]]):
        raise UserError(f"{where}: {HEAD} is not the token embedding; our head is tied to it, so this model cannot be read")
    return {ours: found[theirs].T if flip else found[theirs] for ours, (theirs, flip) in of.items()}


def _shards(index: Path) -> list[Path]:
    parts = files.read_object(index, names.AGAIN).get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(p, str) and Path(p).name == p for p in parts.values()):
        raise UserError(f"{index} is damaged: weight_map does not name files beside it; {names.AGAIN}")
    paths = [index.parent / name for name in sorted(set(parts.values()))]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise UserError(f"{index} names {len(paths)} files, and {missing[0]} is missing; {names.AGAIN}")
    return paths


def _safetensors(path: Path) -> dict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is damaged ({files.first_line(error)}); {names.AGAIN}") from None


def _pickle(path: Path) -> dict:
    """torch.load with weights_only: nothing in the file is run."""
    import torch

    try:
        zipped = zipfile.is_zipfile(path)  # else from before torch 1.6, and not to be mapped
        if zipped:
            with zipfile.ZipFile(path) as archive:  # torch.load does not compare the checksums
                if damaged := archive.testzip():
                    raise zipfile.BadZipFile(f"{damaged} is not what was written")
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # RuntimeError, UnpicklingError, KeyError ... by the kind of damage
        of_the_file = isinstance(error, zipfile.BadZipFile | zlib.error | EOFError | OSError | NotImplementedError)
        what = "is damaged" if of_the_file else "is damaged or holds more than weights"
        raise UserError(f"{path} {what} ({files.first_line(error)}); {names.AGAIN}") from None
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(t, torch.Tensor) for k, t in found.items()):
        raise UserError(f"{path} holds no plain state_dict; save the model with save_pretrained")
    return found
