"""Preparation that is killed again and again ends with the bytes of one that was left alone."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cngpt.corpus import units
from cngpt.corpus.dedup.settings import Dedup
from cngpt.corpus.prepare import prepare
from cngpt.corpus.resumable import work_folder
from cngpt.tokens import load_tokenizer
from tests.corpus.test_prepare import bytes_of

SCRIPT = """
import sys
from pathlib import Path
from cngpt.corpus import prepare, stages, units
from cngpt.corpus.dedup.settings import Dedup
from cngpt.tokens import load_tokenizer

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    stages.BATCH_CHARACTERS, units.UNIT_BYTES, prepare.POOL_FROM = 20_000, 50_000, 0
    source = {"reader": "files", "root": str(folder / "in")}
    prepare.prepare([source], folder / "out", load_tokenizer("hanzi"), dedup=Dedup(lines=50), processes=int(sys.argv[2]), progress=False)
"""


def write(folder: Path, first: int, end: int) -> None:
    """Documents number `first` to `end`, each of its own characters, some lines of all."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "a.jsonl", "w", encoding="utf-8") as file:
        for n in range(first, end):
            rng = random.Random(n)
            text = "".join(chr(0x4E00 + int(rng.random() ** 3 * 6000)) for _ in range(150))
            file.write(
                json.dumps({"text": f"第{n}篇\n{text}\n本文由某某网站编辑整理，转载请注明出处"}, ensure_ascii=False) + "\n"
            )


def killed(tmp_path: Path, kills: int, processes: int, monkeypatch) -> tuple[dict, dict]:
    """The bytes of the shards after so many kills, and of an undisturbed run with larger batches."""
    write(tmp_path / "in", 0, 3000)
    write(tmp_path / "in/more", 2000, 4000)  # a third of them once again
    source = {"reader": "files", "root": str(tmp_path / "in")}
    monkeypatch.setattr(units, "UNIT_BYTES", 50_000)
    report = prepare([source], tmp_path / "alone", load_tokenizer("hanzi"), dedup=Dedup(lines=50), progress=False)
    assert report["documents"]["kept"] == 4000 and report["rules"]["repeated_lines"]["files"]["changed"] == 4000
    (tmp_path / "script.py").write_text(SCRIPT)
    rng, died = random.Random(kills), 0
    errors = tmp_path / "stderr"  # of the last one: workers that lose their parent complain
    here = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    while died < kills:
        with open(errors, "w") as file:
            run = subprocess.Popen([sys.executable, tmp_path / "script.py", tmp_path, str(processes)], env=here, stderr=file)
        stop = time.monotonic() + rng.uniform(0.5, 2.5)
        while run.poll() is None and time.monotonic() < stop:
            time.sleep(0.005)
        if run.poll() is None:
            os.kill(run.pid, signal.SIGKILL)
            run.wait()
            died += 1
        else:
            assert run.returncode == 0, errors.read_text()
        if whole(tmp_path / "out"):  # it was quicker than we, or had only to end: from the beginning again
            assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "alone")
            for made in ("out", "out-texts"):
                shutil.rmtree(tmp_path / made)
    subprocess.run([sys.executable, tmp_path / "script.py", tmp_path, str(processes)], env=here, check=True)
    assert not list(tmp_path.glob("*.work")) and not list(tmp_path.glob(".out*"))
    return bytes_of(tmp_path / "out"), bytes_of(tmp_path / "alone")


def whole(out: Path) -> bool:
    """Whether nothing is left to do: its folder for work is thrown away last."""
    return out.exists() and not work_folder(out).exists()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_few_kills_change_no_byte(tmp_path, processes, monkeypatch):
    after, alone = killed(tmp_path, 3, processes, monkeypatch)
    assert after == alone


@pytest.mark.slow
def test_thirty_kills_change_no_byte(tmp_path, monkeypatch):
    after, alone = killed(tmp_path, 30, 2, monkeypatch)
    assert after == alone
