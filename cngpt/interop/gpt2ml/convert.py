"""A checkpoint of gpt2-ml to a model directory, or to a training checkpoint that goes on from its step."""

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import torch

from cngpt import files, store
from cngpt.bar import Bar
from cngpt.errors import ConfigError, UserError
from cngpt.interop.gpt2ml import mapping, unindexed
from cngpt.interop.gpt2ml.bundle import Bundle
from cngpt.interop.gpt2ml.vocabulary import doubts, tokenizer_for
from cngpt.model import Shape
from cngpt.tokens import Tokenizer

RELEASES = {  # sha256 of the .data file, from the seed's README
    "4a6e5124df8db7ac2bdd902e6191b807a6983a7f5d09fb10ce011f9a073b183e": "gpt2-ml's 15 GB release",
    "e698cc97a7f5f706f84f58bb469d614e51d3c0ce5f9ab9bf77e01e3fcb41d482": "gpt2-ml's 30 GB release",
}
OPTIMIZER = {"name": "gpt2ml_adafactor", "lr": 1e-4, "weight_decay": 0.01, "beta2": 0.999, "clip_update": 1.0}
SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")  # of its JSON
SCHEDULE = {"name": "gpt2ml", "warmup_steps": 10_000, "total_steps": 800_000}
ALIGNED = 64  # bytes


def convert(
    path: str | Path,
    out: str | Path,
    vocab: str | None = None,
    config: str | Path | None = None,
    eos: str | None = None,
    optimizer: bool = False,
    overwrite: bool = False,
) -> list[str]:
    """Reads the checkpoint at `path` (see Bundle.open; a .data file without its .index will do) and writes `out`.

    vocab: its vocab.txt, `clue` or `bert`; None: the one that goes with its embedding. config: the seed's JSON, where it has not
    one head for 64 of its width. eos: the token that ends a text; None: as the seed's demo had it. optimizer: `out` becomes a run
    directory whose training checkpoint holds the optimizer's state and step too, instead of a model directory.
    Returns what is worth knowing, a line each. Every checksum is compared. Raises UserError or ConfigError, and then `out` is as
    it was; what `overwrite` replaces is a folder as this writes it.
    """
    out, alone = Path(out), unindexed.find(Path(path))
    sizes = _json(config, alone is not None) if config else None
    bundle = unindexed.open(alone, sizes, vocab) if alone else Bundle.open(path)
    try:
        where = str(alone or path)
        shapes = {name: entry.shape for name, entry in bundle.entries.items()}
        shape = mapping.shape_of(shapes, sizes, where)
        _check_names(bundle, shape, optimizer, where)
        weights = sum(entry.size for entry in bundle.entries.values())
        kind = (_is_converted_run, "converted run") if optimizer else (store.is_model_directory, "model directory")
        given = [path, *bundle.files, *(file for file in (vocab, config) if file and Path(file).exists())]
        files.check_out(out, overwrite, *kind, given, weights * (1 + optimizer))
        tokenizer = tokenizer_for(vocab, shape.vocab_size, eos)
        step = int(bundle.read(mapping.STEP)) if mapping.STEP in bundle.entries else None
        release, digests = _origin(bundle)
        notes = [_about(shape, step, tokenizer), *digests, *doubts(tokenizer)]
        doubtful = alone is not None and not release
        if doubtful:
            notes.append(f"warning: {alone.name} has no .index, whose checksums would show a damage; its size alone is right")
        names = {*mapping.variables(shape, slots=optimizer)} & {*bundle.entries}
        for name in bundle.entries.keys() - names:  # not converted, but a damage there may not be the only one
            bundle.read(name)
        with Bar(sum(bundle.entries[name].size for name in names), title="converting") as bar:

            def read(name: str) -> np.ndarray:
                array = bundle.read(name)
                if doubtful:
                    unindexed.check(name, array, alone)
                bar(array.nbytes)
                return array

            if optimizer:
                _training_checkpoint(out, shape, tokenizer, read, int(step), overwrite)
            else:
                sizes = {name: (torch.float32, size) for name, size in mapping.parameters(shape).items()}
                weights = (torch.from_numpy(_writable(array)) for _, array in mapping.tensors(shape, read))
                store.write(out, shape.as_dict(), sizes, weights, tokenizer, overwrite=overwrite, step=step)
        return notes
    finally:
        bundle.close()


