"""In: a GPT-2 as transformers saves it, as a model directory of ours.

Weights: model.safetensors or pytorch_model.bin, whole or in shards. Tokenizers: see tokenizer.py. Nothing is fetched.
"""

import re
import zipfile
import zlib
from pathlib import Path

from cngpt import files, store
from cngpt.errors import ConfigError, UserError
from cngpt.interop.huggingface import generation, names, tokenizer
from cngpt.interop.huggingface.export import check_out

INDEX = ".index.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in this order, each whole or with an index of its shards
BUFFERS = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")  # the causal mask, which old versions saved
HEAD = "lm_head.weight"
GPT2_DEFAULTS = {  # of transformers' GPT2Config, for what a config.json leaves out
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "initializer_range": 0.02,
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
}
GPT2ML_KEYS = ("vocab_size", "n_ctx", "n_layer", "n_head", "width", "dropout", "initializer_range")
MUST = {  # what our block computes, the first value being the default there
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
}


def convert(path: str | Path, out: str | Path, vocab: str | Path | None = None, overwrite: bool = False) -> list[str]:
    """Reads the folder `path` and writes the model directory `out`, whole or not at all; returns notes, a line each, on what was
    decided on the way.

    `path`: a GPT2LMHeadModel, or what `export` wrote. `vocab`: a vocab.txt, a vocab.json beside its merges.txt or a tokenizer.json,
    instead of the folder's own. Tensors keep their type. Raises UserError, one line, for a model that our blocks do not compute and
    for files that are missing or damaged; a flipped bit in the weights is noticed in .bin files of torch 1.6 and later alone, the
    others, safetensors too, have no checksums.
    """
    folder, out = _folder(path), Path(out)
    config = _json(folder / names.CONFIG)
    shape, notes = _shape(folder / names.CONFIG, config)
    check_out(out, folder, overwrite, _is_ours, "model directory")
    ours, of_tokenizer = tokenizer.from_theirs(folder, vocab)
    if ours.vocab_size > shape["vocab_size"]:
        rows, entries = f"{shape['vocab_size']:,}", f"{ours.vocab_size:,}"
        raise UserError(
            f"{folder}: the model has {rows} rows, its tokenizer {entries} tokens; give its own vocabulary with vocab=..."
        )
    sampling, of_sampling = _generation(folder)
    gpt = _model(folder, shape)
    store.save(out, gpt, ours, sampling, overwrite)
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


def _is_ours(folder: Path) -> bool:
    try:
        return "format" in files.read_json(folder / store.CONFIG)
    except (OSError, ValueError, TypeError):
        return False


def _shape(where: Path, config: dict) -> tuple[dict, list[str]]:
    """(Shape as a dict, notes)."""
    kind, classes = config.get("model_type"), config.get("architectures")
    if kind is None and "format" in config:
        raise UserError(f"{where.parent} is a model directory of cngpt already; it can be used as it is")
    notes = []
    if kind == names.GPT2ML and classes == [names.GPT2ML_CLASS]:
        shape = {"block": "gpt2ml", **{key: config.get(key) for key in GPT2ML_KEYS}}
    elif kind == names.GPT2 and classes in (None, [names.GPT2_CLASS]):
        shape = _gpt2(where, {**GPT2_DEFAULTS, **config}, notes)
    else:
        raise UserError(
            f"{where}: model_type={kind}, architectures={classes}; only {names.GPT2} with {names.GPT2_CLASS} can be read,"
            " and what task=export wrote"
        )
    for key, value in shape.items():
        whole = key not in ("block", "dropout", "initializer_range")
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if key != "block" and not (number and (0 < value < 1 << 31 if whole else 0 <= value <= 1)):
            raise UserError(
                f"{where}: {key}={value} is no {'number of things' if whole else 'number from 0 to 1'}; fetch it again"
            )
    if shape["width"] % shape["n_head"]:
        raise UserError(f"{where}: width {shape['width']} does not divide into {shape['n_head']} heads; fetch it again")
    return shape, notes


