"""Sources -> shards: read, clean, split, tokenize, write, and account for every document.

    out/train/  out/valid/     shards (see tokens/shards.py)
    out/report.json            what was kept, changed, dropped and skipped, and why

`out` appears whole, under its name, or not at all. The shards do not depend on the number of processes.
"""

import errno
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import chain, islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import Protocol

import numpy as np

from cngpt import files
from cngpt.corpus.clean import Cleaner, basic, name_of
from cngpt.corpus.document import Document, Tally
from cngpt.corpus.readers import Reader, open_source
from cngpt.errors import ConfigError, UserError
from cngpt.tokens.shards import SHARD_BYTES, Shards, ShardWriter, dtype_for

REPORT = "report.json"
BATCH_CHARACTERS = 1 << 20  # about 3 MB of Chinese: the unit of work of a process
SHOWN_UNKNOWN = 20  # of the commonest characters that became [UNK]
POOL_FROM = 64 << 20  # bytes on disk; below, starting processes takes longer than the work
BAR_AFTER = 3.0  # seconds until a progress bar is worth its lines


class Tokenizer(Protocol):
    """What is needed of cngpt.tokens.Tokenizer."""

    vocab_size: int
    eos_id: int
    unk_id: int | None
    fingerprint: str

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]: ...


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
    settings |= {"min_chars": min_chars, "valid_fraction": valid_fraction}
    written = False
    try:
        with files.atomic_folder(out, overwrite) as new, Bar(size, progress) as bar:
            documents = (document for reader in readers for document in reader.documents(skipped, bar))
            with Split(new, tokenizer, valid_fraction, shard_bytes) as split:
                for batch in _process(_batches(documents), Work(tokenizer, rules), processes):
                    account += batch.account
                    for document in zip(batch.hashes, batch.ids(), batch.characters, strict=True):
                        split.add(*document)
                report = _report(account, skipped)
                if not report["documents"]["kept"]:
                    raise _nothing_kept(sources, report)
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
        raise _nothing_kept(sources, _report(account, skipped))
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
        show({**_report(account, skipped), "seconds": time.monotonic() - began})


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
        raise UserError(f"no document in {len(tallies)} of {len(raws)} files: {_reasons({'skipped': skipped.as_dict()})}")
    if progress and skipped.counts:
        _print_rows(_skipped_rows(skipped.as_dict()))


@dataclass
class Account:
    """What happened to the documents; accounts of batches add up to that of the whole."""

    counts: Counter = field(default_factory=Counter)  # read, kept, bytes, unknown
    by_source: Counter = field(default_factory=Counter)  # (source, what)
    changed: Counter = field(default_factory=Counter)  # documents, by rule
    unknown: Counter = field(default_factory=Counter)  # characters that became [UNK]
    dropped: Tally = field(default_factory=Tally)

    def __iadd__(self, later: "Account") -> "Account":
        self.counts += later.counts
        self.by_source += later.by_source
        self.changed += later.changed
        self.unknown += later.unknown
        self.dropped.merge(later.dropped)
        return self


@dataclass
class Batch:
    """Documents after cleaning and tokenizing, packed so that they travel between processes cheaply."""

    flat: np.ndarray  # the ids of all documents
    lengths: np.ndarray  # tokens of each
    characters: list[int]
    hashes: list[int]  # 64 bits of the clean text
    account: Account

    def ids(self) -> list[np.ndarray]:
        return np.split(self.flat, np.cumsum(self.lengths)[:-1]) if len(self.lengths) else []


