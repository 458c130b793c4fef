"""Sources -> shards: read, clean, split, tokenize, write, and account for every document.

    out/train/  out/valid/     shards (see tokens/shards.py)
    out/report.json            what was kept, changed, dropped and skipped, and why

`out` appears whole, under its name, or not at all. The shards do not depend on the number of processes.
"""

import errno
import json
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from pathlib import Path

import numpy as np

from cngpt import files
from cngpt.bar import Bar
from cngpt.corpus.clean import Cleaner, basic, name_of
from cngpt.corpus.document import Document, Tally
from cngpt.corpus.readers import Reader, open_source
from cngpt.corpus.report import Account, nothing_kept, print_rows, reasons, report_of, show, skipped_rows
from cngpt.corpus.workers import Tokenizer, Work, batches_of, process
from cngpt.errors import ConfigError, UserError
from cngpt.tokens.shards import SHARD_BYTES, Shards, ShardWriter

REPORT = "report.json"
POOL_FROM = 64 << 20  # bytes on disk; below, starting processes takes longer than the work


def prepare(
    sources: Sequence[Mapping],
    out: str | Path,
    tokenizer: Tokenizer,
    *,
    valid_fraction: float = 0.01,
    min_chars: int = 20,
    processes: int = 1,
    shard_bytes: int = SHARD_BYTES,
    progress: bool = True,
    overwrite: bool = False,
) -> dict:
    """Writes `out` and returns its report.

    sources: mappings for readers.open_source. valid_fraction: of the documents, chosen by a hash of the clean text, so copies
    of one text stay together; of two documents or more, one at least is kept aside, and one at least is not. processes: 1 works in this one,
    as do more when there is little to read.
    progress: a bar and a closing table on stderr. Raises ConfigError for what the user typed, UserError where nothing is left,
    the disk is full, or `out` exists (overwrite replaces it, but only a folder that was made here). Where another process made
    `out` meanwhile, whole, with the same settings and tokenizer, that folder stays and its report is returned.
    """
    if not 0 <= valid_fraction < 1:
        raise ConfigError(f"prepare.valid_fraction={valid_fraction} is not a share of the documents: 0 ... below 1")
    if processes < 1:
        raise ConfigError(f"prepare.processes={processes} must be 1 or more")
    readers = [open_source(source) for source in sources]
    out = Path(out)
    if overwrite and out.exists() and not files.is_empty(out) and not (out / REPORT).is_file():
        raise UserError(f"{out} was not made by task=prepare ({REPORT} is missing) and is not replaced; choose another folder")
    size = sum(reader.size() for reader in readers)
    if size < POOL_FROM:
        processes = 1
    began = time.monotonic()
    account, skipped = Account(), Tally()
    rules = basic(min_chars)
    settings = {"sources": [dict(source) for source in sources], "rules": [name_of(rule) for rule in rules]}
    settings |= {"min_chars": min_chars, "valid_fraction": valid_fraction, "size": size}
    written = False
    try:
        with files.atomic_folder(out, overwrite) as new, Bar(size, progress) as bar:
            documents = (document for reader in readers for document in reader.documents(skipped, bar))
            with Split(new, tokenizer, valid_fraction, shard_bytes) as split:
                for batch in process(batches_of(documents), Work(tokenizer, rules), processes):
                    account += batch.account
                    for document in zip(batch.hashes, batch.ids(), batch.characters, strict=True):
                        split.add(*document)
                report = report_of(account, skipped)
                if not report["documents"]["kept"]:
                    raise nothing_kept(sources, report)
                report |= split.close({"settings": settings, **report})
            report |= {"settings": settings, "processes": processes, "seconds": round(time.monotonic() - began, 2)}
            files.write_json(new / REPORT, report)
            written = True
    except BrokenProcessPool:
        raise UserError("a worker process was killed, most likely for want of memory; try prepare.processes=1") from None
    except (UserError, OSError) as error:
        theirs = _made_meanwhile(out, settings, tokenizer) if written else None
        if theirs is not None:
            if progress:
                print(f"{out} was made by another process meanwhile, with the same settings; that one is taken", file=sys.stderr)
            return theirs
        if isinstance(error, UserError):
            raise
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"no space left on the disk of {out}; nothing was kept there") from None
        raise UserError(f"{out} cannot be written: {error.strerror or error}; choose another folder") from error
    if progress:
        show(report)
    return report


def _made_meanwhile(out: Path, settings: dict, tokenizer: Tokenizer) -> dict | None:
    """The report of the folder that stands at `out`, if that is whole and was made with these settings and this tokenizer."""
    try:
        report = files.read_json(out / REPORT)
        fingerprints = {Shards(out / part).fingerprint for part in ("train", "valid")}
    except (UserError, OSError, ValueError, KeyError):
        return None
    same = report.get("settings") == json.loads(json.dumps(settings)) and fingerprints == {tokenizer.fingerprint}
    return report if same else None


