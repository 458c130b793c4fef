"""How fast raw texts become shards: tokenizing beside its peers, each stage alone, the whole in one process and in two.

MB are 10**6 bytes of UTF-8 in titles and texts. What is measured was written out beforehand as one plain json-lines file, so that
`prepare` can slice it and no archive is timed.
"""

import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cngpt.bench.measure import Clock, MemoryOf, conditions, interleaved, shown, spread
from cngpt.corpus import units
from cngpt.corpus.clean import Cleaner, build
from cngpt.corpus.dedup import Dedup, FingerprintWriter
from cngpt.corpus.document import Document, Tally
from cngpt.corpus.prepare import POOL_FROM, documents_of, find_duplicates, min_chars_of, prepare
from cngpt.corpus.readers import open_source
from cngpt.corpus.report import Account
from cngpt.corpus.split import Split
from cngpt.corpus.stages import Sifting, Tokenizing, batches_of, name_of, whole_folder
from cngpt.corpus.texts import Text, TextWriter
from cngpt.errors import UserError
from cngpt.files import write_json
from cngpt.tokens import Tokenizer
from cngpt.tokens.google import GoogleRules
from cngpt.tokens.shards import SHARD_BYTES
from cngpt.tokens.tokenizer import SURROGATE

LIBRARIES = ("numpy", "tokenizers", "orjson", "zstandard")
OURS, HF, HF_FAST, PLAIN = "ours", "tokenizers encode_batch", "tokenizers encode_batch_fast", "plain BERT, a document at a time"
SAMPLES = {OURS: 20.0, HF: 1.5, HF_FAST: 1.5, PLAIN: 0.7}  # MB at most in one turn: one to two seconds each
COMPARED = 4_000_000  # characters tokenized at once when ids are compared: HF keeps some 300 bytes of each
VALID = 0.01  # of the documents


@dataclass(frozen=True)
class Work:
    """What is prepared, and how."""

    folder: Path  # for everything that is written; the texts lie in it
    size: int  # bytes of UTF-8
    tokenizer: Tokenizer
    clean: Mapping[str, Any]
    dedup: Dedup | None
    memory: int  # bytes

    @property
    def sources(self) -> list[dict]:
        return [{"reader": "files", "root": str(self.folder / "texts.jsonl")}]


def measure(
    sources: Sequence[Mapping], tokenizer: Tokenizer, *, clean: Mapping[str, Any], dedup: Dedup | None, memory: int, megabytes: float,
    repeats: int, say: Callable[[str], None] = lambda _: None,
) -> dict:  # fmt: skip
    """All results, ready for JSON. `sources`, `clean`, `dedup`, `memory` as for `prepare`; `megabytes` of the texts are read.

    Takes four times their size on the disk of temporary files. Raises UserError where there is no text."""
    results = {"bench": "prepare", "conditions": conditions(LIBRARIES)}
    results["settings"] = {"sources": [dict(s) for s in sources], "tokenizer": tokenizer.name, "manner": tokenizer.manner}
    results["settings"] |= {
        "clean": dict(clean),
        "dedup": vars(dedup) if dedup else None,
        "megabytes": megabytes,
        "repeats": repeats,
    }
    with tempfile.TemporaryDirectory(prefix="cngpt-bench-") as folder:
        documents = evenly(sources, megabytes)
        if not documents:
            raise UserError("nothing to measure with: data.root holds no document")
        work = Work(Path(folder), written(documents, Path(folder) / "texts.jsonl"), tokenizer, clean, dedup, memory)
        texts = [f"{d.title}\n{d.text}" for d in documents]
        results["texts"] = {"megabytes": round(work.size / 1e6, 3), "documents": len(documents)}
        say(f"comparing the ids of {len(texts):,} documents, {work.size / 1e6:,.1f} MB")
        results["ids"] = compared(tokenizer, texts)
        kinds = {"the texts": texts, "Latin": latin(texts, min(SAMPLES[OURS], max(1.0, work.size / 1e6)))}
        del documents
        for kind, of_kind in kinds.items():
            say(f"tokenizing: {kind}")
            results.setdefault("tokenizing", {})[kind] = tokenizing(tokenizer, of_kind, repeats)
        del texts, kinds, of_kind
        say("the whole of prepare and its stages")
        results |= wholes(work, repeats)
    return results


# ---- the texts


