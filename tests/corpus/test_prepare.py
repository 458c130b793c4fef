import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cngpt.corpus import prepare as preparation
from cngpt.corpus import stages, streams, units
from cngpt.corpus.clean import BASIC
from cngpt.corpus.document import Tally
from cngpt.corpus.prepare import prepare
from cngpt.corpus.readers import open_source
from cngpt.corpus.resumable import resumable_folder
from cngpt.corpus.stages import whole_folder
from cngpt.corpus.streams import clean_texts, inspect
from cngpt.errors import ConfigError, UserError
from cngpt.tokens.shards import Shards
from tests.corpus.fakes import CodePoints

TOKENIZER = CodePoints()


def corpus(folder, n, start=0):
    folder.mkdir(exist_ok=True)
    with open(folder / "a.jsonl", "w", encoding="utf-8") as file:
        for i in range(start, start + n):
            file.write(
                json.dumps(
                    {"title": f"第{i}篇", "text": f"这是第{i}篇文章的正文，写得不算短。\n第二段也有几个字。"}, ensure_ascii=False
                )
                + "\n"
            )
    return [{"reader": "files", "root": str(folder)}]


def run(sources, out, **options):
    return prepare(sources, out, TOKENIZER, progress=False, **options)


def texts(folder):
    shards = Shards(folder)
    return [TOKENIZER.decode(shards.document(i)) for i in range(shards.documents)]


def bytes_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.stem != "report"}


def small_units(monkeypatch, batch=5000, unit=20_000):
    """Batches and units of a few documents, in as many processes as asked for."""
    monkeypatch.setattr(stages, "BATCH_CHARACTERS", batch)
    monkeypatch.setattr(units, "UNIT_BYTES", unit)
    monkeypatch.setattr(preparation, "POOL_FROM", 0)


def test_every_document_lands_once_in_train_or_valid_with_its_title_first(tmp_path):
    report = run(corpus(tmp_path / "in", 500), tmp_path / "out", valid_fraction=0.1)
    train, valid = texts(tmp_path / "out/train"), texts(tmp_path / "out/valid")
    assert sorted(train + valid) == sorted(
        f"第{i}篇\n这是第{i}篇文章的正文，写得不算短。\n第二段也有几个字。" for i in range(500)
    )
    assert 20 < len(valid) < 90
    numbers = [int(re.search(r"\d+", text)[0]) for text in train]
    assert sum(b < a for a, b in pairwise(numbers)) < 15  # the order of the source, but for the few that were held back
    assert report["documents"] == {"read": 500, "kept": 500, "dropped": 0, "skipped": 0}
    assert (
        report["characters"]
        == sum(map(len, train + valid))
        == Shards(tmp_path / "out/train").characters + report["valid"]["characters"]
    )
    assert report["tokens"] == report["characters"] + 500
    assert json.loads((tmp_path / "out/report.json").read_text()) == json.loads(json.dumps(report))
    Shards(tmp_path / "out/train").verify()


def test_a_document_stays_on_its_side_when_the_corpus_grows_or_is_copied(tmp_path):
    run(corpus(tmp_path / "small", 300), tmp_path / "a", valid_fraction=0.1)
    run(corpus(tmp_path / "large", 600) + corpus(tmp_path / "copy", 300), tmp_path / "b", valid_fraction=0.1)
    small, large = set(texts(tmp_path / "a/valid")), set(texts(tmp_path / "b/valid"))
    assert small <= large
    assert not large & set(texts(tmp_path / "b/train"))


@pytest.mark.parametrize(("documents", "expected"), [(1, (1, 0)), (2, (1, 1)), (3, (2, 1))])
def test_tiny_corpora_get_one_document_for_validation(tmp_path, documents, expected):
    run(corpus(tmp_path / "in", documents), tmp_path / "out", valid_fraction=1e-9)
    assert (len(texts(tmp_path / "out/train")), len(texts(tmp_path / "out/valid"))) == expected


@pytest.mark.parametrize("start", range(6))
def test_two_documents_are_one_for_training_and_one_for_validation(tmp_path, start):
    run(corpus(tmp_path / "in", 2, start), tmp_path / "out", valid_fraction=0.9)
    assert (len(texts(tmp_path / "out/train")), len(texts(tmp_path / "out/valid"))) == (1, 1)


