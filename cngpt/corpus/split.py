"""Which documents are kept aside for validation, and how often the others come in one pass over the shards."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cngpt.tokens.shards import ShardWriter


@dataclass(frozen=True, slots=True)
class Piece:
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

    First `add` every document; then `again` those that come more than once, one copy after all the first ones: next to each other,
    a window of the model would hold both, and the second could be copied from the first.
    """

    def __init__(self, folder: Path, tokenizer, fraction: float, shard_bytes: int):
        about = {
            "vocab_size": tokenizer.vocab_size,
            "eos_id": tokenizer.eos_id,
            "opening_id": tokenizer.opening_id,
            "fingerprint": tokenizer.fingerprint,
        }
        self._writers = {part: ShardWriter(folder / part, shard_bytes=shard_bytes, **about) for part in ("train", "valid")}
        self._limit = int(fraction * 2**64)
        self._lowest: Piece | None = None
        self._highest: Piece | None = None
        self._alone, self._train_is_empty, self._settled = True, True, False
        self._moved: dict[int, str] = {}  # by hash: what was held back, and where it went
        self.counts: Counter[tuple[int, str, str]] = Counter()  # (source, all or train or valid, documents or tokens)

    def add(self, hash: int, ids: np.ndarray, characters: int, source: int = 0, read: bool = True) -> None:
        """hash: of the document's text, below 2**64. source: its number. read: false leaves it out of train; valid has it all the same."""
        piece: Piece | None = Piece(hash, ids, characters, source, read)
        self._count(piece, "all")
        if self._lowest is None:
            self._lowest = piece
            return
        self._alone = False
        if piece.hash < self._lowest.hash:
            piece, self._lowest = self._lowest, piece
        if piece.hash >= self._limit:
            self._write("train", piece)
            return
        if self._train_is_empty and (self._highest is None or piece.hash > self._highest.hash):
            piece, self._highest = self._highest, piece
        if piece is not None:
            self._write("valid", piece)

    def again(self, hash: int, ids: np.ndarray, characters: int, source: int = 0) -> None:
        """One more copy of a document that was added, if it is one of train: what is kept aside for validation comes once."""
        self._settle()
        if self._moved.get(hash, "valid" if hash < self._limit else "train") == "train":
            self._write("train", Piece(hash, ids, characters, source, True))

    def close(self, settings: dict) -> dict:
        """Finishes both folders; {train: {documents, tokens, characters}, valid: ..., and both together}."""
        self._settle()
        manifests = {part: writer.close(settings) for part, writer in self._writers.items()}
        sizes = {
            part: {key: manifest[key] for key in ("documents", "tokens", "characters")} for part, manifest in manifests.items()
        }
        tokens, characters = (sum(size[key] for size in sizes.values()) for key in ("tokens", "characters"))
        return {
            **sizes,
            "tokens": tokens,
            "characters": characters,
            "tokens_per_character": round(tokens / max(1, characters), 4),
        }

    def __enter__(self) -> "Split":
        return self

    def __exit__(self, *error) -> None:
        for writer in self._writers.values():
            writer.abort()

    def _settle(self) -> None:
        """Writes what was held back: every document has been added."""
        if self._settled:
            return
        self._settled = True
        if self._highest is not None:
            self._moved[self._highest.hash] = "train" if self._train_is_empty else "valid"
            self._write(self._moved[self._highest.hash], self._highest)
        if self._lowest is not None:
            self._moved[self._lowest.hash] = "train" if self._alone or not self._limit else "valid"
            self._write(self._moved[self._lowest.hash], self._lowest)

    def _write(self, part: str, piece: Piece) -> None:
        self._train_is_empty &= part != "train"
        if piece.read or part == "valid":
            self._writers[part].add([piece.ids], [piece.characters])
            self._count(piece, part)

    def _count(self, piece: Piece, part: str) -> None:
        self.counts[piece.source, part, "documents"] += 1
        self.counts[piece.source, part, "tokens"] += self._writers["train"].size(piece.ids)
