"""How fast raw texts become shards: tokenizing beside its peers, each stage alone, the whole in one process and in two.

MB are 10**6 bytes of UTF-8 in titles and texts. What is measured was written out beforehand as one plain json-lines file, so that
`prepare` can slice it and no archive is timed.
"""

import functools
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cngpt.bench.measure import Clock, MemoryOf, conditions, interleaved, shown, spread
from cngpt.bench.texts import evenly, latin, write
from cngpt.bench.tokenizing import OURS, SAMPLES, compare_ids, compare_speed
from cngpt.corpus import units
from cngpt.corpus.dedup.settings import Dedup
from cngpt.corpus.document import Tally
from cngpt.corpus.mixture import MixtureWriter
from cngpt.corpus.prepare import POOL_FROM, find_duplicates, min_chars_of, prepare
from cngpt.corpus.readers import open_source
from cngpt.corpus.split import Split
from cngpt.corpus.stages import Reading, RemoveDuplicates, Tokenizing
from cngpt.errors import UserError
from cngpt.tokens import Tokenizer
from cngpt.tokens.shards import SHARD_BYTES

LIBRARIES = ("numpy", "tokenizers", "orjson", "zstandard")
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
    repeats: int, log: Callable[[str], None] = lambda _: None,
) -> dict:  # fmt: skip
    """All results, ready for JSON. `sources`, `clean`, `dedup`, `memory` as for `prepare`; `megabytes` of the texts are read.

    Takes four times their size on the disk of temporary files. Raises UserError where there is no text."""
    results = {"bench": "prepare", "conditions": conditions(LIBRARIES)}
    settings = {"sources": [dict(source) for source in sources], "tokenizer": tokenizer.name, "manner": tokenizer.manner}
    settings |= {"clean": dict(clean), "dedup": dedup.model_dump() if dedup else None}
    results["settings"] = {**settings, "megabytes": megabytes, "repeats": repeats}
    with tempfile.TemporaryDirectory(prefix="cngpt-bench-") as folder:
        documents = evenly(sources, megabytes)
        if not documents:
            raise UserError("nothing to measure with: data.root holds no document")
        work = Work(Path(folder), write(documents, Path(folder) / "texts.jsonl"), tokenizer, clean, dedup, memory)
        texts = [f"{d.title}\n{d.text}" for d in documents]
        del documents
        results["texts"] = {"megabytes": round(work.size / 1e6, 3), "documents": len(texts)}
        log(f"comparing the ids of {len(texts):,} documents, {work.size / 1e6:,.1f} MB")
        results["ids"] = compare_ids(tokenizer, texts)
        results["tokenizing"] = {}
        kinds = {"the texts": texts, "Latin": latin(texts, min(SAMPLES[OURS], max(1.0, work.size / 1e6)))}
        for kind in list(kinds):
            log(f"tokenizing: {kind}")
            results["tokenizing"][kind] = compare_speed(tokenizer, kinds.pop(kind), repeats)
        del texts
        log("the whole of prepare and its stages")
        results |= measure_whole(work, repeats)
    return results


def measure_whole(work: Work, repeats: int) -> dict:
    """{"stages", "whole", "speed_up"}"""
    processes = [1, 2] if (work.folder / "texts.jsonl").stat().st_size >= POOL_FROM else [1]
    whole = {n: functools.partial(in_processes, work, n) for n in processes}
    turns = interleaved({"stages": lambda: seconds_of_stages(work), **whole}, repeats)
    clocks, megabytes = turns.pop("stages"), work.size / 1e6
    results = {"stages": {}, "whole": {}, "speed_up": None}
    for name in clocks[0]:
        seconds = [clock[name] for clock in clocks]
        results["stages"][name] = {
            "megabytes_per_second": spread(megabytes / max(s, 1e-9) for s in seconds),
            "share": spread(s / sum(clock.values()) for s, clock in zip(seconds, clocks, strict=True)),
        }
    for n, runs in turns.items():
        seconds, busy, peaks = zip(*runs, strict=True)
        results["whole"][str(n)] = {
            "seconds": spread(seconds),
            "megabytes_per_second_a_core": spread(megabytes / s / n for s in seconds),
            # of its own time alone: workers are children of the server that forks them
            "megabytes_per_processor_second": spread(megabytes / s for s in busy) if n == 1 else None,
            "largest_process_megabytes": round(max(peaks) / 1e6) if max(peaks) else None,
        }
    if 2 in processes:
        results["speed_up"] = spread(one / two for (one, *_), (two, *_) in zip(turns[1], turns[2], strict=True))
    return results


