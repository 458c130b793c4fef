"""A .data file without its .index: the seed's notebook downloaded no more.

TensorFlow writes the tensors of a single shard end to end in the order of their names, so names and sizes tell where each lies;
and of the seed's configurations one alone makes a file of that size.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cngpt.errors import UserError
from cngpt.interop.gpt2ml import find, mapping
from cngpt.interop.gpt2ml.bundle import Bundle, layout
from cngpt.interop.gpt2ml.sizes import shape_of_config
from cngpt.interop.gpt2ml.vocabulary import tokenizer_for
from cngpt.model.shape import Shape

# of the seed's mega, large and base: n_layer, n_head, width; and rows of its embeddings
SEED_SIZES, SEED_ROWS = [(48, 24, 1536), (24, 16, 1024), (12, 12, 768)], {8_021, 21_128, 21_130}


def find_data_file(path: Path) -> Path | None:
    """The .data file that `path` means, if it has no .index beside it."""
    if path.suffix == ".index" or not path.parent.is_dir():
        return None
    # a file `checkpoint` names what lies beside it
    folder = path.parent if path.name == "checkpoint" and path.is_file() else path
    if folder.is_dir():
        candidates = [file for file in folder.iterdir() if ".data-" in file.name]
        return candidates[0] if len(candidates) == 1 and not any(folder.glob("*.index")) else None
    path = path.with_suffix("") if path.suffix == ".meta" else path
    # browsers call a second download "... (1)"
    data = path if ".data" in path.name else path.with_name(path.name + ".data-00000-of-00001")
    return data if data.is_file() and not find.index_of(data.with_name(data.name.partition(".data")[0])).exists() else None


def open_data_file(data: Path, config: Mapping[str, Any] | None, vocab: str | None) -> Bundle:
    """The tensors of a .data file without its .index: those of the one configuration of the seed that is as large as the file."""
    find.refuse_one_of_several(data)
    length, candidates = data.stat().st_size, list(_candidates(config, vocab))
    for variables in candidates:
        described = [(name, size, mapping.dtype_of(name)) for name, size in variables.items()]
        if sum(entry.size for entry in layout(described)) == length:
            return Bundle.from_layout(data, described)
    find.refuse_mistaken(data)
    raise UserError(
        f"{data} has no .index beside it, and its {length:,} bytes are none of the {len(candidates)} sizes that a whole checkpoint of gpt2-ml can have:"
        " it is cut off, or another model's (config=<its JSON> and vocab=<its vocab.txt> tell the sizes)"
    )


def check_numbers(name: str, array: np.ndarray, data: Path) -> None:
    """UserError for numbers that no training leaves: nothing else tells a download that was filled up with zeros, or shifted."""
    if name == mapping.STEP:
        wrong = not 0 <= int(array) < 1 << 31
    elif not np.isfinite(array).all():
        wrong = True
    elif name.endswith(mapping.SLOTS):
        wrong = bool((array < 0).any())
    else:
        wrong = name.endswith(("/gamma", "_embed", "/kernel")) and not array.any()
    if wrong:
        raise UserError(f"{data}: {name} holds numbers that no training leaves there; it is damaged: copy or download it again")


def _candidates(config: Mapping[str, Any] | None, vocab: str | None) -> Iterator[dict[str, tuple[int, ...]]]:
    """The variables that a whole checkpoint may have: with the optimizer's, with the step alone, or neither."""
    rows = SEED_ROWS if vocab is None else SEED_ROWS | {tokenizer_for(vocab, None, None).vocab_size}
    seeds = [Shape(block="gpt2ml", vocab_size=1, n_ctx=1024, n_layer=n, n_head=h, width=w) for n, h, w in SEED_SIZES]
    shapes = [shape_of_config(config)] if config else seeds
    rows = rows | {shape.vocab_size for shape in shapes if config}
    for shape in shapes:
        for vocab_size in sorted(rows):
            resized = Shape(**{**shape.as_dict(), "vocab_size": vocab_size})
            model = mapping.variables(resized, slots=False)
            yield from (mapping.variables(resized), model | {mapping.STEP: ()}, model)