def _training_checkpoint(out: Path, shape: Shape, tokenizer: Tokenizer, read, step: int, overwrite: bool) -> None:
    """`out`/checkpoints/step_<step>.ckpt. The weights wait in a file on the way, mapped, so that memory never holds them all."""
    from cngpt.training.assemble import assemble

    about = {"shape": shape.as_dict(), "tokenizer": tokenizer.to_json(), "generation": {}}
    about["training"] = {"optim.name": OPTIMIZER["name"]}
    with files.atomic_folder(out, overwrite) as new, tempfile.TemporaryFile(dir=new.parent) as waiting:
        places = {}
        for name, array in mapping.tensors(shape, read):
            if name == store.EMBEDDING:
                array = store.padded(torch.from_numpy(_writable(array))).numpy()
            waiting.seek(-waiting.tell() % ALIGNED, 1)
            places[name] = (waiting.tell(), array.shape)
            waiting.write(array.data)
        waiting.flush()
        weights = {
            name: torch.from_numpy(np.memmap(waiting, np.float32, mode="c", offset=offset, shape=size))
            for name, (offset, size) in places.items()
        }

        def slots(name: str) -> dict[str, torch.Tensor]:
            return {key: torch.from_numpy(array.copy()) for key, array in mapping.slots(name, read).items()}

        checkpoint = assemble(shape, weights, slots, OPTIMIZER, SCHEDULE, step, about)
        (new / "checkpoints").mkdir()
        with open(new / "checkpoints" / f"step_{step:08d}.ckpt", "wb") as file:  # by its path, torch hides what the system says
            torch.save(checkpoint, file)


def _is_converted_run(folder: Path) -> bool:
    """Whether a folder holds what `_training_checkpoint` wrote, and nothing that was trained or put there since."""
    inside = [path.relative_to(folder) for path in folder.rglob("*")]
    checkpoints = [path for path in inside if path.match("checkpoints/step_*.ckpt") and len(path.parts) == 2]
    return len(checkpoints) == 1 and {*inside} == {Path("checkpoints"), *checkpoints}


def _check_names(bundle: Bundle, shape: Shape, optimizer: bool, where: str) -> None:
    if left := mapping.surplus(bundle.entries, shape):
        raise UserError(
            f"{where}: {left[0]}{f' and {len(left) - 1} more' if len(left) > 1 else ''} belong to no model of gpt2-ml"
        )
    for name, entry in bundle.entries.items():
        want = np.dtype(np.int64 if name == mapping.STEP else np.float32)
        if entry.dtype != want:
            raise UserError(f"{where}: {name} is {entry.dtype}, and gpt2-ml wrote {want}; save it so")
    wanted = mapping.variables(shape)
    for name, entry in bundle.entries.items():
        if entry.shape != wanted[name]:
            raise UserError(
                f"{where}: {name} is {list(entry.shape)}, and belongs to a tensor for which it would be {list(wanted[name])}"
            )
    if optimizer and (missing := sorted(wanted.keys() - bundle.entries.keys())):
        raise ConfigError(
            f"optimizer=true: {where} holds no state of the optimizer ({missing[0]} is missing); leave it out for a model directory"
        )


def _about(shape: Shape, step: int | None, tokenizer: Tokenizer) -> str:
    trained = "" if step is None else f", step {step:,}"
    end = tokenizer.token(tokenizer.eos_id)
    return (
        f"{shape.n_layer} layers x {shape.width}, {shape.n_head} heads, {shape.vocab_size:,} rows for {tokenizer.vocab_size:,} tokens"
        f" ({tokenizer.name}){trained}; a text ends with {end} ({tokenizer.eos_id})"
    )


def _origin(bundle: Bundle) -> tuple[str | None, list[str]]:
    """(which release it is, if it is one; the sha256 of each data file in words)."""
    release, said = None, []
    for data in bundle.files:
        digest = hashlib.sha256()
        with Bar(data.stat().st_size, title="sha256") as bar, open(data, "rb") as file:
            while block := file.read(files.BLOCK):
                digest.update(block)
                bar(len(block))
        known = RELEASES.get(digest.hexdigest())
        release = known or release
        said.append(f"sha256 {digest.hexdigest()}: {known or 'neither of the two releases of gpt2-ml'}")
    return release, said


def _json(path: str | Path, alone: bool) -> dict:
    """The seed's JSON. `alone`: nothing else tells the sizes, so that it has to name all of them."""
    try:
        sizes = files.read_object(path, "give the JSON of the seed's configs/, such as mega.json")
    except UserError as error:
        raise ConfigError(f"config={error}") from None
    needed = SIZES if alone else ("hidden_size", "num_hidden_layers")
    if missing := [key for key in needed if key not in sizes]:
        raise ConfigError(
            f"config={path}: has no {' and no '.join(missing)}; give the JSON of the seed's configs/, such as mega.json"
        )
    for key in mapping.CONFIG_KEYS.keys() & sizes.keys():
        value, whole = sizes[key], key in SIZES
        number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not (number and (1 <= value < 1 << 31 if whole else 0 <= value <= 1)):
            must = "a whole number from 1" if whole else "a number from 0 to 1"
            raise ConfigError(f"config={path}: {key}={value} must be {must}; give the JSON that it was trained with")
    return sizes


def _writable(array: np.ndarray) -> np.ndarray:
    """torch warns of arrays that it could not write into."""
    return array if array.flags.writeable else array.copy()