def seconds_of_stages(work: Work) -> dict[str, float]:
    """Each stage in this process, in the order of `prepare` and on its files."""
    clock, folder = Clock(), work.folder / "stages"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    plan = units.plan([open_source(source) for source in work.sources], Tally())
    numbers, texts = range(len(plan)), folder / "read"

    def run(stage: Callable) -> None:
        for n in numbers:
            stage(n, lambda more: None)

    run(Reading(plan, work.clean, work.dedup, texts, clock))
    if work.dedup:
        with clock("decide"):
            find_duplicates(folder, numbers, work.dedup, work.memory, lambda share: None)
        with clock("sift"):
            texts = folder / "texts"
            run(RemoveDuplicates(folder / "read", folder / "decisions", work.dedup, min_chars_of(work.clean), texts))
    with clock("tokenize"):
        run(Tokenizing(texts, work.tokenizer, folder / "tokens"))
    with clock("write"), Split(folder / "out", work.tokenizer, VALID, SHARD_BYTES) as split:
        MixtureWriter(split, folder / "tokens", work.tokenizer, [0] * len(plan), [1]).add_ready(lambda more: None)
        split.close({})
    shutil.rmtree(folder)
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


def show(results: Mapping) -> None:
    from rich.console import Console
    from rich.table import Table

    console, machine = Console(), results["conditions"]
    if not console.is_terminal:
        console.width = 140  # a file has no edge
    console.print(f"{machine['processor']}, {machine['cores']} cores, load {machine['load']} before it began; {machine['date']}")
    console.print("speeds: median (low … high)")
    ids, texts = results["ids"], results["texts"]
    console.print(
        f"{texts['documents']:,} documents, {texts['megabytes']:,.1f} MB; {ids['differing']:,} of {ids['documents']:,} have other ids than {ids['with']} gives"
    )
    for kind, tokenizers in results["tokenizing"].items():
        table = Table("tokenizing", "MB a processor second", "ours is faster, times", title=kind, title_justify="left")
        for name, speed in tokenizers["megabytes_per_second"].items():
            table.add_row(name, shown(speed), shown(tokenizers["times_faster"][name]) if name != OURS else "")
        console.print(table)
    table = Table("stage, alone on one core", "MB/s", "share")
    for name, stage in results["stages"].items():
        table.add_row(name, shown(stage["megabytes_per_second"]), f"{stage['share']['median']:.0%}")
    console.print(table)
    table = Table("the whole of prepare", "seconds", "MB/s a core", "MB a processor second", "largest process, MB")
    for n, whole in results["whole"].items():
        memory = whole["largest_process_megabytes"]
        keys = ("seconds", "megabytes_per_second_a_core", "megabytes_per_processor_second")
        speeds = [shown(whole[key]) if whole[key] else "?" for key in keys]
        table.add_row("1 process" if n == "1" else f"{n} processes", *speeds, "?" if memory is None else f"{memory:,}")
    console.print(table)
    if results["speed_up"]:
        console.print(f"1 to 2 processes: {shown(results['speed_up'])} times as fast")
    else:
        console.print(
            f"less than {POOL_FROM / 1e6:.0f} MB is always prepared in one process: megabytes=100 shows what a second one gives"
        )
