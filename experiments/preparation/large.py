"""Does memory stay where it is when the corpus grows, and what does a document cost the search for duplicates?

    python -m experiments.preparation.large <json-lines, may be gzipped, or a folder of them> <scratch folder> [gigabytes=5] [processes=2] [memory=2GB]

Makes so many GB of texts out of the given ones: each copy of a document has 30% of its Chinese characters exchanged for others that the texts
have, as often as the texts have them, so that its length and words look real and it is a near copy of nothing. A function of a seed,
document by document. Then task=prepare, watched: the resident memory of every process, each 0.2 s. Removes nothing at the end.
"""

import gzip
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cngpt.bench.measure import MemoryOf, conditions

ROOT = Path(__file__).parents[2]
SHARE = 0.3  # of the characters
FILE_BYTES = 512 << 20


def records(path: Path) -> list[tuple[str, np.ndarray]]:
    """(title, code points of the text)"""
    records = []
    for file in sorted(path.glob("*.jsonl*")) if path.is_dir() else [path]:
        with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8") as lines:
            for record in map(json.loads, lines):
                text = record.get("text") or record.get("content") or ""
                records.append((record.get("title") or "", np.frombuffer(text.encode("utf-32-le"), np.uint32)))
    return records


def copies(originals: list[tuple[str, np.ndarray]], seed: int = 0) -> Iterator[dict]:
    """Without end: the documents in order with other characters, again and again."""
    everything = np.concatenate([text for _, text in originals])
    chinese = everything[(everything >= 0x4E00) & (everything < 0xA000)]
    number = 0
    while True:
        for index, (title, text) in enumerate(originals):
            rng = np.random.default_rng((seed, number, index))
            new = text.copy()
            exchanged = (rng.random(len(text), np.float32) < SHARE) & (text >= 0x4E00) & (text < 0xA000)
            new[exchanged] = chinese[rng.integers(0, len(chinese), int(exchanged.sum()))]
            yield {"title": f"{title} {number}", "text": new.tobytes().decode("utf-32-le")}
        number += 1


def write(source: Path, folder: Path, gigabytes: float) -> tuple[int, int]:
    """(documents, bytes) of json-lines files in `folder`."""
    folder.mkdir(parents=True)
    size, documents, file, left = 0, 0, None, 0
    for record in copies(records(source)):
        if left <= 0:
            if file:
                file.close()
            if size >= gigabytes * 1e9:
                return documents, size
            file = open(folder / f"{documents:09d}.jsonl", "wb")  # noqa: SIM115 (closed above)
            left = min(FILE_BYTES, gigabytes * 1e9 - size)
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        file.write(line)
        size, left, documents = size + len(line), left - len(line), documents + 1


def watched(command: list[str]) -> tuple[float, list[tuple[int, str]]]:
    """(seconds, [(highest resident bytes, what it is) of each process, the parent first]); each half minute a look at all, on stderr."""
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT)
    ended = threading.Event()

    def report_memory(memory: MemoryOf) -> None:
        while not ended.wait(30):
            now = memory.look()
            listed = " ".join(f"{rss / 1e6:.0f}" for rss in now.values())
            print(f"{time.monotonic() - began:6.0f} s: {listed} MB", file=sys.stderr, flush=True)

    with MemoryOf(process.pid, every=0.2) as memory:
        reporter = threading.Thread(target=report_memory, args=(memory,))
        reporter.start()
        code = process.wait()
        seconds = time.monotonic() - began
        ended.set()
        reporter.join()
    if code:
        raise SystemExit(code)
    return seconds, [(most, "parent" if pid == process.pid else "worker") for pid, most in memory.highest.items()]


def main(source: str, scratch: str, gigabytes: float = 5, processes: int = 2, memory: str = "2GB") -> None:
    folder, began = Path(scratch).resolve(), time.monotonic()
    documents, size = write(Path(source), folder / "texts", gigabytes)
    print(f"{documents:,} documents, {size / 1e9:.2f} GB, made in {time.monotonic() - began:.0f} s", flush=True)
    command = [
        sys.executable,
        str(ROOT / "run.py"),
        "task=prepare",
        "data=files",
        f"data.root={folder / 'texts'}",
        "dedup=default",
    ]
    command += [f"prepare.processes={processes}", f"prepare.memory={memory}", f"prepare.out={folder / 'out'}"]
    command += [f"prepare.texts={folder / 'clean'}"]
    seconds, highest = watched(command)
    report = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    results = {
        "conditions": conditions(("numpy", "tokenizers", "orjson")),
        "documents": documents,
        "gigabytes": round(size / 1e9, 3),
        "processes": processes,
        "memory": memory,
        "seconds": round(seconds),
        "megabytes_per_second": round(size / 1e6 / seconds, 2),
        "megabytes_per_second_a_core": round(size / 1e6 / seconds / processes, 2),
        "stages": report["stages"],
        "highest_megabytes": [(what, round(most / 1e6)) for most, what in highest],
        "duplicates": report["duplicates"],
        "documents_kept": report["documents"]["kept"],
    }
    (folder / "large.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    named = dict(argument.split("=", 1) for argument in sys.argv[3:])
    kinds = {"gigabytes": float, "processes": int, "memory": str}
    main(*sys.argv[1:3], **{key: kinds[key](value) for key, value in named.items()})
