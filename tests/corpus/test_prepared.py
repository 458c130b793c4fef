"""Shards that several processes of one host want: the first makes them, the others wait, and do not wait for a dead one."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cngpt.corpus import prepared
from cngpt.corpus.dedup.settings import Dedup
from cngpt.corpus.prepared import make_once
from cngpt.corpus.settings import Data, Prepare
from cngpt.errors import UserError
from tests.commands import ROOT
from tests.corpus.fakes import CodePoints
from tests.corpus.test_prepare import corpus

MAKER = """
import sys, time
from pathlib import Path
from cngpt.corpus.prepared import make_once

path = Path(sys.argv[1])
def make():
    print("begun", flush=True)
    time.sleep(float(sys.argv[2]))
    path.mkdir()

print(make_once(path, path.exists, make))
"""


def process(path, seconds, rank):
    environment = {**os.environ, "LOCAL_RANK": str(rank), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", MAKER, str(path), str(seconds)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_who_waits_for_a_process_that_is_killed_gives_up(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(prepared, "POLL", 0.01)
    path, kills = tmp_path / "shards", []
    first = process(path, 60, 0)
    assert first.stdout.readline() == "begun\n"

    def is_there():
        if len(kills) == 3:  # it was seen at work
            os.kill(first.pid, signal.SIGKILL)
            first.wait()
        kills.append(1)
        return path.exists()

    with pytest.raises(UserError, match=r"shards: the process of this host that was making it has ended"):
        make_once(path, is_there, lambda: None)
    first.communicate()
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert make_once(path, path.exists, path.mkdir) and os.listdir(tmp_path) == ["shards"]  # the next one begins anew


def test_who_waits_for_a_process_that_never_begins_gives_up(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(prepared, "POLL", 0.01)
    monkeypatch.setattr(prepared, "BEGIN_WITHIN", 0.05)
    with pytest.raises(UserError, match="no process of this host has begun to make it"):
        make_once(tmp_path / "shards", (tmp_path / "shards").exists, lambda: None)


def test_one_of_several_processes_makes_the_shards_and_all_take_them(tmp_path):
    path = tmp_path / "shards"
    others = [process(path, 0.5, rank) for rank in (1, 2)]
    both = [process(path, 0.5, 0) for _ in range(2)]  # two commands at once
    outputs = [p.communicate(timeout=60) for p in (*others, *both)]
    assert [out.split()[-1] for out, _ in outputs[:2]] == ["False", "False"]
    assert sorted(out.split()[-1] for out, _ in outputs[2:]) == ["False", "True"], outputs
    assert os.listdir(tmp_path) == ["shards"]


def test_a_failure_of_the_first_leaves_no_lock(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    data = Data(name="files", sources=[{"reader": "files", "root": str(tmp_path / "nowhere")}])
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(UserError, match="nowhere is not there"):
        prepared.prepared(data, CodePoints(), clean={}, dedup=Dedup(), prepare=Prepare(), folder=tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())


def test_shards_made_before_are_found_by_name_and_refused_when_their_texts_changed(tmp_path, capsys):
    began = time.time()
    data = Data(name="files", sources=corpus(tmp_path / "in", 20))
    options = {"clean": {"min_chars": 5}, "dedup": Dedup(), "prepare": Prepare(), "folder": tmp_path / "data"}
    out = prepared.prepared(data, CodePoints(), **options)
    assert out.parent == tmp_path / "data" and out.name.startswith("files-codes-") and out.stat().st_mtime >= began - 1
    assert "report   " in capsys.readouterr().err
    assert prepared.prepared(data, CodePoints(), **options) == out
    assert f"reading {out}, made before" in capsys.readouterr().err
    assert prepared.prepared(data, CodePoints(), **{**options, "dedup": Dedup(lines=2)}) != out
    corpus(tmp_path / "in", 21)
    with pytest.raises(UserError, match=r"data\.root: the texts have changed since .* \(.*bytes\); task=prepare overwrite=true"):
        prepared.prepared(data, CodePoints(), **options)
    assert prepared.prepared(data, CodePoints(), **options, overwrite=True) == out