def _gpt2(where: Path, config: dict, notes: list[str]) -> dict:
    for key, allowed in MUST.items():
        value = allowed[0] if config.get(key) is None else config[key]
        if value not in allowed:
            said = value if isinstance(value, int | float | str) else "given"
            only = "none" if allowed == (None,) else " or ".join(map(str, allowed))
            raise UserError(f"{where}: {key}={said}; our block computes {only} only, so this model cannot be read")
    width, inner = config["n_embd"], config.get("n_inner")
    if inner is not None and inner != 4 * width:
        raise UserError(
            f"{where}: n_inner={inner}; our block computes 4 x n_embd = {4 * width} only, so this model cannot be read"
        )
    dropouts = {key: config[key] for key in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
    if any(value != dropouts["resid_pdrop"] for value in dropouts.values()):
        said = ", ".join(f"{key}={value}" for key, value in dropouts.items())
        notes.append(f"dropout: {said}; ours is one number, {dropouts['resid_pdrop']} is taken")
    return {
        "block": "preln",
        "vocab_size": config["vocab_size"],
        "n_ctx": config["n_positions"],
        "n_layer": config["n_layer"],
        "n_head": config["n_head"],
        "width": width,
        "dropout": config["resid_pdrop"],
        "initializer_range": config["initializer_range"],
    }


def _generation(folder: Path) -> tuple[dict, list[str]]:
    path = folder / names.GENERATION
    if not path.exists():
        return {}, []
    try:
        return generation.to_ours(_json(path))
    except (ConfigError, TypeError) as error:
        raise UserError(f"{path}: {error}") from None


def _model(folder: Path, shape: dict):
    """The GPT on the CPU, its tensors of the type that they have in the files."""
    import torch

    from cngpt.model import GPT, Shape

    found, where = _read(folder)
    layers = {name.split(".")[1] for name in found if name.startswith(("h.", "blocks."))}
    if len(layers) != shape["n_layer"]:
        raise UserError(f"{where} has {len(layers)} layers, {names.CONFIG} wants {shape['n_layer']}: they do not go together")
    with torch.device("meta"):
        gpt = GPT(Shape(**shape))
    wanted = gpt.state_dict()
    tied = found.pop(HEAD, None)
    padding = wanted[store.EMBEDDING][shape["vocab_size"] :].shape
    wanted[store.EMBEDDING] = wanted[store.EMBEDDING][: shape["vocab_size"]]
    of = {name: names.theirs(shape["block"], name) for name in wanted}
    sizes = {theirs: tuple(wanted[ours].shape[::-1] if flip else wanted[ours].shape) for ours, (theirs, flip) in of.items()}
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

    state = {}
    for ours, (theirs, flip) in of.items():
        tensor = found.pop(theirs)
        state[ours] = tensor.T.contiguous() if flip else tensor.contiguous()
    state[store.EMBEDDING] = torch.cat([state[store.EMBEDDING], state[store.EMBEDDING].new_zeros(padding)])
    gpt.load_state_dict(state, assign=True)
    return gpt.eval()


def _read(folder: Path) -> tuple[dict, Path]:
    """(all tensors by name, without "transformer." and the old mask buffers; the file or index that they are from)."""
    for name in WEIGHTS:
        path, index = folder / name, folder / (name + INDEX)
        if path.is_file() or index.is_file():
            break
    else:
        raise UserError(f"{folder} has no weights: no {', no '.join(WEIGHTS)}, whole or in shards; fetch the whole model")
    whole = path.is_file()
    tensors = {}
    for part in [path] if whole else _shards(index):
        tensors |= _safetensors(part) if part.suffix == ".safetensors" else _pickle(part)
    named = {name.removeprefix(names.PREFIX): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in named.items() if not BUFFERS.fullmatch(name)}, path if whole else index


def _shards(index: Path) -> list[Path]:
    parts = _json(index).get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(p, str) and Path(p).name == p for p in parts.values()):
        raise UserError(f"{index} is damaged: weight_map does not name files beside it; fetch it again")
    paths = [index.parent / name for name in sorted(set(parts.values()))]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise UserError(f"{index} names {len(paths)} files, and {missing[0]} is missing; fetch the whole model")
    return paths


def _safetensors(path: Path) -> dict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from None


def _pickle(path: Path) -> dict:
    """torch.load with weights_only: nothing in the file is run."""
    import torch

    try:
        zipped = zipfile.is_zipfile(path)  # else from before torch 1.6, and not to be mapped
        if zipped:
            with zipfile.ZipFile(path) as archive:  # torch.load does not compare the checksums
                if damaged := archive.testzip():
                    raise UserError(f"{path} is damaged ({damaged} is not what was written); fetch it again")
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except UserError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise _damaged(path, error) from None
    except Exception as error:  # RuntimeError, UnpicklingError, KeyError ... by the kind of damage
        raise _damaged(path, error, " or holds more than weights") from None
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(t, torch.Tensor) for k, t in found.items()):
        raise UserError(f"{path} holds no plain state_dict; save the model with save_pretrained")
    return found


def _damaged(path: Path, error: Exception, what: str = "") -> UserError:
    said = str(error).strip().split("\n")[0][:200] or type(error).__name__
    return UserError(f"{path} is damaged{what} ({said}); fetch it again")


def _json(path: Path) -> dict:
    try:
        content = files.read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; fetch the whole model") from None
    except (ValueError, OSError, RecursionError) as error:
        raise _damaged(path, error) from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged (no JSON object); fetch it again")
    return content