def test_train_gets_a_document_when_the_fraction_takes_all_in_whatever_order_they_come(tmp_path):
    sources = corpus(tmp_path / "in", 30)
    run(sources, tmp_path / "a", valid_fraction=1 - 1e-9)
    lines = (tmp_path / "in/a.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "in/a.jsonl").write_text("".join(reversed(lines)), encoding="utf-8")
    run(sources, tmp_path / "b", valid_fraction=1 - 1e-9)
    assert len(texts(tmp_path / "a/valid")) == 29
    assert texts(tmp_path / "a/train") == texts(tmp_path / "b/train") != []


def test_no_validation_is_made_when_none_is_asked_for(tmp_path):
    run(corpus(tmp_path / "in", 5), tmp_path / "out", valid_fraction=0)
    assert (len(texts(tmp_path / "out/train")), len(texts(tmp_path / "out/valid"))) == (5, 0)


def test_the_shards_do_not_depend_on_processes_or_batches(tmp_path, monkeypatch):
    sources = corpus(tmp_path / "in", 3000)
    run(sources, tmp_path / "one", valid_fraction=0.05)
    small_units(monkeypatch)
    report = run(sources, tmp_path / "two", valid_fraction=0.05, processes=2)
    assert len(list((tmp_path / "two-texts").glob("0*"))) > 5
    assert report["documents"]["kept"] == 3000
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_what_is_dropped_skipped_and_unknown_is_accounted_for(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"text": "短"}\n{bad\n{"text": "够长的一行，里面有两个𠮷𠮷字。"}\n{"text": "另有一行够长的，<b>干净</b>。"}\n',
        encoding="utf-8",
    )
    report = run([{"reader": "files", "root": str(tmp_path / "a.jsonl")}], tmp_path / "out", clean={**BASIC, "min_chars": 5})
    assert report["documents"] == {"read": 3, "kept": 2, "dropped": 1, "skipped": 1}
    assert report["dropped"] == {"shorter than 5 characters": {"count": 1, "examples": ["a.jsonl:1: 短"]}}
    assert report["skipped"] == {"bad JSON": {"count": 1, "examples": ["a.jsonl:2: {bad"]}}
    assert report["rules"] == {
        "html": {"files": {"changed": 1, "characters": len("<b></b>"), "dropped": 0}},
        "min_chars": {"files": {"changed": 0, "characters": 1, "dropped": 1}},
    }
    assert report["unknown"]["characters"] == [("𠮷", 2)]
    assert report["unknown"]["share"] == 2 / report["tokens"]
    about = Shards(tmp_path / "out/train").manifest["report"]
    assert about["skipped"] == report["skipped"]
    assert about["settings"]["sources"] == [{"reader": "files", "root": str(tmp_path / "a.jsonl")}]


def test_a_whole_folder_is_only_replaced_when_asked(tmp_path):
    sources = corpus(tmp_path / "in", 5)
    run(sources, tmp_path / "out")
    with pytest.raises(UserError, match="overwrite=true"):
        run(sources, tmp_path / "out")
    corpus(tmp_path / "in", 7)
    assert run(sources, tmp_path / "out", overwrite=True)["documents"]["kept"] == 7


class Interrupted(CodePoints):
    """Tokenizes after something else has happened."""

    def __init__(self, meanwhile):
        self.meanwhile = meanwhile

    def encode_batch(self, texts):
        self.meanwhile()
        return super().encode_batch(texts)


@pytest.mark.parametrize("same", [True, False])
def test_who_comes_second_waits_and_takes_what_the_first_made_or_refuses_it(tmp_path, capsys, same):
    sources, out, theirs = corpus(tmp_path / "in", 50), tmp_path / "out", []

    def second():
        try:
            theirs.append(run(sources, out, clean={**BASIC, "min_chars": 20 if same else 10}))
        except UserError as error:
            theirs.append(str(error))

    thread = threading.Thread(target=second)

    def meanwhile():
        if not thread.ident:
            thread.start()
            while "waiting for it" not in capsys.readouterr().err:
                time.sleep(0.01)

    report = prepare(sources, out, Interrupted(meanwhile), texts=tmp_path / "texts" if not same else None, progress=False)
    thread.join()
    if same:
        assert theirs == [json.loads(json.dumps(report))]
    else:
        assert "exists already, made with other settings" in theirs[0]
    assert not list(tmp_path.glob("*.work"))


def test_overwriting_never_touches_a_folder_that_is_not_ours(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="not made by task=prepare"):
        run(corpus(tmp_path / "in", 5), tmp_path / "home", overwrite=True)
    assert os.listdir(tmp_path / "home") == ["thesis.txt"]


def test_when_nothing_is_kept_the_reasons_are_said_and_nothing_is_written(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('["no", "object"]\n' * 5)
    with pytest.raises(UserError, match=r"nothing was kept.*not a JSON object \(5 times"):
        run([{"reader": "files", "root": str(tmp_path / "in")}], tmp_path / "out")
    assert os.listdir(tmp_path) == ["in"]


def test_a_full_disk_is_said_in_one_line_and_the_next_run_goes_on(tmp_path, monkeypatch):
    sources = corpus(tmp_path / "in", 50)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cngpt.tokens.shards.ShardWriter._flush", full)
    with pytest.raises(UserError, match="no space left"):
        run(sources, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    assert run(sources, tmp_path / "out")["documents"]["kept"] == 50
    assert sorted(os.listdir(tmp_path)) == ["in", "out", "out-texts"]


@pytest.mark.parametrize(
    ("options", "key"), [({"valid_fraction": 1.5}, "data.valid_fraction=1.5"), ({"processes": 0}, "prepare.processes=0")]
)
def test_impossible_settings_name_their_key(tmp_path, options, key):
    with pytest.raises(ConfigError, match=re.escape(key)):
        run(corpus(tmp_path / "in", 5), tmp_path / "out", **options)


ENDLESS = """
import sys
from pathlib import Path
from cngpt.corpus import prepare, stages, units
from tests.corpus.fakes import CodePoints

class Slow(CodePoints):
    def encode_batch(self, texts):
        import time
        time.sleep(0.05)
        return super().encode_batch(texts)

if __name__ == "__main__":
    stages.BATCH_CHARACTERS, units.UNIT_BYTES, prepare.POOL_FROM = 1000, 100_000, 0
    prepare.prepare([{"reader": "files", "root": sys.argv[1]}], Path(sys.argv[2]), Slow(), processes=int(sys.argv[3]), progress=False)
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_leaves_no_folder_and_no_worker_and_the_next_run_is_complete(tmp_path, processes):
    sources, out = corpus(tmp_path / "in", 20_000), tmp_path / "out"
    (tmp_path / "script.py").write_text(ENDLESS)
    here = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "in"), str(out), str(processes)]
    victim = subprocess.Popen(command, env=here, start_new_session=True)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("out.work/tokens/0*")) and time.monotonic() < deadline:
        assert victim.poll() is None
        time.sleep(0.02)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    assert not out.exists()
    while _group_is_alive(victim.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _group_is_alive(victim.pid)
    assert run(sources, out)["documents"]["kept"] == 20_000
    assert sorted(os.listdir(tmp_path)) == ["in", "out", "out-texts", "script.py"]


def _group_is_alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_inspecting_shows_the_same_documents_for_the_same_seed(tmp_path):
    sources = corpus(tmp_path / "in", 50)
    first, again = list(inspect(sources, 3, seed=1)), list(inspect(sources, 3, seed=1))
    assert first == again
    assert len({document.id for document, _, _ in first}) > 1
    for document, text, reason in first:
        assert text == f"{document.title}\n{document.text}"
        assert reason == ""
    assert all(text is None and "shorter" in reason for _, text, reason in inspect(sources, 2, {**BASIC, "min_chars": 1000}))


def test_inspecting_shows_no_document_twice_and_looks_beyond_the_beginning_of_a_large_file(tmp_path, monkeypatch):
    sources = corpus(tmp_path / "in", 4000)
    monkeypatch.setattr(streams, "LOOK_BYTES", 20_000)
    found = [document.title for document, _, _ in inspect(sources, 200)]
    assert len(set(found)) == 200
    numbers = [int(title[1:-1]) for title in found]
    assert min(numbers) < 500 and max(numbers) > 3500 and sum(n > 1000 for n in numbers) > 100


def test_the_texts_for_a_tokenizer_are_the_clean_ones(tmp_path):
    assert next(clean_texts(corpus(tmp_path / "in", 3))) == "第0篇\n这是第0篇文章的正文，写得不算短。\n第二段也有几个字。"


def test_the_texts_for_a_tokenizer_come_with_an_account_of_what_was_left_out(tmp_path, capsys):
    sources = corpus(tmp_path / "in", 3)
    (tmp_path / "in/b.jsonl").write_text('{bad\n{"text": "短"}\n', encoding="utf-8")
    assert len(list(clean_texts(sources))) == 3
    shown = capsys.readouterr().err
    assert re.search(r"documents read +4 ", shown)
    assert re.search(r"skipped: bad JSON +1 +b.jsonl:1: {bad", shown)
    assert "dropped: shorter than 20 characters" in shown
    list(clean_texts(sources, progress=False))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("look", [clean_texts, lambda sources: next(inspect(sources, 2))], ids=["clean_texts", "inspect"])
@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.pdf", "x", ConfigError, r"data\.root=.* holds nothing to read\. Looked for"),
        ("a.jsonl", "{bad\n" * 5, UserError, r"bad JSON \(5 times, as in a.jsonl:[1-5]: {bad\)"),
    ],
)
def test_a_folder_with_nothing_to_read_is_an_error_for_every_task(tmp_path, look, name, content, error, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(error, match=message):
        look([{"reader": "files", "root": str(tmp_path)}])


def test_texts_that_are_all_too_short_for_a_tokenizer_are_an_error(tmp_path):
    with pytest.raises(UserError, match=r"nothing was kept of 1 sources: shorter than 1000 characters \(3 times"):
        clean_texts(corpus(tmp_path / "in", 3), {**BASIC, "min_chars": 1000})


def test_inspecting_says_what_was_skipped_once(tmp_path, capsys):
    sources = corpus(tmp_path / "in", 3)
    with open(tmp_path / "in/a.jsonl", "a") as file:
        file.write("{bad\n")
    assert len(list(inspect(sources, 4))) == 3  # there are no more
    assert re.search(r"skipped: bad JSON +1 +a.jsonl:4", capsys.readouterr().err)


def test_a_long_run_shows_a_bar_and_every_run_a_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cngpt.progress.BAR_AFTER", -1.0)
    prepare(corpus(tmp_path / "in", 100), tmp_path / "out", TOKENIZER, progress=True)
    shown = capsys.readouterr().err
    assert "reading and cleaning" in shown and "tokenizing" in shown
    assert "tokens per character" in shown


def test_real_dirt_is_counted_and_never_stops_a_run(tmp_path, shared):
    report = run([{"reader": "files", "root": str(shared("corpora/dev/dirty"))}], tmp_path / "out")
    assert report["documents"]["kept"] == 171  # 150 markdown articles, 20 GB18030 files, a word list
    assert {reason: what["count"] for reason, what in report["skipped"].items()} == {
        "not a JSON object": 2016,  # weibo and common crawl are lists
        "missing field": 400,
        "other kind of file": 1,
    }
    assert all("\ufffd" not in text for text in texts(tmp_path / "out/train"))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(max_size=50), min_size=1, max_size=8))
def test_any_text_at_all_can_be_prepared(tmp_path_factory, contents):
    folder = tmp_path_factory.mktemp("any")
    (folder / "in").mkdir()
    (folder / "in" / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in contents))
    sources = [{"reader": "files", "root": str(folder / "in")}]
    try:
        kept = list(clean_texts(sources, {**BASIC, "min_chars": 1}, progress=False))
    except UserError:
        with pytest.raises(UserError, match="nothing was kept"):
            run(sources, folder / "out", clean={**BASIC, "min_chars": 1})
    else:
        run(sources, folder / "out", clean={**BASIC, "min_chars": 1})
        assert Shards(folder / "out/train").documents + Shards(folder / "out/valid").documents == len(kept)


def test_another_tokenizer_needs_no_second_cleaning_and_not_even_the_raw_texts(tmp_path, monkeypatch):
    sources = corpus(tmp_path / "in", 40)
    first = run(sources, tmp_path / "one", texts=tmp_path / "texts")
    monkeypatch.setattr(stages, "Cleaner", None)  # cleaning would fail
    other = CodePoints()
    other.fingerprint = "another"
    again = prepare(sources, tmp_path / "two", other, texts=tmp_path / "texts", progress=False)
    assert again["tokens"] == first["tokens"] and again["sources"] == first["sources"]
    (tmp_path / "in/b.jsonl").write_text('{"text": "后来又添了一篇，这样它们就变了。"}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="the texts have changed"):
        run(sources, tmp_path / "three", texts=tmp_path / "texts")
    for path in (tmp_path / "in").iterdir():
        path.unlink()
    (tmp_path / "in").rmdir()
    assert run(sources, tmp_path / "three", texts=tmp_path / "texts")["documents"]["kept"] == 40


def test_a_source_that_changes_while_it_is_read_is_said(tmp_path):
    sources = corpus(tmp_path / "in", 40)

    (unit,) = units.plan([open_source(sources[0])], Tally())
    documents = unit.documents(Tally())
    next(documents)
    corpus(tmp_path / "in", 41)
    with pytest.raises(UserError, match="changed while it was read"):
        list(documents)


def test_a_worker_that_outlives_its_parent_gives_no_half_folder_a_name(tmp_path, monkeypatch):
    """Its parent was killed; while the next run removes what is half made, it is done and renames its folder."""
    with suppress(InterruptedError), resumable_folder(tmp_path / "out", {}) as place:
        orphan = whole_folder(place / "read/00003")
        (orphan.__enter__() / "texts.json").write_text("{}")
        raise InterruptedError  # what is half made stays
    remove, renamed = shutil.rmtree, []

    def remove_while_it_is_renamed(path, **options):
        monkeypatch.undo()
        with suppress(FileNotFoundError):
            orphan.__exit__(None, None, None)
            renamed.append(path)
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", remove_while_it_is_renamed)
    with resumable_folder(tmp_path / "out", {}) as place:
        assert not renamed and not list(place.glob("read/*"))


def test_a_resumable_folder_that_was_half_thrown_away_is_begun_anew(tmp_path, monkeypatch):
    def killed(path, **options):
        shutil.rmtree(path / "read/00001")
        raise InterruptedError

    with monkeypatch.context() as patch, suppress(InterruptedError), resumable_folder(tmp_path / "out", {}) as place:
        (place / "read/00001").mkdir(parents=True)
        (place / "read/00002").mkdir()
        patch.setattr("cngpt.corpus.resumable.shutil", SimpleNamespace(rmtree=killed))
    assert (place / "read/00002").exists()
    with resumable_folder(tmp_path / "out", {}) as place:
        assert not list(place.glob("read/*"))


def test_what_a_process_left_that_had_all_done_is_swept_up(tmp_path):
    sources, out = corpus(tmp_path / "in", 20), tmp_path / "out"
    run(sources, out)
    left = tmp_path / "out-texts.work/read/00000"
    left.mkdir(parents=True)
    run(sources, tmp_path / "other", texts=tmp_path / "out-texts")
    assert not left.exists() and sorted(os.listdir(tmp_path)) == ["in", "other", "out", "out-texts"]


def test_a_unit_that_was_made_twice_keeps_the_first_folder_where_it_is(tmp_path, monkeypatch):
    for text in "first", "second":
        with monkeypatch.context() as patch:
            patch.setattr("os.getpid", lambda text=text: text)  # another process
            with whole_folder(tmp_path / "00003") as new:
                (new / "texts.json").write_text(text)
                opened = new / "texts.json"
    assert (tmp_path / "00003/texts.json").read_text() == "first" and not opened.exists()
    assert os.listdir(tmp_path) == ["00003"]


@pytest.mark.parametrize("key", ["out", "texts"])
def test_nobodys_folder_gives_way_to_shards_or_clean_texts(tmp_path, key):
    """Neither one that holds the raw texts, nor one with anything else, whatever is asked for."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "thesis").write_text("years of work")
    sources = corpus(docs / "corpus", 20)
    places = {"out": tmp_path / "out", "texts": tmp_path / "texts"}
    for overwrite in False, True:
        for folder in docs, docs / "corpus", docs / "corpus/..":
            with pytest.raises(ConfigError, match=rf"prepare.{key}=.* is or holds what is read"):
                run(sources, **places | {key: folder}, overwrite=overwrite)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis").write_text("years of work")
    with pytest.raises(UserError, match=r"mine (exists already|was not made by task=prepare)"):
        run(sources, **places | {key: tmp_path / "mine"})
    with pytest.raises(ConfigError, match="are the same folder"):
        run(sources, tmp_path / "out", texts=tmp_path / "out")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.jsonl", "corpus", "docs", "mine", "thesis", "thesis"]


def test_clean_texts_that_are_made_anew_replace_the_old_ones_in_one_move(tmp_path, monkeypatch):
    """Killed while the old ones are removed, none of the new ones is missing."""
    sources, texts, remove = corpus(tmp_path / "in", 20), tmp_path / "texts", shutil.rmtree
    run(sources, tmp_path / "out", texts=texts)
    corpus(tmp_path / "in", 30)

    def killed(path, **options):
        if "texts" in path.name and (path / "manifest.json").exists():
            remove(path / "00000")
            raise KeyboardInterrupt
        remove(path, **options)

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", killed)
        run(sources, tmp_path / "out", texts=texts, overwrite=True)
    assert run(sources, tmp_path / "other", texts=texts)["documents"]["kept"] == 30


def test_a_rule_of_ones_own_that_changed_is_noticed(tmp_path):
    rule = tmp_path / "mine.py"
    rule.write_text("def less(text):\n    return text.replace('正文', '')\n")
    sources, clean = corpus(tmp_path / "in", 20), {**BASIC, "own": [f"{rule}:less"]}
    run(sources, tmp_path / "a", clean=clean, texts=tmp_path / "texts")
    rule.write_text("def less(text):\n    return text.replace('文章', '')\n")
    with pytest.raises(ConfigError, match="texts that were cleaned otherwise"):
        run(sources, tmp_path / "b", clean=clean, texts=tmp_path / "texts")