def evenly(sources: Sequence[Mapping], megabytes: float) -> list[Document]:
    """About so many MB of documents, an equal share of each file (of a small one, all), interleaved."""
    readers = [open_source({k: v for k, v in source.items() if k != "weight"}) for source in sources]
    raws = [(reader, raw) for reader in readers for raw in reader.found(Tally())]
    random.Random(0).shuffle(raws)  # of 800,000 files the first that are enough
    raws.sort(key=lambda found: found[1].size)  # small ones first: what they lack, the larger ones give
    if sum(raw.size for _, raw in raws) > 20e6 * megabytes:
        random.Random(0).shuffle(raws)
    left, taken = megabytes * 1e6, []
    for number, (reader, raw) in enumerate(raws):
        share, size, documents = max(left / (len(raws) - number), 1e5), 0, []
        for document in reader.documents_of(raw, Tally()):
            documents.append(document)
            size += bytes_of(document)
            if size >= share:
                break
        left -= size
        taken += [((place + 0.5) / len(documents), number, document) for place, document in enumerate(documents)]
        if left <= 0:
            break
    return [document for _, _, document in sorted(taken, key=lambda found: found[:2])]


def bytes_of(document: Document) -> int:
    return len(document.title.encode(errors="replace")) + len(document.text.encode(errors="replace"))


def written(documents: Sequence[Document], path: Path) -> int:
    """Json-lines; the bytes of their titles and texts."""
    with open(path, "w", encoding="utf-8", errors="replace") as file:
        file.writelines(json.dumps({"title": d.title, "text": d.text}, ensure_ascii=False) + "\n" for d in documents)
    return sum(map(bytes_of, documents))


def latin(texts: Sequence[str], megabytes: float, seed: int = 0) -> list[str]:
    """Text that reads like English and is none: words of these texts, as often as they stand in them, in sentences; one in
    twenty is a word that never came before, as names and numbers are."""
    words = Counter(word for text in texts for word in re.findall(r"[A-Za-z]+(?:['-][A-Za-z]+)*", text))
    if len(words) < 1000:  # hardly any
        words.update(f"{a}{b}" for a in ("", "pre", "un", "re", "de", "inter", "over") for b in STEMS)
    dice, documents, size = random.Random(seed), [], 0
    kinds, sums = list(words), list(itertools.accumulate(words.values()))
    while size < megabytes * 1e6:
        sentences = []
        for _ in range(dice.randint(5, 40)):
            sentence = dice.choices(kinds, cum_weights=sums, k=dice.randint(4, 24))
            sentence = [_new_word(dice) if dice.random() < 0.05 else word for word in sentence]
            commas = ", ".join(" ".join(sentence[n : n + 9]) for n in range(0, len(sentence), 9))
            sentences.append(f"{commas[0].upper()}{commas[1:]}.")
        documents.append(" ".join(sentences))
        size += len(documents[-1])
    return documents


STEMS = (
    "act",
    "build",
    "call",
    "do",
    "form",
    "go",
    "hold",
    "join",
    "keep",
    "load",
    "make",
    "name",
    "open",
    "play",
    "read",
    "set",
    "take",
    "use",
)


def _new_word(dice: random.Random) -> str:
    return (
        f"{dice.randint(1, 99_999)}" if dice.random() < 0.3 else "".join(dice.choices("aeioubcdfglmnprst", k=dice.randint(4, 11)))
    )


# ---- tokenizing


def peer(tokenizer: Tokenizer):
    """The same tokenizer in the hands of `tokenizers`, without the control tokens that text could spell."""
    from tokenizers import Tokenizer as Backend

    spec = json.loads(tokenizer.to_json())
    spec["added_tokens"] = [token for token in spec.get("added_tokens") or [] if not token["special"]]
    return Backend.from_str(json.dumps(spec))


def plain_rules(tokenizer: Tokenizer) -> GoogleRules | None:
    """What the seed did, per document and in Python; None for a tokenizer that is no WordPiece."""
    spec = json.loads(tokenizer.to_json())
    if spec["model"]["type"] != "WordPiece":
        return None
    normalizer = spec["normalizer"] or {}
    lowercase = (normalizer.get("normalizers") or [normalizer])[-1].get("lowercase", False)
    return GoogleRules(spec["model"]["vocab"], tokenizer.unk_id, lowercase)


@contextmanager
def cores_of_tokenizers(all_of_them: bool) -> Iterator[None]:
    """`tokenizers` looks at this variable at each call."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if all_of_them else "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def compared(tokenizer: Tokenizer, texts: Sequence[str]) -> dict:
    """{"documents", "differing"}: how many of the texts have other ids than its manner's own rules give."""
    rules = plain_rules(tokenizer) if tokenizer.manner == "gpt2ml" else None
    backend, differing = peer(tokenizer), 0
    with cores_of_tokenizers(True):
        for batch in _batches(texts, COMPARED):
            if rules:
                expected = [[i for word in rules.words(text) for i in rules.pieces(word)] for text in batch]
            else:
                whole = [SURROGATE.sub("\ufffd", text) for text in batch]  # as ours reads them
                expected = [found.ids for found in backend.encode_batch_fast(whole, add_special_tokens=False)]
            differing += sum(not np.array_equal(a, b) for a, b in zip(tokenizer.encode_batch(batch), expected, strict=True))
    return {"documents": len(texts), "differing": differing, "with": "cngpt/tokens/google.py" if rules else "tokenizers"}


