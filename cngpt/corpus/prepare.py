"""Sources -> clean texts -> shards, and an account of every document.

    texts/                     clean texts without duplicates, as json-lines; another tokenizer needs no second cleaning
    texts/manifest.json        what they were made of and how
    out/train/  out/valid/     shards (see tokens/shards.py)
    out/report.json, .html     what was kept, changed, dropped and skipped, and why

Both folders appear whole, under their names, or not at all. What is half done waits in `<folder>.work`; the same command goes on there,
and ends with the same bytes as if nothing had happened, whatever the number of processes.
"""

import errno
import json
import math
import random
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from cngpt import files
from cngpt.bar import Bar
from cngpt.corpus import units
from cngpt.corpus.clean import Cleaner, build, fingerprint, name_of
from cngpt.corpus.dedup import Decisions, Dedup, decide
from cngpt.corpus.document import Document, Tally
from cngpt.corpus.engines import Engine
from cngpt.corpus.readers import Reader, open_source
from cngpt.corpus.readers.raw import forget, sliced
from cngpt.corpus.report import Account, nothing_kept, print_rows, reasons, report_of, show, skipped_rows
from cngpt.corpus.report_page import render
from cngpt.corpus.split import Split
from cngpt.corpus.stages import Reading, Sifting, Tokenizer, Tokenizing
from cngpt.corpus.stages import name_of as unit_name
from cngpt.corpus.texts import Texts
from cngpt.corpus.workplace import Pointless, Workplace
from cngpt.errors import ConfigError, UserError
from cngpt.tokens.shards import SHARD_BYTES, Shards, dtype_for

REPORT, MANIFEST = "report.json", "manifest.json"
FORMAT = 2  # of a folder of clean texts
BASIC = {
    "html": True,
    "invisible": True,
    "spaces": True,
    "empty_brackets": True,
    "min_chars": 20,
}  # for any text; conf/clean has more
LOOK_BYTES = 1 << 20  # of a large file, when a few documents are looked at
POOL_FROM = 64 << 20  # bytes of text; below, starting processes takes longer than the work


def prepare(
    sources: Sequence[Mapping],
    out: str | Path,
    tokenizer: Tokenizer,
    *,
    clean: Mapping[str, Any] = BASIC,
    dedup: Dedup | None = None,
    texts: str | Path | None = None,
    valid_fraction: float = 0.01,
    processes: int = 1,
    engine: str = "local",
    slurm: Mapping[str, Any] | None = None,
    memory: int = 8 << 30,
    shard_bytes: int = SHARD_BYTES,
    progress: bool = True,
    overwrite: bool = False,
) -> dict:
    """Writes `texts` (None: `<out>-texts`) unless it is there already, and `out`; returns the report of `out`.

    sources: mappings for readers.open_source; a `weight` says how often a source is read in one pass over the shards. clean: the
    group conf/clean. dedup: None for none. valid_fraction: of the documents, chosen by a hash of the clean text, so copies
    of one text stay together; of two documents or more, one at least is kept aside, and one at least is not. processes: 1 works in
    this one, as do more when there is little to read. engine: one of engines.ENGINES; slurm: the keys of prepare.slurm in
    conf/config.yaml. memory: bytes for the search for duplicates.
    progress: a bar a stage and a closing table on stderr. Raises ConfigError for what the user typed, UserError where nothing is
    left, the disk is full, a file changed meanwhile, or `out` exists (overwrite replaces both folders, but only such as were made here).
    """
    if not 0 <= valid_fraction < 1:
        raise ConfigError(f"data.valid_fraction={valid_fraction} is not a share of the documents: 0 ... below 1")
    if processes < 1:
        raise ConfigError(f"prepare.processes={processes} must be 1 or more")
    for source in sources:
        weight_of(source)
    if files.is_remote(out) or files.is_remote(texts or ""):
        raise ConfigError(f"prepare.texts={texts}, prepare.out={out}: work is done on a local disk; the clean texts stay there")
    out = named("out", out)
    texts = named("texts", texts) if texts else out.with_name(out.name + "-texts")
    for key, folder, mark, replaced in ("out", out, REPORT, overwrite), ("texts", texts, MANIFEST, True):
        here = folder.resolve()
        for source in sources:
            if not files.is_remote(source["root"]) and here in (root := Path(source["root"]).resolve(), *root.parents):
                raise ConfigError(f"prepare.{key}={folder}: is or holds what is read, {source['root']}; choose another folder")
        # of the clean texts nothing half made ever has their name: whatever lacks the mark is somebody else's
        if replaced and folder.exists() and not files.is_empty(folder) and not (folder / mark).is_file():
            raise UserError(
                f"{folder} was not made by task=prepare ({mark} is missing) and is not replaced; choose another folder"
            )
    if out.resolve() == texts.resolve():
        raise ConfigError(f"prepare.out={out} and prepare.texts={texts} are the same folder; they need two")
    # beside a workplace, `out` may be this run's own, killed before it could tidy up: shard() looks
    if out.exists() and not overwrite and not files.is_empty(out) and not Workplace.of(out).exists():
        raise UserError(f"{out} exists already; overwrite=true replaces it")
    build(clean)
    began, stages_run = time.monotonic(), Engine(engine, processes, slurm or {})
    with said_of(out):
        about = clean_corpus(sources, texts, clean, dedup, stages_run, memory, progress, overwrite)
        report = shard(texts, about, out, tokenizer, sources, valid_fraction, stages_run, shard_bytes, progress, overwrite, began)
    if progress:
        show(report)
    return report


