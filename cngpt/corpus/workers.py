"""Batches of documents to clean, tokenized batches, in this process or in many; the results do not depend on how many."""

import hashlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Protocol

import numpy as np

from cngpt.corpus.clean import Cleaner
from cngpt.corpus.document import Document
from cngpt.corpus.report import Account
from cngpt.tokens.shards import dtype_for

BATCH_CHARACTERS = 1 << 20  # about 3 MB of Chinese: the unit of work of a process


class Tokenizer(Protocol):
    """What is needed of cngpt.tokens.Tokenizer."""

    vocab_size: int
    eos_id: int
    unk_id: int | None
    fingerprint: str

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]: ...


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


def batches_of(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch, size = [], 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def process(batches: Iterable[list[Document]], work: Work, processes: int) -> Iterator[Batch]:
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
