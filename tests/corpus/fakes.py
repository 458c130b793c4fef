"""A tokenizer of one line, and the calls of a task."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cngpt.corpus.dedup.settings import Dedup
from cngpt.corpus.prepared import local_shards, prepared
from cngpt.corpus.settings import Data, Prepare


class CodePoints:
    """Each character below U+FFFF is its own id, others are unknown."""

    name = "codes"
    vocab_size, pad_id, eos_id, opening_id, unk_id, newline_id = 0xFFFF, 0, 1, 1, 2, 10
    fingerprint = "code points"

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array([ord(c) if ord(c) < self.vocab_size else self.unk_id for c in text], dtype=np.int32) for text in texts]

    def save(self, path) -> None:
        path.write_text("{}")

    def decode(self, ids) -> str:
        return "".join(map(chr, ids))


class Preparation:
    """What a task does with a composed configuration, here plain values, to get its shards."""

    def __init__(self, cfg: dict):
        self.data, self.folder = Data(**cfg["data"]), Path(cfg["paths"]["data"])
        self.options = {"clean": cfg["clean"], "dedup": Dedup(**cfg["dedup"]), "prepare": Prepare(**cfg["prepare"])}

    def prepared(self, tokenizer, overwrite: bool = False) -> Path:
        return prepared(self.data, tokenizer, **self.options, folder=self.folder, overwrite=overwrite)

    def fetched(self) -> Path:
        return local_shards(self.data, self.folder)
