"""A checkpoint of gpt2-ml to a model directory, or to a training checkpoint that goes on from its step."""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cngpt import checkpoints, files, runs
from cngpt.checkpoints.load import with_padding
from cngpt.checkpoints.model_directory import write as write_model
from cngpt.interop.gpt2ml import mapping, sizes
from cngpt.interop.gpt2ml.bundle import Bundle
from cngpt.interop.gpt2ml.unindexed import check_numbers, find_data_file, open_data_file
from cngpt.interop.gpt2ml.vocabulary import doubts, tokenizer_for
from cngpt.model.shape import EMBEDDING, Shape
from cngpt.model.shape import tensors as tensors_of
from cngpt.progress import Bar
from cngpt.tokens import Tokenizer
from cngpt.training.schedule import Gpt2ml
from cngpt.training.settings import Gpt2mlAdafactor

# sha256 of the .data file, from the seed's README
RELEASES = {
    "4a6e5124df8db7ac2bdd902e6191b807a6983a7f5d09fb10ce011f9a073b183e": "gpt2-ml's 15 GB release",
    "e698cc97a7f5f706f84f58bb469d614e51d3c0ce5f9ab9bf77e01e3fcb41d482": "gpt2-ml's 30 GB release",
}
OPTIMIZER = Gpt2mlAdafactor(lr=1e-4, weight_decay=0.01)
SCHEDULE = Gpt2ml(warmup_steps=10_000, total_steps=800_000)
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
    out, lone = Path(out), find_data_file(Path(path))
    settings = sizes.read_config(config, complete=lone is not None) if config else None
    with open_data_file(lone, settings, vocab) if lone else Bundle.open(path) as bundle:
        entries, source = bundle.entries, str(lone or path)
        shape = sizes.shape_of({name: entry.shape for name, entry in entries.items()}, settings, source)
        sizes.check_variables(entries, shape, optimizer, source)
        kind = (_is_converted_run, "converted run") if optimizer else (checkpoints.is_model_directory, "model directory")
        sources = [path, *bundle.files, *(file for file in (vocab, config) if file and Path(file).exists())]
        files.check_out(out, overwrite, *kind, sources, sum(entry.size for entry in entries.values()) * (1 + optimizer))
        tokenizer = tokenizer_for(vocab, shape.vocab_size, eos)
        step = int(bundle.read(mapping.STEP)) if mapping.STEP in entries else None
        release, digests = _origin(bundle)
        notes = [_summary(shape, step, tokenizer), *digests, *doubts(tokenizer)]
        doubtful = lone is not None and not release
        if doubtful:
            notes.append(f"warning: {lone.name} has no .index, whose checksums would show a damage; its size alone is right")
        names = mapping.variables(shape, slots=optimizer).keys() & entries.keys()
        # not converted, but a damage there may not be the only one
        for name in entries.keys() - names:
            bundle.read(name)
        with Bar(sum(entries[name].size for name in names), title="converting") as bar:

            def read(name: str) -> np.ndarray:
                array = bundle.read(name)
                if doubtful:
                    check_numbers(name, array, lone)
                bar(array.nbytes)
                return array

            if optimizer:
                _write_run(out, shape, tokenizer, read, step, overwrite)
            else:
                types = {name: (torch.float32, size) for name, size in tensors_of(shape, padding=False).items()}
                weights = (_tensor(array) for _, array in mapping.tensors(shape, read))
                write_model(out, shape.as_dict(), types, weights, tokenizer, overwrite=overwrite, step=step)
        return notes


def _write_run(out: Path, shape: Shape, tokenizer: Tokenizer, read: Callable[[str], np.ndarray], step: int, overwrite: bool):
    """`out`/checkpoints/step_<step>.ckpt. The weights go through a temporary file, mapped, so that memory never holds them all."""
    from cngpt.training.assemble import assemble

    metadata = {"shape": shape.as_dict(), "tokenizer": tokenizer.to_json(), "generation": {}}
    metadata["training"] = {"optim.name": OPTIMIZER.name}

    def slots(name: str) -> dict[str, torch.Tensor]:
        return {key: torch.from_numpy(array.copy()) for key, array in mapping.slots(name, read).items()}

    with files.atomic_folder(out, overwrite) as new, tempfile.TemporaryFile(dir=new.parent) as buffer:
        positions = {}
        for name, array in mapping.tensors(shape, read):
            if name == EMBEDDING:
                array = with_padding(_tensor(array)).numpy()
            buffer.seek(-buffer.tell() % ALIGNED, 1)
            positions[name] = (buffer.tell(), array.shape)
            buffer.write(array.data)
        buffer.flush()
        weights = {
            name: torch.from_numpy(np.memmap(buffer, np.float32, mode="c", offset=offset, shape=size))
            for name, (offset, size) in positions.items()
        }
        checkpoint = assemble(shape, weights, slots, OPTIMIZER, SCHEDULE, step, metadata)
        run = runs.Run(new)
        run.checkpoints.mkdir()
        # given a path instead, torch hides what the system says
        with open(run.checkpoint(step), "wb") as file:
            torch.save(checkpoint, file)


def _is_converted_run(folder: Path) -> bool:
    """Whether a folder holds what `_write_run` wrote, and nothing that was trained or put there since."""
    run = runs.Run(folder)
    written = run.all_checkpoints()
    return len(written) == 1 and {*folder.rglob("*")} == {run.checkpoints, *written}


def _summary(shape: Shape, step: int | None, tokenizer: Tokenizer) -> str:
    trained = "" if step is None else f", step {step:,}"
    end = tokenizer.token(tokenizer.eos_id)
    return (
        f"{shape.n_layer} layers x {shape.width}, {shape.n_head} heads, {shape.vocab_size:,} rows for {tokenizer.vocab_size:,} tokens"
        f" ({tokenizer.name}){trained}; a text ends with {end} ({tokenizer.eos_id})"
    )


def _origin(bundle: Bundle) -> tuple[str | None, list[str]]:
    """(which release it is, if it is one; the sha256 of each data file in words)."""
    release, lines = None, []
    for data in bundle.files:
        digest = hashlib.sha256()
        with Bar(data.stat().st_size, title="sha256") as bar, open(data, "rb") as file:
            while block := file.read(files.BLOCK):
                digest.update(block)
                bar(len(block))
        known = RELEASES.get(digest.hexdigest())
        release = known or release
        lines.append(f"sha256 {digest.hexdigest()}: {known or 'neither of the two releases of gpt2-ml'}")
    return release, lines


def _tensor(array: np.ndarray) -> torch.Tensor:
    """torch warns of arrays that it could not write into."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