def _batches(texts: Sequence[str], characters: int) -> Iterator[list[str]]:
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def tokenizing(tokenizer: Tokenizer, texts: Sequence[str], repeats: int) -> dict:
    """MB a second of processor time, which other work on the machine disturbs least: of ours, with an empty cache of words each
    time, and of its peers; how many times faster ours is."""
    backend, rules = peer(tokenizer), plain_rules(tokenizer)

    def ours(texts: list[str]) -> None:
        for batch in _batches(texts, 1 << 20):  # as `prepare` does
            fresh[0].encode_batch(batch)

    def plain(texts: list[str]) -> None:
        for text in texts:
            [i for word in rules.words(text) for i in rules.pieces(word)]

    fresh: list[Tokenizer] = [tokenizer]
    runs = {
        OURS: ours,
        HF: lambda texts: backend.encode_batch(texts, add_special_tokens=False),
        HF_FAST: lambda texts: backend.encode_batch_fast(texts, add_special_tokens=False),
    }
    runs |= {PLAIN: plain} if rules else {}

    def timed(name: str) -> Callable[[], float]:
        sample = _first(texts, SAMPLES[name])
        size = sum(len(text.encode()) for text in sample)

        def run() -> float:
            fresh[0] = Tokenizer.from_json(tokenizer.to_json()) if name == OURS else tokenizer
            began = time.process_time()
            runs[name](sample)
            return size / 1e6 / (time.process_time() - began)

        return run

    with cores_of_tokenizers(False):
        found = interleaved({name: timed(name) for name in runs}, repeats)
    return {
        "megabytes_per_second": {name: spread(speeds) for name, speeds in found.items()},
        "times_faster": {
            name: spread(mine / other for mine, other in zip(found[OURS], found[name], strict=True))
            for name in runs
            if name != OURS
        },
    }


def _first(texts: Sequence[str], megabytes: float) -> list[str]:
    """Evenly out of all of them, so many MB; without lone surrogates, which `tokenizers` refuses."""
    size = sum(len(text.encode(errors="replace")) for text in texts)
    step = max(1.0, size / (megabytes * 1e6))
    chosen = [texts[int(n * step)] for n in range(int(len(texts) / step) or 1)]
    return [SURROGATE.sub("\ufffd", text) for text in chosen]


# ---- the whole and its stages


def wholes(work: Work, repeats: int) -> dict:
    """{"stages", "whole", "speed_up"}"""
    numbers = [1, 2] if (work.folder / "texts.jsonl").stat().st_size >= POOL_FROM else [1]
    clocks: list[dict[str, float]] = []
    peaks: dict[int, list[int]] = {n: [] for n in numbers}
    processor: dict[int, list[float]] = {n: [] for n in numbers}

    def alone() -> float:
        clocks.append(stages(work))
        return sum(clocks[-1].values())

    def whole(processes: int) -> Callable[[], float]:
        def run() -> float:
            seconds, busy, memory = in_processes(work, processes)
            peaks[processes].append(memory)
            processor[processes].append(busy)
            return seconds

        return run

    found = interleaved({"stages": alone, **{n: whole(n) for n in numbers}}, repeats)
    clocks = clocks[1:]  # the first warmed up
    megabytes = work.size / 1e6
    results = {"stages": {}, "whole": {}, "speed_up": None}
    for name in clocks[0]:
        seconds = [clock[name] for clock in clocks]
        results["stages"][name] = {
            "megabytes_per_second": spread(megabytes / max(s, 1e-9) for s in seconds),
            "share": spread(s / sum(clock.values()) for s, clock in zip(seconds, clocks, strict=True)),
        }
    for n in numbers:
        results["whole"][str(n)] = {
            "seconds": spread(found[n]),
            "megabytes_per_second_a_core": spread(megabytes / seconds / n for seconds in found[n]),
            # of its own time alone: workers are children of the server that forks them
            "megabytes_per_processor_second": spread(megabytes / seconds for seconds in processor[n][1:]) if n == 1 else None,
            "largest_process_megabytes": round(max(peaks[n]) / 1e6) if max(peaks[n]) else None,
        }
    if 2 in numbers:
        results["speed_up"] = spread(one / two for one, two in zip(found[1], found[2], strict=True))
    return results