def named(key: str, folder: str | Path) -> Path:
    """A folder that has a name of its own, which `.` and `..` have not: what is half done lies beside it under that name."""
    path = Path(folder)
    path = path if path.name not in ("", "..") else path.resolve()
    if not path.name:
        raise ConfigError(f"prepare.{key}={folder}: a folder below this one is needed")
    return path


@contextmanager
def said_of(out: Path) -> Iterator[None]:
    """What the system says of the disk, in one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"no space left on the disk of {out}; with more space the same command goes on where it stopped"
            ) from None
        raise UserError(f"{out} cannot be written: {error.strerror or error}; choose another folder") from error


def clean_corpus(
    sources: Sequence[Mapping],
    folder: Path,
    clean: Mapping,
    dedup: Dedup | None,
    engine: Engine,
    memory: int,
    progress: bool,
    overwrite: bool,
) -> dict:
    """The manifest of `folder`, which is made where it is missing: clean texts, a file a unit."""
    settings = {"sources": [dict(source) for source in sources], "rules": [name_of(rule) for rule in build(clean)]}
    settings |= {"clean": dict(clean), "decided by": fingerprint(clean), "dedup": vars(dedup) if dedup else None}
    for source in settings["sources"]:
        source.pop("weight", None)
    if (folder / MANIFEST).is_file() and not overwrite:
        about = made_before(folder, settings)
        Workplace(folder, {}).sweep()
        return about
    readers = [open_source(source) for source in settings["sources"]]
    for reader, name in zip(readers, names_of(sources), strict=True):
        reader.name = name
    skipped = Tally()
    work = units.plan(readers, skipped)
    size = sum(unit.size for unit in work)
    numbers = range(len(work))
    engine = for_little(engine, sum(unit.content for unit in work))
    forget()  # the archives that were looked into: only workers read them from here on, if there are any
    purpose = {"format": FORMAT, **settings, "plan": units.digest(work)}
    with Workplace(folder, purpose) as place:
        if (folder / MANIFEST).is_file() and not overwrite:  # by the process that was waited for
            return made_before(folder, settings)
        seconds, account = {}, Account(skipped=skipped)
        if progress and (there := len(work) - len(missing(place / "read", numbers))):
            print(f"goes on: {there:,} of {len(work):,} units had been read before", file=sys.stderr)
        with timed("reading and cleaning", size, progress, seconds) as bar:
            reading = Reading(work, clean, dedup, place / "read")
            engine.run(reading, missing(place / "read", numbers), bar, size / len(work), place / "engine")
        account += accounts(place / "read", numbers)
        documents = account.counts["cleaned"]
        if not documents:
            raise nothing_kept(sources, report_of(account))
        done = place / "read"
        if dedup:
            done = place / "texts"
            # told in shares of the whole
            with timed("finding duplicates", documents, progress, seconds, "documents") as bar:
                found = find_duplicates(place, numbers, dedup, memory, lambda share: bar(share * documents))
            sift = Sifting(place / "read", place / "decisions", dedup, min_chars_of(clean), done)
            with timed("removing duplicates", 3 * account.counts["characters cleaned"], progress, seconds) as bar:
                share = 3 * account.counts["characters cleaned"] / len(work)
                engine.run(sift, missing(done, numbers), bar, share, place / "engine")
            account += accounts(done, numbers)
            account.duplicates = found
        manifest = {"format": FORMAT, "settings": settings, "size": size, "plan": purpose["plan"], "seconds": seconds}
        manifest |= {"units": [readers.index(unit.reader) for unit in work], "account": account.as_dict()}
        files.write_json(done / MANIFEST, manifest)
        files.replace_folder(done, folder)
    return manifest_of(folder)


def manifest_of(folder: Path) -> dict:
    """What a folder of clean texts says of itself."""
    return files.read_object(folder / MANIFEST, f"overwrite=true makes {folder} anew")


def find_duplicates(place: Path, numbers: Sequence[int], settings: Dedup, memory: int, progress) -> dict:
    """Writes place/decisions, unless it is there; what was found, for the report."""
    if not (place / "decisions").exists():

        def texts_of(places: list[tuple[int, int]]) -> list[str]:
            """The texts at (unit, position), of one unit, ascending."""
            return (
                Texts(place / "read" / unit_name(places[0][0]) / "texts").at([position for _, position in places])
                if places
                else []
            )

        fingerprints = [place / "read" / unit_name(n) / "fingerprints" for n in numbers]
        decide(fingerprints, settings, texts_of, memory, place / "scratch", progress).save(place / "decisions")
        shutil.rmtree(place / "scratch", ignore_errors=True)
    made = Decisions.load(place / "decisions")
    return {**made.counts, **{f"bytes a document, {where}": size for where, size in made.bytes_per_document.items()}}


def shard(
    texts: Path, about: dict, out: Path, tokenizer: Tokenizer, sources: Sequence[Mapping], valid_fraction: float, engine: Engine,
    shard_bytes: int, progress: bool, overwrite: bool, began: float,
) -> dict:  # fmt: skip
    """Clean texts to `out`; the report."""
    numbers, owners = range(len(about["units"])), about["units"]
    weights = [weight_of(source) for source in sources]
    account = Account.from_dict(about["account"])
    settings = {**about["settings"], "size": about["size"], "valid_fraction": valid_fraction, "weights": weights}
    purpose = {"texts": about["plan"], "settings": settings, "tokenizer": tokenizer.fingerprint}
    with Workplace(out, purpose) as place:
        if (out / REPORT).is_file() and not overwrite:  # by the process that was waited for, or one killed right after
            if made_with(out, settings, tokenizer):
                return files.read_json(out / REPORT)
            raise Pointless(f"{out} exists already, made with other settings; overwrite=true replaces it")
        seconds = dict(about["seconds"])
        size = 3 * account.counts["characters cleaned"]
        left = deque(numbers)

        def write(progress: Callable[[float], None]) -> None:
            """To the shards, in order, the units that have their tokens."""
            while left and (place / "tokens" / unit_name(left[0])).exists():
                for document in documents_of(place / "tokens" / unit_name(left[0]), tokenizer):
                    split.add(*document, owners[left[0]], copies(document[0], weights[owners[left[0]]]) > 0)
                    progress(3 * document[2])
                left.popleft()

        def write_again(progress: Callable[[float], None]) -> None:
            """The second and later copies of what weighs more than 1, a pass over its source for each."""
            for nth in range(2, math.ceil(max(weights)) + 1):
                for number in (n for n in numbers if weights[owners[n]] > nth - 1):
                    for hash, ids, characters in documents_of(place / "tokens" / unit_name(number), tokenizer):
                        if copies(hash, weights[owners[number]]) >= nth:
                            split.again(hash, ids, characters, owners[number])
                        progress(3 * characters)

        with files.atomic_folder(out, overwrite) as new, Split(new, tokenizer, valid_fraction, shard_bytes) as split:
            stages = for_little(engine, size)
            beside = stages.name == "local" and stages.processes > 1  # the workers tokenize, this process writes
            with timed("tokenizing", (1 + beside) * size, progress, seconds) as bar:

                def told(more: float) -> None:
                    bar(more)
                    if beside:
                        write(bar)

                step = Tokenizing(texts, tokenizer, place / "tokens")
                stages.run(step, missing(place / "tokens", numbers), told, size / len(numbers), place / "engine")
            heavier = [(n, math.ceil(weights[owners[n]]) - 1) for n in numbers if weights[owners[n]] > 1]
            more = sum(3 * times * characters_of(place / "tokens" / unit_name(n)) for n, times in heavier)
            with timed("writing shards", size + more, progress, seconds) as bar:
                write(bar)
                write_again(bar)
            account += accounts(place / "tokens", numbers)
            report = report_of(account)
            if not report["documents"]["kept"]:
                raise nothing_kept(sources, report)
            report |= split.close({"settings": settings, **{k: v for k, v in report.items() if k not in ("shown", "duplicates")}})
            if not report["train"]["documents"]:
                raise Pointless("data.sources: these weights leave no document to train on; take higher ones")
            report["mixture"] = mixture(sources, weights, split.counts)
            report |= {"settings": settings, "texts": str(texts), "processes": stages.processes, "engine": engine.name}
            report |= {"seconds": round(time.monotonic() - began, 2), "stages": {k: round(v, 2) for k, v in seconds.items()}}
            files.write_json(new / REPORT, report)
            files.write_text(new / "report.html", render(report))
            tokenizer.save(new / "tokenizer.json")
    return report


def for_little(engine: Engine, size: int) -> Engine:
    """One process of ours does, where there is little to read."""
    return replace(engine, processes=1) if engine.name == "local" and size < POOL_FROM else engine


def documents_of(folder: Path, tokenizer: Tokenizer) -> Iterator[tuple[int, np.ndarray, int]]:
    """(hash, ids, characters) of each document of a unit."""
    rows = np.load(folder / "documents.npy")
    ids = (
        np.memmap(folder / "ids.bin", dtype_for(tokenizer.vocab_size), mode="r")
        if rows["tokens"].any()
        else np.zeros(0, np.uint16)
    )
    end = 0
    for first in range(0, len(rows), 1 << 16):  # of millions of documents, not all numbers as Python's own at once
        for hash, tokens, characters in rows[first : first + (1 << 16)].tolist():
            end += tokens
            yield hash, ids[end - tokens : end], characters


def characters_of(folder: Path) -> int:
    """Of a unit."""
    return int(np.load(folder / "documents.npy")["characters"].sum())


def weight_of(source: Mapping) -> float:
    weight = source.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 100:
        raise ConfigError(
            f"data.sources: weight={weight} must be a number above 0, at most 100: how often this source is read in one pass"
        )
    return weight


def copies(hash: int, weight: float) -> int:
    """How often a document of train comes in one pass: of a fraction, the documents with the lowest hashes have one more, so
    that those of a lower weight are among those of a higher one."""
    whole = int(weight)
    # other bits than those that choose the documents for validation
    return whole + ((hash * 0x9E3779B97F4A7C15 >> 32 & 0xFFFFFFFF) < (weight - whole) * 2**32)


def names_of(sources: Sequence[Mapping]) -> list[str]:
    """What each is called in the report: its reader, and its root where several have the same one."""
    kinds = [str(source["reader"]) for source in sources]
    return [k if kinds.count(k) == 1 else f"{k}: {source['root']}" for k, source in zip(kinds, sources, strict=True)]


def mixture(sources: Sequence[Mapping], weights: Sequence[float], counts: Mapping[tuple[int, str, str], int]) -> list[dict]:
    """A row a source: what it has (documents, tokens; valid's part of it), and what one pass over train reads of it."""
    rows = []
    for n, (name, weight) in enumerate(zip(names_of(sources), weights, strict=True)):
        row = {"source": name, "weight": weight, "documents": counts[n, "all", "documents"], "tokens": counts[n, "all", "tokens"]}
        for part in "valid", "train":
            row[part] = {what: counts[n, part, what] for what in ("documents", "tokens")}
        own = row["tokens"] - row["valid"]["tokens"]
        rows.append({**row, "times": round(row["train"]["tokens"] / own, 3) if own else 0.0})
    return rows


@contextmanager
def timed(title: str, total: float, shown: bool, seconds: dict[str, float], counted: str | None = None) -> Iterator[Bar]:
    began = time.monotonic()
    with Bar(int(total), shown, title, counted) as bar:
        yield bar
    seconds[title] = seconds.get(title, 0.0) + time.monotonic() - began


def missing(folder: Path, numbers: Sequence[int]) -> list[int]:
    """The units that have no result yet."""
    return [n for n in numbers if not (folder / unit_name(n)).exists()]


def accounts(folder: Path, numbers: Sequence[int]) -> Account:
    total = Account()
    for n in numbers:
        total += Account.from_dict(files.read_json(folder / unit_name(n) / "account.json"))
    return total


def min_chars_of(clean: Mapping) -> int:
    value = clean.get("min_chars")
    return value if isinstance(value, int) and not isinstance(value, bool) else 1


def made_before(folder: Path, settings: dict) -> dict:
    """The manifest of clean texts that are there; ConfigError where they were made otherwise, or of other files. Raw files that are
    gone do not matter."""
    about = manifest_of(folder)
    if about.get("format") != FORMAT or about.get("settings") != plain(settings):
        raise ConfigError(
            f"{folder} holds texts that were cleaned otherwise; overwrite=true makes them anew, prepare.texts=... elsewhere"
        )
    if all(files.exists(source["root"]) for source in settings["sources"]):
        now = sum(open_source(source).size() for source in settings["sources"])
        if now != about["size"]:
            raise ConfigError(
                f"data.root: the texts have changed since {folder} was made of them ({about['size']:,} -> {now:,} bytes);"
                " task=prepare overwrite=true with the same data=... makes it anew, prepare.texts=... another"
            )
    return about


def made_with(out: Path, settings: dict, tokenizer: Tokenizer) -> bool:
    """Whether a whole folder of shards was made with these settings and this tokenizer."""
    try:
        report = files.read_json(out / REPORT)
        fingerprints = {Shards(out / part).fingerprint for part in ("train", "valid")}
    except (UserError, OSError, ValueError, KeyError):
        return False
    return report.get("settings") == plain(settings) and fingerprints == {tokenizer.fingerprint}


def plain(value: Any) -> Any:
    """As it comes back from a file of JSON."""
    return json.loads(json.dumps(value))


def clean_texts(sources: Sequence[Mapping], clean: Mapping[str, Any] = BASIC, progress: bool = True) -> Iterator[str]:
    """The clean text of every document kept: what a tokenizer is trained on.

    Raises at the call what `prepare` raises when there is nothing to read, or nothing is kept. progress: after the last text,
    a table on stderr of what was kept and what was not.
    """
    readers = [open_source({k: v for k, v in source.items() if k != "weight"}) for source in sources]
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
    dice, skipped = random.Random(seed), Tally()
    readers = [open_source({k: v for k, v in source.items() if k != "weight"}) for source in sources]
    parts = [(reader, part) for reader in readers for raw in reader.found(skipped) for part in sliced(raw, LOOK_BYTES)]
    parts.sort(key=lambda found: dice.random() ** (1 / max(1, found[1].size)), reverse=True)  # larger ones mostly first
    cleaner = Cleaner(build(clean))
    tallies: dict[int, Tally] = {}  # a file that is looked into twice counts once
    seen: dict[int, set[str]] = {}
    left, waiting = n, deque(range(len(parts)))
    while left and waiting:
        at = waiting.popleft()
        reader, raw = parts[at]
        tallies[at] = Tally()
        documents = [d for d in islice(reader.documents_of(raw, tallies[at]), 1000) if d.id not in seen.get(at, ())]
        if not documents:
            continue
        document = dice.choice(documents)
        seen.setdefault(at, set()).add(document.id)
        waiting.append(at)
        left -= 1
        cleaner.reset()
        text = cleaner(document)
        yield document, text, ", ".join(cleaner.dropped.counts)
    for tally in tallies.values():
        skipped.merge(tally)
    if left == n > 0:
        raise UserError(f"no document in {len(tallies)} of {len(parts)} files: {reasons({'skipped': skipped.as_dict()})}")
    if progress and skipped.counts:
        print_rows(skipped_rows(skipped.as_dict()))
