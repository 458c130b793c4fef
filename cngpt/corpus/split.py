"""Which documents are kept aside for validation, and how often the others come in one pass over the shards."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cngpt.tokens.shards import ShardWriter


@dataclass(frozen=True, slots=True)
class EncodedDocument:
    """A document on its way to the shards."""

    hash: int
    ids: np.ndarray
    characters: int
    source: int
    read: bool


class Split:
    """Writes train/ and valid/ below a folder. A document goes to valid when its hash lies below the fraction of 2**64.

    The lowest hash of all goes to valid in any case, unless it is the only document: small corpora get a validation set too.
    So the document with the lowest hash so far is held back until a lower one comes. Likewise the highest one below the fraction
    is held back until train has a document: if all lie below, train gets that one.
    valid is the same whatever the weights, so that runs on different mixtures can be compared.

    First `add` every document; then `add_copy` those that come more than once, one copy after all the first ones: next to each other,
    a window of the model would hold both, and the second could be copied from the first.
    """

    def __init__(self, folder: Path, tokenizer, fraction: float, shard_bytes: int):
        options = {key: getattr(tokenizer, key) for key in ("vocab_size", "eos_id", "opening_id", "fingerprint")}
        self._writers = {part: ShardWriter(folder / part, shard_bytes=shard_bytes, **options) for part in ("train", "valid")}
        self._limit = int(fraction * 2**64)
        self._lowest: EncodedDocument | None = None
        self._highest: EncodedDocument | None = None
        self._alone, self._train_is_empty, self._finished = True, True, False
        # by hash: where a document went that was held back
        self._moved: dict[int, str] = {}
        # (source, all or train or valid, documents or tokens)
        self.counts: Counter[tuple[int, str, str]] = Counter()

    def add(self, hash: int, ids: np.ndarray, characters: int, source: int = 0, read: bool = True) -> None:
        """hash: of the document's text, below 2**64. source: its number. read: false leaves it out of train; valid has it all the same."""
        document: EncodedDocument | None = EncodedDocument(hash, ids, characters, source, read)
        self._count(document, "all")
        if self._lowest is None:
            self._lowest = document
            return
        self._alone = False
        if document.hash < self._lowest.hash:
            document, self._lowest = self._lowest, document
        if document.hash >= self._limit:
            self._write("train", document)
            return
        if self._train_is_empty and (self._highest is None or document.hash > self._highest.hash):
            document, self._highest = self._highest, document
        if document is not None:
            self._write("valid", document)

    def add_copy(self, hash: int, ids: np.ndarray, characters: int, source: int = 0) -> None:
        """One more copy of a document that was added, if it is one of train: what is kept aside for validation comes once."""
        self._finish()
        if self._moved.get(hash, "valid" if hash < self._limit else "train") == "train":
            self._write("train", EncodedDocument(hash, ids, characters, source, True))

    def close(self, settings: dict) -> dict:
        """Finishes both folders; {train: {documents, tokens, characters}, valid: ..., and both together}."""
        self._finish()
        sizes = {}
        for part, writer in self._writers.items():
            manifest = writer.close(settings)
            sizes[part] = {key: manifest[key] for key in ("documents", "tokens", "characters")}
        both = {key: sum(size[key] for size in sizes.values()) for key in ("tokens", "characters")}
        return {**sizes, **both, "tokens_per_character": round(both["tokens"] / max(1, both["characters"]), 4)}

    def __enter__(self) -> "Split":
        return self

    def __exit__(self, *error) -> None:
        for writer in self._writers.values():
            writer.abort()

    def _finish(self) -> None:
        """Writes what was held back: every document has been added."""
        if self._finished:
            return
        self._finished = True
        for held_back, to_train in (self._highest, self._train_is_empty), (self._lowest, self._alone or not self._limit):
            if held_back is not None:
                self._moved[held_back.hash] = "train" if to_train else "valid"
                self._write(self._moved[held_back.hash], held_back)

    def _write(self, part: str, document: EncodedDocument) -> None:
        self._train_is_empty &= part != "train"
        if document.read or part == "valid":
            self._writers[part].add([document.ids], [document.characters])
            self._count(document, part)

    def _count(self, document: EncodedDocument, part: str) -> None:
        self.counts[document.source, part, "documents"] += 1
        self.counts[document.source, part, "tokens"] += self._writers["train"].size(document.ids)
