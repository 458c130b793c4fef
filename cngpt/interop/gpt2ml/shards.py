"""The seed's TFRecords to our shards, so that what was prepared once need not be prepared again.

Each record is the beginning of one article, at most as many ids as the seed's max_seq_length + 1, the rest of the row padded. The
pads go, each article is closed by EOS; what the seed cut off is not in the records, and cannot be had from them.
"""

import hashlib
from pathlib import Path

import numpy as np

from cngpt import files
from cngpt.corpus.prepare import REPORT
from cngpt.corpus.split import Split
from cngpt.errors import UserError
from cngpt.interop.gpt2ml import tfrecord
from cngpt.interop.gpt2ml.vocabulary import tokenizer_for
from cngpt.progress import Bar
from cngpt.tokens.shards import SHARD_BYTES


def convert(
    path: str | Path,
    out: str | Path,
    vocab: str,
    eos: str | None = None,
    valid_fraction: float = 0.001,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
) -> dict:
    """A .tfrecord file, or all of a folder, to shards; `out` also gets the tokenizer.json that goes with them.

    vocab, eos: as for a model (see tokenizer_for), so that the shards go with a model converted alike. Returns the report that is
    also written. Raises UserError for what is missing or damaged, with the file and the record; then `out` is as it was.
    """
    records = _records(Path(path))
    files.check_out(out, overwrite, lambda folder: (folder / REPORT).is_file(), "folder of shards", sources=records)
    tokenizer = tokenizer_for(vocab, None, eos)
    tokens = (tokenizer.token(id) if id in tokenizer else "" for id in range(tokenizer.vocab_size))
    lengths = np.array([len(token.removeprefix("##")) for token in tokens])
    # full: the seed put at most one id less than the row holds
    counts = {"records": 0, "empty": 0, "full": 0}
    with (
        files.atomic_folder(out, overwrite) as new,
        Bar(sum(file.stat().st_size for file in records), title="converting") as bar,
        Split(new, tokenizer, valid_fraction, shard_bytes) as split,
    ):
        for file in records:
            for n, row in enumerate(tfrecord.rows(file), 1):
                filled = np.flatnonzero(row != tokenizer.pad_id)
                ids = row[: filled[-1] + 1] if len(filled) else row[:0]
                counts["records"] += 1
                if not len(ids):
                    counts["empty"] += 1
                    continue
                counts["full"] += len(ids) >= len(row) - 1
                if (unknown := ids[(ids < 0) | (ids >= tokenizer.vocab_size)]).size:
                    raise UserError(
                        f"{file}: record {n} has the id {unknown[0]}, and {tokenizer.name} has {tokenizer.vocab_size:,} entries:"
                        " vocab=<the vocab.txt that it was made with>"
                    )
                digest = hashlib.blake2b(ids.astype("<i8").tobytes(), digest_size=8).digest()
                split.add(int.from_bytes(digest, "little"), ids, int(lengths[ids].sum()))
                bar(row.nbytes / 4)
        if counts["records"] == counts["empty"]:
            raise UserError(f"{path}: {counts['records']} records, and none of them holds a text")
        report = {"files": [str(file) for file in records], "tokenizer": tokenizer.name, **counts}
        report |= split.close({"settings": {"from": "gpt2ml_tfrecord"}})
        files.write_text(new / "tokenizer.json", tokenizer.to_json())
        files.write_json(new / REPORT, report)
    return report


def _records(path: Path) -> list[Path]:
    if not path.exists():
        raise UserError(f"path={path}: there is no such file or folder; give a .tfrecord file, or a folder of them")
    records = sorted(file for file in path.rglob("*.tfrecord*") if file.is_file()) if path.is_dir() else [path]
    if not records:
        raise UserError(f"path={path}: holds no *.tfrecord")
    return records
