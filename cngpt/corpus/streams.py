"""Clean documents one after another, nothing on disk: for the training of a tokenizer, and for a person to look at."""

import random
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from cngpt.corpus.clean import BASIC, Cleaner, build
from cngpt.corpus.document import Document, Tally
from cngpt.corpus.readers import Reader, open_source, without_weight
from cngpt.corpus.readers.raw import sliced
from cngpt.corpus.report import Account, nothing_kept, print_rows, reasons, report_of, show, skipped_rows
from cngpt.errors import UserError

LOOK_BYTES = 1 << 20  # of a large file, when a few documents are looked at


def clean_texts(sources: Sequence[Mapping], clean: Mapping[str, Any] = BASIC, progress: bool = True) -> Iterator[str]:
    """The clean text of every document kept: what a tokenizer is trained on.

    Raises at the call what `prepare` raises when there is nothing to read, or nothing is kept. progress: after the last text,
    a table on stderr of what was kept and what was not.
    """
    readers = [open_source(without_weight(source)) for source in sources]
    for reader in readers:
        reader.size()
    account = Account()
    texts = _clean_texts(readers, Cleaner(build(clean)), account, progress)
    first = next(texts, None)
    if first is None:
        raise nothing_kept(sources, report_of(account))
    return chain([first], texts)


def _clean_texts(readers: list[Reader], clean: Cleaner, account: Account, progress: bool) -> Iterator[str]:
    began = time.monotonic()
    account.dropped = clean.dropped
    for reader in readers:
        for document in reader.documents(account.skipped):
            account.counts["read"] += 1
            text = clean(document)
            if text is not None:
                account.counts["kept"] += 1
                account.counts["bytes"] += len(text.encode())
                account.by_source[document.source, "kept"] += 1
                account.by_source[document.source, "characters"] += len(text)
                yield text
    if progress and account.counts["kept"]:
        show({**report_of(account), "seconds": time.monotonic() - began})


def inspect(
    sources: Sequence[Mapping], n: int, clean: Mapping[str, Any] = BASIC, seed: int = 0, progress: bool = True
) -> Iterator[tuple[Document, str | None, str]]:
    """(raw document, clean text or None, why it was dropped) for n random documents, none of them twice; fewer where there are fewer.

    Random files, by size, or parts of LOOK_BYTES of a large one that is not compressed, then a random one of the first 1,000 documents in
    each: a look takes seconds, however large the corpus. progress: at the end, on stderr, what was skipped in these files and why.
    ConfigError when there is nothing to read, UserError when none of these files held a document.
    """
    rng, skipped = random.Random(seed), Tally()
    readers = [open_source(without_weight(source)) for source in sources]
    parts = [(reader, part) for reader in readers for raw in reader.all_raws(skipped) for part in sliced(raw, LOOK_BYTES)]
    parts.sort(key=lambda part: rng.random() ** (1 / max(1, part[1].size)), reverse=True)  # larger ones mostly first
    cleaner = Cleaner(build(clean))
    tallies: dict[int, Tally] = {}  # a file that is looked into twice counts once
    seen: set[tuple[int, str]] = set()
    waiting = deque(range(len(parts)))
    while len(seen) < n and waiting:
        number = waiting.popleft()
        reader, raw = parts[number]
        tallies[number] = Tally()
        first = islice(reader.documents_of(raw, tallies[number]), 1000)
        documents = [document for document in first if (number, document.id) not in seen]
        if not documents:
            continue
        document = rng.choice(documents)
        seen.add((number, document.id))
        waiting.append(number)
        cleaner.reset()
        text = cleaner(document)
        yield document, text, ", ".join(cleaner.dropped.counts)
    for tally in tallies.values():
        skipped.merge(tally)
    if n > 0 and not seen:
        raise UserError(f"no document in {len(tallies)} of {len(parts)} files: {reasons({'skipped': skipped.as_dict()})}")
    if progress and skipped.counts:
        print_rows(skipped_rows(skipped.as_dict()))
