"""A .data file without its .index: the seed's notebook downloaded no more.

TensorFlow writes the tensors of a single shard end to end in the order of their names, so names and shapes tell where each lies;
and of the seed's configurations one alone makes a file of that size.
"""

import re
from pathlib import Path

import numpy as np

from cngpt.errors import UserError
from cngpt.interop.gpt2ml import mapping
from cngpt.interop.gpt2ml.bundle import Bundle
from cngpt.interop.gpt2ml.find import mistaken
from cngpt.interop.gpt2ml.vocabulary import tokenizer_for
from cngpt.model import Shape

SIZES = [(48, 24, 1536), (24, 16, 1024), (12, 12, 768)]  # of the seed's mega, large and base: n_layer, n_head, width


def find(path: Path) -> Path | None:
    """The .data file that `path` means, if it has no .index beside it; the seed's notebook downloaded no other."""
    if path.name.endswith(".index") or not path.parent.is_dir():
        return None
    if path.name == "checkpoint" and path.is_file():  # which names what lies beside it
        path = path.parent
    if path.is_dir():
        found = [p for p in path.iterdir() if ".data-" in p.name]
        return found[0] if len(found) == 1 and not any(path.glob("*.index")) else None
    path = path.with_suffix("") if path.suffix == ".meta" else path
    data = path if ".data" in path.name else path.with_name(path.name + ".data-00000-of-00001")
    index = data.with_name(data.name.partition(".data")[0] + ".index")
    return data if data.is_file() and not index.exists() else None


def open(data: Path, sizes: dict | None, vocab: str | None) -> Bundle:
    """The tensors of a .data file without its .index: those of the one configuration of the seed that is as large as the file."""
    if (parts := re.search(r"-of-(\d{5})", data.name)) and int(parts[1]) > 1:
        raise UserError(f"{data} is one of several .data files, and they need their .index; put it beside them")
    length = data.stat().st_size
    rows = {8_021, 21_128, 21_130}
    if vocab is not None:
        rows.add(tokenizer_for(vocab, None, None).vocab_size)
    if sizes is not None:
        shapes = [_shape(sizes)]
        rows.add(shapes[0].vocab_size)
    else:
        shapes = [Shape("gpt2ml", 1, 1024, *of) for of in SIZES]
    tried = 0
    for shape in shapes:
        for vocab_size in sorted(rows):
            full = mapping.variables(Shape(**{**shape.as_dict(), "vocab_size": vocab_size}))
            model = {name: size for name, size in full.items() if not name.endswith(mapping.SLOTS)}
            bare = {name: size for name, size in model.items() if name != mapping.STEP}
            for layout in (full, model, bare):
                tried += 1
                kinds = {name: "int64" if name == mapping.STEP else "float32" for name in layout}
                if sum(np.dtype(kinds[name]).itemsize * int(np.prod(size)) for name, size in layout.items()) == length:
                    return Bundle.from_layout(data, [(name, size, kinds[name]) for name, size in layout.items()])
    if what := mistaken(data):
        raise UserError(f"{data} is {what}")
    raise UserError(
        f"{data} has no .index beside it, and its {length:,} bytes are none of the {tried} sizes that a whole checkpoint of gpt2-ml can have:"
        " it is cut off, or another model's (config=<its JSON> and vocab=<its vocab.txt> tell the sizes)"
    )


def check(name: str, array: np.ndarray, data: Path) -> None:
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


def _shape(sizes: dict) -> Shape:
    try:
        ours = {key: sizes[theirs] for theirs, key in mapping.CONFIG_KEYS.items() if theirs in sizes}
        return Shape(block="gpt2ml", **ours)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"config: {error}; give the seed's JSON, such as its configs/mega.json") from None