def clean_texts(sources: Sequence[Mapping], min_chars: int = 20, progress: bool = True) -> Iterator[str]:
    """The clean text of every document kept: what a tokenizer is trained on.

    Raises at the call what `prepare` raises when there is nothing to read, or nothing is kept. progress: after the last text,
    a table on stderr of what was kept and what was not.
    """
    readers = [open_source(source) for source in sources]
    for reader in readers:
        reader.size()
    account, skipped = Account(), Tally()
    texts = _clean_texts(readers, min_chars, account, skipped, progress)
    first = next(texts, None)
    if first is None:
        raise nothing_kept(sources, report_of(account, skipped))
    return chain([first], texts)


def _clean_texts(readers: list[Reader], min_chars: int, account: "Account", skipped: Tally, progress: bool) -> Iterator[str]:
    clean, began = Cleaner(basic(min_chars)), time.monotonic()
    account.dropped = clean.dropped
    for reader in readers:
        for document in reader.documents(skipped):
            account.counts["read"] += 1
            text = clean(document)
            if text is not None:
                account.counts["kept"] += 1
                account.counts["bytes"] += len(text.encode())
                account.by_source[document.source, "kept"] += 1
                account.by_source[document.source, "characters"] += len(text)
                yield text
    if progress and account.counts["kept"]:
        show({**report_of(account, skipped), "seconds": time.monotonic() - began})


def inspect(
    sources: Sequence[Mapping], n: int, seed: int = 0, min_chars: int = 20, progress: bool = True
) -> Iterator[tuple[Document, str | None, str]]:
    """(raw document, clean text or None, why it was dropped) for n random documents.

    Random files, by size, then a random one of the first 1,000 documents in each: a look takes seconds, however large the corpus.
    progress: at the end, on stderr, what was skipped in these files and why. ConfigError when there is nothing to read,
    UserError when none of these files held a document.
    """
    dice, skipped = random.Random(seed), Tally()
    raws = [(reader, raw) for reader in map(open_source, sources) for raw in reader.found(skipped)]
    clean = Cleaner(basic(min_chars))
    tallies, shown = {}, 0  # a file that is looked into twice counts once
    for reader, raw in dice.choices(raws, weights=[max(1, raw.size) for _, raw in raws], k=n) if raws else ():
        tally = tallies[reader.root, raw.name] = Tally()
        documents = list(islice(reader.documents_of(raw, tally), 1000))
        if documents:
            document = dice.choice(documents)
            clean.reset()
            text = clean(document)
            shown += 1
            yield document, text, ", ".join(clean.dropped.counts)
    for tally in tallies.values():
        skipped.merge(tally)
    if n and not shown:
        raise UserError(f"no document in {len(tallies)} of {len(raws)} files: {reasons({'skipped': skipped.as_dict()})}")
    if progress and skipped.counts:
        print_rows(skipped_rows(skipped.as_dict()))


class Split:
    """Writes train/ and valid/ below a folder. A document goes to valid when its hash lies below the fraction of 2**64.

    The lowest hash of all goes to valid in any case, unless it is the only document: small corpora get a validation set too.
    So the document with the lowest hash so far is held back until a lower one comes. Likewise the highest one below the fraction
    is held back until train has a document: if all lie below, train gets that one.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer, fraction: float, shard_bytes: int):
        about = {"vocab_size": tokenizer.vocab_size, "eos_id": tokenizer.eos_id, "fingerprint": tokenizer.fingerprint}
        self._writers = {part: ShardWriter(folder / part, shard_bytes=shard_bytes, **about) for part in ("train", "valid")}
        self._limit = int(fraction * 2**64)
        self._lowest: tuple[int, np.ndarray, int] | None = None
        self._highest: tuple[int, np.ndarray, int] | None = None
        self._alone, self._train_is_empty = True, True

    def add(self, hash: int, ids: np.ndarray, characters: int) -> None:
        document = (hash, ids, characters)
        if self._lowest is None:
            self._lowest = document
            return
        self._alone = False
        if hash < self._lowest[0]:
            document, self._lowest = self._lowest, document
        if document[0] >= self._limit:
            self._write("train", document)
            return
        if self._train_is_empty and (self._highest is None or document[0] > self._highest[0]):
            document, self._highest = self._highest, document
        if document is not None:
            self._write("valid", document)

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
        return {**sizes, "tokens": tokens, "characters": characters, "tokens_per_character": round(tokens / characters, 4)}

    def __enter__(self) -> "Split":
        return self

    def __exit__(self, *error) -> None:
        for writer in self._writers.values():
            writer.abort()

    def _write(self, part: str, document: tuple[int, np.ndarray, int]) -> None:
        _, ids, characters = document
        self._train_is_empty &= part != "train"
        self._writers[part].add([ids], [characters])
