"""Token ids on disk: a folder with `manifest.json` and flat little-endian files, read by memory map from any position.

    manifest.json     the files with their sizes and checksums, and the tokenizer they were made with
    00000.bin         ids of whole documents one after another, each closed by EOS: uint16; uint32 above 65,535 entries
    00000.idx         where each of its documents begins, in tokens: uint64

Positions count tokens over all shards, EOS included. A folder appears whole, under its name, or not at all.
"""

import bisect
import hashlib
import os
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from cngpt import files
from cngpt.errors import UserError

FORMAT = 1
MANIFEST = "manifest.json"
SHARD_BYTES = 256 << 20
FLUSH_TOKENS = 1 << 20  # tokens gathered before they are written to the file


def dtype_for(vocab_size: int) -> np.dtype:
    return np.dtype("<u2" if vocab_size <= 65_535 else "<u4")


class ShardWriter:
    """Writes documents to a folder under a temporary name, in files of `shard_bytes`; `close` gives it its name.

        with ShardWriter(folder, fingerprint=..., vocab_size=..., eos_id=...) as writer:
            writer.add([ids, ...], [characters, ...])
            manifest = writer.close({"source": ...})

    Leaving the block without `close`, by an error for example, removes the folder. Ids outside the vocabulary raise ValueError.
    """

    def __init__(
        self,
        folder: Path,
        *,
        fingerprint: str,
        vocab_size: int,
        eos_id: int,
        opening_id: int | None = None,
        shard_bytes=SHARD_BYTES,
    ):
        self._folder, self._dtype, self._vocab_size = files.NewFolder(folder), dtype_for(vocab_size), vocab_size
        self._eos = np.array([eos_id], dtype=self._dtype)
        self._opening = np.array([] if opening_id in (None, eos_id) else [opening_id], dtype=self._dtype)
        self._shard_tokens = max(1, shard_bytes // self._dtype.itemsize)
        self._metadata = {"format": FORMAT, "dtype": self._dtype.name, "vocab_size": vocab_size, "eos_id": eos_id}
        self._metadata["tokenizer"] = fingerprint
        self._shards: list[dict] = []
        self._file = None

    def add(self, ids_list: Sequence[np.ndarray], characters: Sequence[int]) -> None:
        """Documents as ids without EOS, and how many characters of text each one was. EOS is added here, and the opening token
        where it is another than EOS.

        Where EOS is text (gpt2-ml's 。), a document that ends with it gets no second one.
        """
        for ids, length in zip(ids_list, characters, strict=True):
            if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < self._vocab_size:
                raise ValueError(f"token ids {ids.min()}..{ids.max()} do not fit a vocabulary of {self._vocab_size}")
            if self._file is None:
                self._begin()
            self._starts.append(self._tokens)
            body = ids[:-1] if len(ids) and ids[-1] == self._eos[0] else ids
            self._pending += (self._opening, body.astype(self._dtype), self._eos)
            self._tokens += len(self._opening) + len(body) + 1
            self._characters += int(length)
            if self._tokens >= self._shard_tokens:
                self._end()
            elif self._tokens - self._written >= FLUSH_TOKENS:
                self._flush()

    def size(self, ids: np.ndarray) -> int:
        """The tokens that a document becomes."""
        return len(self._opening) + len(ids) + (0 if len(ids) and ids[-1] == self._eos[0] else 1)

    def close(self, report: dict | None = None) -> dict:
        """Completes the folder, gives it its name and returns the manifest; `report` (source, cleaning) is kept in it."""
        if self._file is not None:
            self._end()
        totals = {key: sum(s[key] for s in self._shards) for key in ("tokens", "documents", "characters")}
        manifest = {**self._metadata, **totals, "shards": self._shards, "report": report or {}}
        files.write_json(self._folder.temporary / MANIFEST, manifest)
        self._folder.commit()
        return manifest

    def abort(self) -> None:
        """Removes what was written since the start; after `close` there is nothing to remove."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._folder.abort()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *error) -> None:
        self.abort()

    def _begin(self) -> None:
        self._name = f"{len(self._shards):05d}"
        # closed in _end or abort
        self._file = open(self._folder.temporary / f"{self._name}.bin", "wb")  # noqa: SIM115
        self._digest = hashlib.sha256()
        self._starts: list[int] = []
        self._pending: list[np.ndarray] = []
        self._tokens = self._written = self._characters = 0

    def _flush(self) -> None:
        block = np.concatenate(self._pending).tobytes()
        self._file.write(block)
        self._digest.update(block)
        self._pending, self._written = [], self._tokens

    def _end(self) -> None:
        self._flush()
        # on the disk before the manifest is: after a crash there must be no manifest without its data
        files.close_on_disk(self._file)
        self._file = None
        index = np.array(self._starts, dtype="<u8").tobytes()
        with open(self._folder.temporary / f"{self._name}.idx", "wb") as file:
            file.write(index)
            files.close_on_disk(file)
        counts = {"tokens": self._tokens, "documents": len(self._starts), "characters": self._characters}
        digests = {
            "sha256": self._digest.hexdigest(),
            "index": f"{self._name}.idx",
            "index_sha256": hashlib.sha256(index).hexdigest(),
        }
        self._shards.append({"file": f"{self._name}.bin", **counts, **digests})


class Shards:
    """A shard folder, read only. Opening checks every file's size against the manifest; `verify` checks the contents too.

    Damage of any kind raises UserError with the file's name and the remedy. Cheap to pickle: a copy opens the folder anew.
    """

    def __init__(self, folder: str | Path):
        if files.is_remote(folder):
            raise UserError(f"{folder}: shards are read from a local disk; data=shards data.root=<the folder above> fetches them")
        self.folder = Path(folder)
        self.manifest = self._read_manifest()
        self.dtype = np.dtype(self.manifest["dtype"]).newbyteorder("<")
        self.fingerprint: str = self.manifest["tokenizer"]
        self.tokens: int = self.manifest["tokens"]
        self.documents: int = self.manifest["documents"]
        self.characters: int = self.manifest["characters"]
        self._shards: list[dict] = self.manifest["shards"]
        self._check_sizes()
        self._token_ends = list(accumulate(s["tokens"] for s in self._shards))
        self._document_ends = list(accumulate(s["documents"] for s in self._shards))
        self._maps: dict[str, np.ndarray] = {}

    def read(self, start: int, count: int) -> np.ndarray:
        """(count,) int64: the tokens from position `start` on, across shard borders. Outside the folder: IndexError."""
        if start < 0 or count < 0 or start + count > self.tokens:
            raise IndexError(f"tokens {start}..{start + count} of {self.tokens} in {self.folder}")
        out = np.empty(count, dtype=np.int64)
        shard, done = bisect.bisect_right(self._token_ends, start), 0
        while done < count:
            ids = self._map(shard, "file", self.dtype)
            first = start + done - (self._token_ends[shard] - len(ids))
            part = ids[first : first + count - done]
            out[done : done + len(part)] = part
            done += len(part)
            shard += 1
        return out

    def document(self, i: int) -> np.ndarray:
        """int64 ids of the i-th document, without its EOS."""
        if not 0 <= i < self.documents:
            raise IndexError(f"document {i} of {self.documents} in {self.folder}")
        shard = bisect.bisect_right(self._document_ends, i)
        starts = self._map(shard, "index", np.dtype("<u8"))
        ids = self._map(shard, "file", self.dtype)
        k = i - (self._document_ends[shard] - len(starts))
        end = int(starts[k + 1]) if k + 1 < len(starts) else len(ids)
        return ids[int(starts[k]) : end - 1].astype(np.int64)

    def verify(self) -> None:
        """Reads every byte and compares checksums."""
        for shard in self._shards:
            for name, expected in ((shard["file"], shard["sha256"]), (shard["index"], shard["index_sha256"])):
                if files.sha256(self.folder / name) != expected:
                    raise self._damaged(f"{name} does not have the checksum that the manifest gives")

    def __reduce__(self):
        # np.memmap would be pickled as a copy of the whole file
        return Shards, (self.folder,)

    def _map(self, shard: int, key: str, dtype: np.dtype) -> np.ndarray:
        name = self._shards[shard][key]
        if name not in self._maps:
            self._maps[name] = np.memmap(self.folder / name, dtype=dtype, mode="r")
        return self._maps[name]

    def _read_manifest(self) -> dict:
        path = self.folder / MANIFEST
        if not path.is_file():
            raise UserError(f"{self.folder} holds no shards ({MANIFEST} is missing); python run.py task=prepare makes them")
        try:
            manifest = files.read_json(path)
            if (version := manifest["format"]) != FORMAT:
                raise UserError(f"{path} has shard format {version}, this version reads {FORMAT}; prepare the data again")
            for key in "dtype", "tokenizer", "tokens", "documents", "characters", "shards", "report":
                manifest[key]
        except (ValueError, KeyError, TypeError):
            raise self._damaged(f"{MANIFEST} is not a shard manifest") from None
        return manifest

    def _check_sizes(self) -> None:
        expected = {}
        for shard in self._shards:
            expected[shard["file"]] = shard["tokens"] * self.dtype.itemsize
            expected[shard["index"]] = shard["documents"] * 8
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(self.folder)}
        for name, size in expected.items():
            if name not in sizes:
                raise self._damaged(f"{name} is missing")
            if sizes[name] != size:
                raise self._damaged(f"{name} has {sizes[name]:,} bytes, the manifest says {size:,}")
        for name in sorted(sizes):
            if name not in expected and name.endswith((".bin", ".idx")):
                raise self._damaged(f"{name} is not in the manifest")

    def _damaged(self, problem: str) -> UserError:
        return UserError(
            f"{self.folder}: {problem}; copy the folder again, or make it anew: task=prepare overwrite=true with the same data=..."
        )
