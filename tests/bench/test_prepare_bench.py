"""task=bench bench=prepare: that it measures everything and writes it down. No test asks how fast anything is."""

import json

import pytest

from cngpt.bench import tokenizing as bench
from cngpt.bench.measure import interleaved, spread
from cngpt.bench.prepare import measure
from cngpt.bench.texts import bytes_of, evenly
from cngpt.errors import UserError
from cngpt.tokens import load_tokenizer
from tests.commands import run


def test_the_command_measures_the_bundled_sample_and_writes_json(tmp_path):
    done = run("task=bench", "bench=prepare", "repeats=1", "megabytes=0.2", "out=a/bench.json", cwd=tmp_path)
    found = json.loads((tmp_path / "a/bench.json").read_text(encoding="utf-8"))
    assert found["ids"]["differing"] == 0 and found["ids"]["documents"] == found["texts"]["documents"] > 50
    assert {"processor", "cores", "load", "python", "numpy", "tokenizers", "date", "commit"} <= found["conditions"].keys()
    for kind in ("the texts", "Latin"):
        speeds = found["tokenizing"][kind]["megabytes_per_second"]
        assert list(speeds) == [bench.OURS, bench.HF, bench.HF_FAST, bench.PLAIN]
        assert all(speed["repeats"] == 1 and speed["median"] > 0 for speed in speeds.values())
        assert list(found["tokenizing"][kind]["times_faster"]) == [bench.HF, bench.HF_FAST, bench.PLAIN]
    stages = ["read", "clean", "store clean texts", "fingerprints", "decide", "sift", "tokenize", "write"]
    assert sorted(found["stages"]) == sorted(stages)
    assert sum(stage["share"]["median"] for stage in found["stages"].values()) == pytest.approx(1, abs=0.01)
    assert found["whole"]["1"]["largest_process_megabytes"] is None or found["whole"]["1"]["largest_process_megabytes"] > 20
    assert found["speed_up"] is None  # too little for two processes
    for line in (bench.HF, "fingerprints", "the whole of prepare"):
        assert line in done.stdout
    assert not list(tmp_path.glob("cngpt-bench-*")) and {p.name for p in tmp_path.iterdir()} == {"a"}
    again = run("task=bench", "out=a/bench.json", cwd=tmp_path, check=False)
    assert again.returncode == 2 and "exists already" in again.stderr


def test_each_file_gives_an_equal_share_and_what_small_ones_lack_comes_from_the_large(tmp_path):
    for name, lines in ("a", 10), ("b", 9_000), ("c", 9_000):
        text = "".join(json.dumps({"text": f"{name}：" + "字" * 30}) + "\n" for _ in range(lines))
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    documents = evenly([{"reader": "files", "root": str(tmp_path)}], 0.6)
    counts = [sum(d.text[0] == name for d in documents) for name in "abc"]
    assert counts[0] == 10 and abs(counts[1] - counts[2]) < 20 and sum(map(bytes_of, documents)) == pytest.approx(6e5, rel=0.01)


def test_ids_that_differ_are_counted(monkeypatch):
    tokenizer, texts = load_tokenizer("hanzi"), ["中国 abc\n北京", "[SEP] 是什么？", "a\ud800b"]
    assert bench.compare_ids(tokenizer, texts[:2])["differing"] == 0
    monkeypatch.setattr(type(tokenizer), "encode_batch", lambda self, texts: [[0] for _ in texts])
    assert bench.compare_ids(tokenizer, texts) == {"documents": 3, "differing": 3, "with": "tokenizers"}


def test_the_first_turn_of_each_is_left_out_and_all_take_turns():
    seen = []
    found = interleaved({"a": lambda: seen.append("a") or len(seen), "b": lambda: seen.append("b") or len(seen)}, 2)
    assert seen == ["a", "b"] * 3 and found == {"a": [3, 5], "b": [4, 6]}
    assert spread([1, 5, 2]) == {"median": 2, "low": 1, "high": 5, "repeats": 3}


def test_a_source_without_documents_is_one_line(tmp_path):
    (tmp_path / "a.txt").write_text(" ")
    options = {"clean": {}, "dedup": None, "memory": 10**9, "megabytes": 1, "repeats": 1}
    with pytest.raises(UserError, match="holds no document"):
        measure([{"reader": "files", "root": str(tmp_path)}], load_tokenizer("hanzi"), **options)