def stages(work: Work) -> dict[str, float]:
    """Seconds of each stage, in this process: what prepare does, in its order and on its files."""
    clock, place = Clock(), work.folder / "stages"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    cleaner, account, dedup = Cleaner(build(work.clean)), Account(), work.dedup
    plan = units.plan([open_source(source) for source in work.sources], Tally())
    for unit in plan:
        with whole_folder(place / "read" / name_of(unit.number)) as new, TextWriter(new / "texts") as writer:
            prints = FingerprintWriter(new / "fingerprints", dedup) if dedup else None
            batches = batches_of(unit.documents(Tally()))
            while True:
                with clock("read"):
                    batch = next(batches, None)
                if batch is None:
                    break
                with clock("clean"):
                    texts = [Text(text, d.source, d.id) for d in batch if (text := cleaner(d)) is not None]
                with clock("store clean texts"):
                    writer.add(texts)
                if prints:
                    with clock("fingerprints"):
                        prints.add([text.text for text in texts])
            with clock("store clean texts"):
                writer.close()
            if prints:
                with clock("fingerprints"):
                    prints.close()
            write_json(new / "account.json", account.as_dict())
    numbers, done = range(len(plan)), place / "read"
    if dedup:
        with clock("decide"):
            find_duplicates(place, numbers, dedup, work.memory, lambda share: None)
        with clock("sift"):
            done = place / "texts"
            sift = Sifting(place / "read", place / "decisions", dedup, min_chars_of(work.clean), done)
            for n in numbers:
                sift(n, lambda more: None)
    with clock("tokenize"):
        step = Tokenizing(done, work.tokenizer, place / "tokens")
        for n in numbers:
            step(n, lambda more: None)
    with clock("write"), Split(place / "out", work.tokenizer, VALID, SHARD_BYTES) as split:
        for n in numbers:
            for document in documents_of(place / "tokens" / name_of(n), work.tokenizer):
                split.add(*document)
        split.close({})
    shutil.rmtree(place)
    return clock.seconds


def in_processes(work: Work, processes: int) -> tuple[float, float, int]:
    """(seconds of the whole of prepare, seconds of processor time, bytes of its largest process or 0), in a process of its own
    with a fresh folder."""
    context = multiprocessing.get_context("spawn")
    folder = work.folder / f"whole-{processes}"
    shutil.rmtree(folder, ignore_errors=True)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_whole, args=(work, folder, processes, sender))
    process.start()
    sender.close()
    try:
        with MemoryOf(process.pid) as memory:
            seconds, processor = receiver.recv()
    except EOFError:
        raise UserError("the process that was measured ended before its time; is there memory enough?") from None
    finally:
        process.join()
    shutil.rmtree(folder)
    return seconds, processor, max(memory.highest.values(), default=0)


def _whole(work: Work, folder: Path, processes: int, sender) -> None:
    began, before = time.perf_counter(), sum(os.times()[:4])
    prepare(
        work.sources, folder / "out", work.tokenizer, clean=work.clean, dedup=work.dedup, valid_fraction=VALID, processes=processes,
        memory=work.memory, progress=False,
    )  # fmt: skip
    sender.send((time.perf_counter() - began, sum(os.times()[:4]) - before))


# ---- on paper


def show(results: Mapping) -> None:
    """The results as tables on stdout."""
    from rich.console import Console
    from rich.table import Table

    console, about = Console(), results["conditions"]
    if not console.is_terminal:
        console.width = 140  # a file has no edge
    console.print(f"{about['processor']}, {about['cores']} cores, load {about['load']} before it began; {about['date']}")
    console.print("speeds: median (low … high)")
    ids, texts = results["ids"], results["texts"]
    console.print(
        f"{texts['documents']:,} documents, {texts['megabytes']:,.1f} MB; {ids['differing']:,} of {ids['documents']:,} have other ids than {ids['with']} gives"
    )
    for kind, found in results["tokenizing"].items():
        table = Table("tokenizing", "MB a processor second", "ours is faster, times", title=kind, title_justify="left")
        for name, speed in found["megabytes_per_second"].items():
            table.add_row(name, shown(speed), shown(found["times_faster"][name]) if name != OURS else "")
        console.print(table)
    table = Table("stage, alone on one core", "MB/s", "share")
    for name, found in results["stages"].items():
        table.add_row(name, shown(found["megabytes_per_second"]), f"{found['share']['median']:.0%}")
    console.print(table)
    table = Table("the whole of prepare", "seconds", "MB/s a core", "MB a processor second", "largest process, MB")
    for n, found in results["whole"].items():
        name = "1 process" if n == "1" else f"{n} processes"
        memory = found["largest_process_megabytes"]
        keys = ("seconds", "megabytes_per_second_a_core", "megabytes_per_processor_second")
        speeds = [shown(found[key]) if found[key] else "?" for key in keys]
        table.add_row(name, *speeds, "?" if memory is None else f"{memory:,}")
    console.print(table)
    if results["speed_up"]:
        console.print(f"1 to 2 processes: {shown(results['speed_up'])} times as fast")
    else:
        console.print(
            f"less than {POOL_FROM / 1e6:.0f} MB is always prepared in one process: megabytes=100 shows what a second one gives"
        )