class Work:
    """Documents -> Batch: a pure function, apart from what it remembers of single characters."""

    def __init__(self, tokenizer: Tokenizer, rules: Sequence):
        self._tokenizer, self._clean = tokenizer, Cleaner(rules)
        self._is_unknown: dict[str, bool] = {}

    def __call__(self, documents: list[Document]) -> Batch:
        account = Account()
        self._clean.reset()
        texts, kept, hashes = [], [], []
        for document in documents:
            account.counts["read"] += 1
            account.by_source[document.source, "documents"] += 1
            text = self._clean(document)
            if text is not None:
                data = text.encode()
                account.counts["bytes"] += len(data)
                hashes.append(int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little"))
                texts.append(text)
                kept.append(document)
        account.changed, account.dropped = self._clean.changed, self._clean.dropped
        ids = self._tokenizer.encode_batch(texts)
        for document, text, tokens in zip(kept, texts, ids, strict=True):
            account.counts["kept"] += 1
            for what, number in ("kept", 1), ("characters", len(text)), ("tokens", len(tokens) + 1):
                account.by_source[document.source, what] += number
        self._count_unknown(texts, ids, account)
        flat = np.concatenate(ids) if ids else np.zeros(0, np.int32)
        return Batch(
            flat.astype(dtype_for(self._tokenizer.vocab_size)),
            np.array([len(tokens) for tokens in ids], np.int64),
            [len(text) for text in texts],
            hashes,
            account,
        )

    def _count_unknown(self, texts: list[str], ids: list[np.ndarray], account: Account) -> None:
        unk = self._tokenizer.unk_id
        if unk is None:
            return
        for text, tokens in zip(texts, ids, strict=True):
            number = int(np.count_nonzero(tokens == unk))
            if number:
                account.counts["unknown"] += number
                characters = set(text)
                new = sorted(characters - self._is_unknown.keys())
                self._is_unknown.update(zip(new, (unk in tokens for tokens in self._tokenizer.encode_batch(new)), strict=True))
                for character in characters:
                    if self._is_unknown[character]:
                        account.unknown[character] += text.count(character)


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


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch, size = [], 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _process(batches: Iterable[list[Document]], work: Work, processes: int) -> Iterator[Batch]:
    """The results in the order of the batches, a few batches ahead of the consumer at most."""
    if processes == 1:
        yield from map(work, batches)
        return
    # spawn: a fork of a process that runs threads (torch, tokenizers) can hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_begin_worker, initargs=(work,))
    waiting: deque = deque()
    try:
        for batch in batches:
            waiting.append(pool.submit(_run_worker, batch))
            if len(waiting) > 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker(work: Work) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot tell its workers to stop."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _run_worker(batch: list[Document]) -> Batch:
    return _work(batch)


def _report(account: Account, skipped: Tally) -> dict:
    sources: dict[str, dict[str, int]] = {}
    for (source, what), number in account.by_source.items():
        sources.setdefault(source, {})[what] = number
    read, kept, unknown = (account.counts[key] for key in ("read", "kept", "unknown"))
    tokens = sum(source.get("tokens", 0) for source in sources.values())
    return {
        "documents": {"read": read, "kept": kept, "dropped": read - kept, "skipped": skipped.counts.total()},
        "sources": sources,
        "changed": dict(account.changed.most_common()),
        "dropped": account.dropped.as_dict(),
        "skipped": skipped.as_dict(),
        "unknown": {
            "tokens": unknown,
            "share": unknown / tokens if tokens else 0.0,
            "characters": sorted(account.unknown.items(), key=lambda item: (-item[1], item[0]))[:SHOWN_UNKNOWN],
        },
        "bytes": account.counts["bytes"],
    }


def _nothing_kept(sources: Sequence[Mapping], report: dict) -> UserError:
    return UserError(f"nothing was kept of {len(sources)} sources: {_reasons(report)}")


def _reasons(report: dict) -> str:
    found = {**report["skipped"], **report.get("dropped", {})}
    parts = [f"{reason} ({what['count']:,} times, as in {what['examples'][:1]})" for reason, what in found.items()]
    return "; ".join(parts) or "the files are empty"


def show(report: dict) -> None:
    """The report as a short table on stderr; of texts that were not tokenized it has fewer lines."""
    documents = report["documents"]
    rows = [("documents read", f"{documents['read']:,}", f"{report['bytes'] / 1e6:.1f} MB in {report['seconds']:.1f} s")]
    for name, size in report["sources"].items():
        rows.append((f"  {name}", f"{size.get('kept', 0):,}", f"kept, {size.get('characters', 0):,} characters"))
    for reason, what in report["dropped"].items():
        rows.append((f"dropped: {reason}", f"{what['count']:,}", what["examples"][0]))
    rows += _skipped_rows(report["skipped"])
    if "train" in report:
        for part in "train", "valid":
            rows.append((part, f"{report[part]['documents']:,}", f"{report[part]['tokens']:,} tokens"))
        rows.append(("characters", f"{report['characters']:,}", f"{report['tokens_per_character']:.3f} tokens per character"))
        unknown = report["unknown"]
        if unknown["tokens"]:
            common = " ".join(f"{character} {number:,}" for character, number in unknown["characters"][:10])
            rows.append(("[UNK]", f"{unknown['tokens']:,}", f"{unknown['share']:.3%} of tokens: {common}"))
    _print_rows(rows)
    if "train" in report and not report["valid"]["documents"] and documents["kept"] == 1:
        print("valid is empty: the corpus is one document. Of a .txt, data.split=line or blank makes several.", file=sys.stderr)


def _skipped_rows(skipped: dict) -> list[tuple[str, str, str]]:
    return [(f"skipped: {reason}", f"{what['count']:,}", (what["examples"] or [""])[0]) for reason, what in skipped.items()]


def _print_rows(rows: list[tuple[str, str, str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False, expand=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim", overflow="ellipsis", no_wrap=True, ratio=1)
    for row in rows:
        table.add_row(*map(escape, row))
    Console(stderr=True).print(table)


class Bar:
    """Called with bytes read: a progress bar on stderr, once the work has lasted BAR_AFTER seconds."""

    def __init__(self, total: int, shown: bool):
        self._total, self._shown, self._began = total, shown, time.monotonic()
        self._done, self._next, self._bar = 0.0, BAR_AFTER, None

    def __call__(self, more: float) -> None:
        self._done += more
        if self._shown and time.monotonic() - self._began > self._next:
            self._next += 0.2
            if self._bar is None:
                self._bar = self._start()
            self._bar.update(self._task, completed=min(self._done, self._total))

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *error) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _start(self):
        from rich import progress
        from rich.console import Console

        bar = progress.Progress(
            progress.TextColumn("preparing"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = bar.add_task("preparing", total=self._total)
        bar.start()
        return bar
