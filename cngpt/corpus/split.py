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
    copies: int


class Split:
    """Writes train/ and valid/ below a folder. A document goes to valid when its hash lies below the fraction of 2**64.

    The lowest hash of all goes to valid in any case, unless it is the only document: small corpora get a validation set too.
    So the document with the lowest hash so far is held back until a lower one comes. Likewise the highest one below the fraction
    is held back until train has a document: if all lie below, train gets that one.
    valid is the same whatever the weights, so that runs on different mixtures can be compared.
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
        self._alone, self._train_is_empty = True, True
        self.counts: Counter[tuple[int, str, str]] = Counter()  # (source, all or train or valid, documents or tokens)

    def add(self, hash: int, ids: np.ndarray, characters: int, source: int = 0, copies: int = 1) -> None:
        """hash: of the document's text, below 2**64. source: its number. copies: in train; a document of valid comes once."""
        piece: Piece | None = Piece(hash, ids, characters, source, copies)
        self._count(piece, "all", 1)
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

    def close(self, settings: dict) -> dict:
        """Finishes both folders; {train: {documents, tokens, characters}, valid: ..., and both together}."""
        if self._highest is not None:
            self._write("train" if self._train_is_empty else "valid", self._highest)
        if self._lowest is not None:
            self._write("train" if self._alone or not self._limit else "valid", self._lowest)
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

    def _write(self, part: str, piece: Piece) -> None:
        copies = piece.copies if part == "train" else 1
        self._train_is_empty &= part != "train"
        self._writers[part].add([piece.ids] * copies, [piece.characters] * copies)
        self._count(piece, part, copies)

    def _count(self, piece: Piece, part: str, copies: int) -> None:
        self.counts[piece.source, part, "documents"] += copies
        self.counts[piece.source, part, "tokens"] += copies * self._writers["train"].size(piece.ids)
