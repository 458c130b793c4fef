"""The three stages that run in many processes, each a function of a unit's number that leaves whole files behind.

    read/00000/      Reading            raw files -> clean texts, fingerprints, account
    texts/00000/     RemoveDuplicates   clean texts less duplicates and repeated lines
    tokens/00000/    Tokenizing         clean texts -> ids

A result appears under its name by a rename, so that what was killed begins with the first unit that has none.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cngpt import files
from cngpt.corpus.clean import Cleaner, build, with_title
from cngpt.corpus.dedup.decide import Decisions
from cngpt.corpus.dedup.fingerprints import Fingerprints, FingerprintWriter, without_lines
from cngpt.corpus.dedup.settings import EXACT, KEEP, NEAR, Dedup
from cngpt.corpus.document import Document, Progress, batches
from cngpt.corpus.pool import unit_name
from cngpt.corpus.report import Account
from cngpt.corpus.texts import Text, Texts, TextWriter
from cngpt.corpus.units import Unit
from cngpt.tokens import Tokenizer
from cngpt.tokens.shards import dtype_for

BATCH_CHARACTERS = 1 << 20  # about 3 MB of Chinese
REASONS = {EXACT: "copy of another document", NEAR: "near copy of another document"}
TOKENS = np.dtype([("hash", "<u8"), ("tokens", "<u4"), ("characters", "<u4")])


@dataclass
class Reading:
    """Raw files to clean texts."""

    units: list[Unit]
    clean: Mapping[str, Any]  # the group conf/clean
    dedup: Dedup | None
    folder: Path
    clock: Callable[[str], AbstractContextManager] = nullcontext  # around each part of the work, by its name: a benchmark's
    _cleaner: Cleaner | None = field(default=None, repr=False)

    def shared(self) -> "Reading":
        """What every worker needs: all but the units, of which a corpus of 800,000 files has a gigabyte."""
        return replace(self, units=[])

    def of(self, number: int) -> Unit:
        """What one task needs besides."""
        return self.units[number]

    def __call__(self, number: int, progress: Progress, unit: Unit | None = None) -> None:
        if self._cleaner is None:
            self._cleaner = Cleaner(build(self.clean))
        account = Account()
        documents = (unit or self.units[number]).documents(account.skipped, progress)
        in_batches = batches(documents, BATCH_CHARACTERS, lambda document: len(document.text))
        with whole_folder(self.folder / unit_name(number), account) as new, TextWriter(new / "texts") as writer:
            fingerprints = FingerprintWriter(new / "fingerprints", self.dedup) if self.dedup else None
            while batch := self._next(in_batches):
                with self.clock("clean"):
                    texts = self._clean(batch, account)
                with self.clock("store clean texts"):
                    writer.add(texts)
                if fingerprints:
                    with self.clock("fingerprints"):
                        fingerprints.add([text.text for text in texts])
            with self.clock("store clean texts"):
                writer.close()
            if fingerprints:
                with self.clock("fingerprints"):
                    fingerprints.close()

    def _next(self, in_batches: Iterator[list[Document]]) -> list[Document] | None:
        with self.clock("read"):
            return next(in_batches, None)

    def _clean(self, batch: list[Document], account: Account) -> list[Text]:
        texts = []
        self._cleaner.reset()
        self._cleaner.watch = lambda rule, document, before, after: account.show(f"rule {rule}", document.id, before, after)
        for document in batch:
            account.counts["read"] += 1
            account.by_source[document.source, "documents"] += 1
            account.by_source[document.source, "characters read"] += len(document.title) + len(document.text)
            text = self._cleaner(document)
            if text is not None:
                account.counts["cleaned"] += 1
                account.counts["characters cleaned"] += len(text)
                texts.append(Text(text, document.source, document.id.encode(errors="replace").decode()))
                account.show("cleaned", document.id, with_title(document), text)
        account.rules.update(self._cleaner.done)
        account.dropped.merge(self._cleaner.dropped)
        return texts


@dataclass
class RemoveDuplicates:
    """Clean texts less what dedup.decide found."""

    read: Path
    decisions: Path
    dedup: Dedup
    min_chars: int
    folder: Path

    def __call__(self, number: int, progress: Progress) -> None:
        source, account = Texts(self.read / unit_name(number) / "texts"), Account()
        decisions, at = Decisions.load(self.decisions), 0
        verdicts, lines = decisions.of(number), decisions.lines
        marked = Fingerprints.load(self.read / unit_name(number) / "fingerprints").having(lines)
        with whole_folder(self.folder / unit_name(number), account) as new, TextWriter(new / "texts") as writer:
            for batch in source.batches():
                here = slice(at, at := at + len(batch))
                with_lines = [text.text for text, mark in zip(batch, marked[here], strict=True) if mark]
                shortened, kept = iter(without_lines(with_lines, lines, self.dedup.min_line_chars)), []
                for position, text in enumerate(batch, start=here.start):
                    rest = next(shortened) if marked[position] else text.text
                    if verdicts[position] != KEEP:
                        self._drop(text, REASONS[verdicts[position]], decisions.original(number, position), account)
                    elif rest == text.text or (text := self._shorten(text, rest, account)) is not None:
                        kept.append(text)
                writer.add(kept)
                progress(sum(3 * len(text.text) for text in batch))
            writer.close()

    def _drop(self, text: Text, reason: str, original: tuple[int, int], account: Account) -> None:
        account.dropped.add(reason, f"{text.id}: {text.text}")
        rule = reason.replace("copy of another document", "copies")
        account.rules[rule, text.source, "dropped"] += 1
        account.rules[rule, text.source, "characters"] += len(text.text)
        what = f"the document that stayed, and its {reason.removesuffix(' of another document')}"
        if account.wants(what, text.id):
            unit, position = original
            first = Texts(self.read / unit_name(unit) / "texts").at([position])[0]
            account.show(what, text.id, first, text.text)

    def _shorten(self, text: Text, rest: str, account: Account) -> Text | None:
        account.rules["repeated_lines", text.source, "characters"] += len(text.text) - len(rest)
        if len(rest) < max(1, self.min_chars):
            account.rules["repeated_lines", text.source, "dropped"] += 1
            account.dropped.add("nothing but lines repeated elsewhere", f"{text.id}: {text.text}")
            return None
        account.rules["repeated_lines", text.source, "changed"] += 1
        account.show("rule repeated_lines", text.id, text.text, rest)
        return Text(rest, text.source, text.id)


@dataclass
class Tokenizing:
    """Clean texts to ids: ids.bin, the documents one after another without EOS, and documents.npy, a row of TOKENS for each."""

    texts: Path
    tokenizer: Tokenizer
    folder: Path
    _unknown: dict[str, bool] = field(default_factory=dict, repr=False)

    def __call__(self, number: int, progress: Progress) -> None:
        account, rows, kind = Account(), [], dtype_for(self.tokenizer.vocab_size)
        with whole_folder(self.folder / unit_name(number), account) as new:
            with open(new / "ids.bin", "wb") as file:
                for batch in Texts(self.texts / unit_name(number) / "texts").batches():
                    ids = self.tokenizer.encode_batch([text.text for text in batch])
                    counted = [self._row(text, tokens, account) for text, tokens in zip(batch, ids, strict=True)]
                    rows.append(np.array(counted, TOKENS))
                    self._count_unknown(batch, ids, account)
                    if ids:
                        file.write(np.concatenate(ids).astype(kind).data)
                    progress(sum(3 * len(text.text) for text in batch))
                files.close_on_disk(file)
            with open(new / "documents.npy", "wb") as file:
                np.save(file, np.concatenate([np.zeros(0, TOKENS), *rows]))
                files.close_on_disk(file)

    def _row(self, text: Text, tokens: np.ndarray, account: Account) -> tuple:
        data = text.text.encode()
        account.counts["kept"] += 1
        account.counts["bytes"] += len(data)
        account.lengths[len(text.text).bit_length()] += 1
        account.show("kept", text.id, "", text.text)
        for what, number in ("kept", 1), ("characters", len(text.text)), ("tokens", len(tokens) + 1):
            account.by_source[text.source, what] += number
        # by the text, so that copies of a document lie on the same side and stay there when the corpus grows
        hash = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
        return hash, len(tokens), len(text.text)

    def _count_unknown(self, batch: list[Text], ids: list[np.ndarray], account: Account) -> None:
        unk = self.tokenizer.unk_id
        if unk is None:
            return
        numbers = [int(np.count_nonzero(tokens == unk)) for tokens in ids]
        if not (total := sum(numbers)):
            return
        account.counts["unknown"] += total
        among = "".join(text.text for text, number in zip(batch, numbers, strict=True) if number)
        # all characters counted at once: a count a text takes seventeen times as long where [UNK] is common
        counts = np.bincount(np.frombuffer(among.encode("utf-32-le"), np.uint32))
        codes = np.flatnonzero(counts)
        characters = dict(zip(map(chr, codes.tolist()), counts[codes].tolist(), strict=True))
        new = sorted(characters.keys() - self._unknown.keys())
        self._unknown.update(zip(new, (unk in tokens for tokens in self.tokenizer.encode_batch(new)), strict=True))
        account.unknown.update({character: number for character, number in characters.items() if self._unknown[character]})


@contextmanager
def whole_folder(path: Path, account: Account | None = None) -> Iterator[Path]:
    """A folder to write into, renamed to `path` when the block ends without an error, and the account is in it; a whole one that is
    there stays."""
    new = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        if account is not None:
            files.write_json(new / "account.json", account.as_dict())
        try:
            os.rename(new, path)  # of folders the system replaces none but an empty one
        except OSError:
            if not path.is_dir():
                raise
            # a worker whose parent was killed was quicker, with the same bytes; others may be reading them
        files.sync_folder(path.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)
