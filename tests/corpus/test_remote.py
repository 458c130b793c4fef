"""Texts that are read from, and shards that are sent to and fetched from, other file systems: fsspec's memory:// and file://."""

import json
import zipfile
from pathlib import Path

import fsspec
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cngpt import files
from cngpt.cli.compose import register_resolvers
from cngpt.corpus.settings import Prepare
from cngpt.errors import ConfigError, UserError
from cngpt.files.remote import RemoteFile, remote_errors
from cngpt.tokens import load_tokenizer
from cngpt.tokens.shards import Shards
from tests.conftest import ROOT
from tests.corpus.fakes import CodePoints, Preparation
from tests.corpus.test_prepare import bytes_of, corpus, run, small_units

SAMPLE = ROOT / "cngpt/corpus/sample"


@pytest.fixture(params=["memory", "file"])
def remote(request, tmp_path):
    """The address of an empty folder elsewhere."""
    if request.param == "file":
        return f"file://{tmp_path}/bucket"
    fsspec.filesystem("memory").store.clear()
    return "memory://bucket"


def put(folder, url):
    """Any local folder or file, as it is, below `url`."""
    for path, _ in files.listing(folder):
        with files.atomic_write(files.join(url, path[len(str(folder)) :].lstrip("/"))) as file:
            file.write(Path(path).read_bytes())


def options(tmp_path, *overrides) -> Preparation:
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("config", [f"paths.data={tmp_path / 'data'}", "prepare.processes=1", *overrides])
    return Preparation(OmegaConf.to_container(cfg, resolve=True))


def test_texts_elsewhere_give_the_shards_of_texts_here(tmp_path, remote):
    with zipfile.ZipFile(tmp_path / "wiki_zh.zip", "w") as archive:
        for path in sorted((SAMPLE / "nlp_chinese_corpus/wiki_zh").rglob("wiki_*")):
            archive.write(path, path.relative_to(SAMPLE / "nlp_chinese_corpus"))
    (tmp_path / "nlp").mkdir()
    (tmp_path / "wiki_zh.zip").rename(tmp_path / "nlp/wiki_zh.zip")
    put(SAMPLE / "THUCNews", f"{remote}/THUCNews")
    put(tmp_path / "nlp", f"{remote}/nlp")
    for out, root, second in ("here", SAMPLE, tmp_path / "nlp"), ("there", remote, f"{remote}/nlp"):
        sources = [{"reader": "thucnews", "root": f"{root}/THUCNews"}, {"reader": "nlp_chinese_corpus", "root": str(second)}]
        assert run(sources, tmp_path / out)["documents"]["kept"] > 250
    for part in "train", "valid":
        assert bytes_of(tmp_path / "here" / part)["00000.bin"] == bytes_of(tmp_path / "there" / part)["00000.bin"]


def test_a_large_file_elsewhere_is_cut_at_line_ends(tmp_path, remote, monkeypatch):
    small_units(monkeypatch)
    here = corpus(tmp_path / "in", 1000)[0]
    put(tmp_path / "in", f"{remote}/in")
    run([here], tmp_path / "here")
    run([{**here, "root": f"{remote}/in"}], tmp_path / "there")
    assert len(list((tmp_path / "there-texts").glob("0*"))) > 3
    assert bytes_of(tmp_path / "here/train")["00000.bin"] == bytes_of(tmp_path / "there/train")["00000.bin"]


def test_shards_are_sent_fetched_and_the_same(tmp_path, remote, capsys):
    mine = options(tmp_path, f"prepare.out={remote}/shards")
    tokenizer = load_tokenizer("hanzi")
    here = mine.prepared(tokenizer)
    assert here.is_relative_to(tmp_path / "data")
    assert f"sent to {remote}/shards; data=shards data.root={remote}/shards" in capsys.readouterr().err
    sent = {p[len(f"{remote}/shards/") :]: files.open_read(p).read() for p, _ in files.listing(f"{remote}/shards")}
    assert sent == {str(p.relative_to(here)): p.read_bytes() for p in here.rglob("*") if p.is_file()}
    mine.prepared(tokenizer)
    assert "sent to" not in capsys.readouterr().err  # it is there

    shards = options(tmp_path / "elsewhere", "data=shards", f"data.root={remote}/shards")
    copy = shards.prepared(tokenizer)
    assert load_tokenizer(copy / "tokenizer.json").fingerprint == tokenizer.fingerprint
    assert copy.is_relative_to(tmp_path / "elsewhere")
    assert bytes_of(copy) == bytes_of(here)
    before = (copy / "train/00000.bin").stat().st_ino
    assert shards.fetched() == copy and (copy / "train/00000.bin").stat().st_ino == before


def test_what_was_sent_half_is_never_taken_for_whole(tmp_path, remote, monkeypatch):
    here = run_into(tmp_path / "a", corpus(tmp_path / "in", 50))
    filesystem, _ = files.filesystem(f"{remote}/shards")
    put_file, sent = type(filesystem).put_file, []

    def breaks(self, local, target, **more):
        if len(sent) == 4:
            raise ConnectionError("the line is cut")
        sent.append(target)
        return put_file(self, local, target, **more)

    monkeypatch.setattr(type(filesystem), "put_file", breaks)
    with pytest.raises(UserError, match=r"/shards cannot be reached: the line is cut; the same command tries again"):
        files.send_folder(here, f"{remote}/shards", "manifest.json")
    monkeypatch.undo()
    assert sent and not any(target.endswith("manifest.json") for target in sent)
    shards = options(tmp_path, "data=shards", f"data.root={remote}/shards")
    with pytest.raises(ConfigError, match=r"holds no train/manifest\.json; it is no folder of shards, or was sent half"):
        shards.fetched()
    reported = []
    files.send_folder(here, f"{remote}/shards", "manifest.json", reported.append)
    assert sum(reported) == files.size_of(here) == files.size_of(f"{remote}/shards")
    assert bytes_of(shards.fetched()) == bytes_of(here)
    # another corpus in the same place: nothing of the old one stays, and the copy here gives way
    other = run_into(tmp_path / "b", corpus(tmp_path / "in2", 80))
    (tmp_path / "more").mkdir()
    (tmp_path / "more/00077.bin").write_bytes(b"of a larger corpus")
    put(tmp_path / "more", f"{remote}/shards/train")
    files.send_folder(other, f"{remote}/shards", "manifest.json")
    assert bytes_of(shards.fetched()) == bytes_of(other)
    assert not files.exists(f"{remote}/shards/train/00077.bin")


@pytest.mark.parametrize("folder", ["raw", "train"])
def test_other_peoples_files_in_the_folder_stay(tmp_path, remote, folder):
    here = run_into(tmp_path / "a", corpus(tmp_path / "in", 50))
    put(tmp_path / "in", f"{remote}/shards/{folder}")
    with pytest.raises(UserError, match=rf"/shards holds other files, {folder}/a.jsonl for one, and is not replaced"):
        files.send_folder(here, f"{remote}/shards", "manifest.json")
    line = rf"prepare\.out=.*/shards: holds other files, {folder}/a.jsonl for one"
    with pytest.raises(ConfigError, match=line):  # before anything is prepared
        options(tmp_path, f"prepare.out={remote}/shards").prepared(load_tokenizer("hanzi"))
    assert files.below(f"{remote}/shards") == [f"{folder}/a.jsonl"]


def run_into(folder, sources):
    run(sources, folder)
    return folder


def test_damage_on_the_way_is_found_and_leaves_no_copy(tmp_path, remote):
    here = run_into(tmp_path / "a", corpus(tmp_path / "in", 50))
    files.send_folder(here, f"{remote}/shards", "manifest.json")
    data = bytearray((here / "train/00000.bin").read_bytes())
    data[100] ^= 1
    with files.atomic_write(f"{remote}/shards/train/00000.bin") as file:
        file.write(data)
    shards = options(tmp_path, "data=shards", f"data.root={remote}/shards")
    with pytest.raises(UserError, match=r"00000\.bin does not have the checksum"):
        shards.fetched()
    assert not list((tmp_path / "data/fetched").iterdir())


def test_others_shards_in_the_folder_are_not_replaced_unasked(tmp_path, remote):
    here = run_into(tmp_path / "a", corpus(tmp_path / "in", 50))
    files.send_folder(here, f"{remote}/shards", "manifest.json")
    tokenizer = load_tokenizer("hanzi")
    with pytest.raises(ConfigError, match=r"prepare\.out=.*other shards are there.*overwrite=true"):
        options(tmp_path, f"prepare.out={remote}/shards").prepared(tokenizer)
    assert not (tmp_path / "data").exists()  # said before anything was done
    out = options(tmp_path, f"prepare.out={remote}/shards").prepared(tokenizer, overwrite=True)
    sent = json.loads(files.open_read(f"{remote}/shards/train/manifest.json").read())
    assert sent == json.loads((out / "train/manifest.json").read_text())


def test_what_must_be_local_says_so(tmp_path):
    with pytest.raises(UserError, match="read from a local disk; data=shards"):
        Shards("memory://bucket/train")
    with pytest.raises(ConfigError, match="the clean texts stay there"):
        run(corpus(tmp_path / "in", 5), "memory://bucket/out")
    with pytest.raises(ConfigError, match=r"prepare\.texts=gs://b/t: the clean texts stay on a local disk"):
        Prepare(texts="gs://b/t")


def test_an_address_of_no_known_kind_is_one_line():
    with pytest.raises(UserError, match=r"nosuch://x/y: Protocol not known: nosuch"):
        files.exists("nosuch://x/y")


def test_a_line_that_breaks_stops_the_run_and_loses_no_document(tmp_path, remote, monkeypatch):
    small_units(monkeypatch)
    here = corpus(tmp_path / "in", 600)[0]
    put(tmp_path / "in", f"{remote}/in")
    source, reads = {**here, "root": f"{remote}/in"}, []

    def breaks(self, buffer):
        reads.append(1)
        if len(reads) > 4:
            with remote_errors(self._path):
                raise ConnectionError("reset by peer")
        return whole(self, buffer)

    whole = RemoteFile.readinto
    monkeypatch.setattr(RemoteFile, "readinto", breaks)
    with pytest.raises(UserError, match=r"a\.jsonl cannot be reached: reset by peer; the same command tries again"):
        run([source], tmp_path / "there")
    monkeypatch.setattr(RemoteFile, "readinto", whole)
    assert run([source], tmp_path / "there")["documents"] == {"read": 600, "kept": 600, "dropped": 0, "skipped": 0}


def test_a_remote_file_is_read_like_a_local_one(tmp_path, remote):
    data = bytes(range(256)) * 1000
    (tmp_path / "x").write_bytes(data)
    with files.atomic_write(f"{remote}/x") as file:
        file.write(data)
    with files.open_read(f"{remote}/x") as a, files.open_read(f"{remote}/x") as b, open(tmp_path / "x", "rb") as local:
        assert b.read(10) == data[:10]
        for step in (
            ("read", 70_000),
            ("seek", 5),
            ("read", 3),
            ("seek", -100, 2),
            ("tell",),
            ("read",),
            ("seek", -50, 1),
            ("read", 9),
        ):
            assert getattr(a, step[0])(*step[1:]) == getattr(local, step[0])(*step[1:]), step
        assert b.read(10) == data[10:20]


@pytest.mark.parametrize("other, key", [
    (["clean=web"], "clean"), (["dedup=off"], "dedup"), (["data.valid_fraction=0.3"], "data.valid_fraction"), (["data.root={other}"], "data.root"),
])  # fmt: skip
def test_shards_of_a_named_folder_that_were_made_otherwise_are_not_taken(tmp_path, other, key):
    corpus(tmp_path / "in", 50)
    (tmp_path / "elsewhere").mkdir()
    corpus(tmp_path / "elsewhere/in", 50)
    mine = ["data=files", f"data.root={tmp_path / 'in'}", f"prepare.out={tmp_path / 'shards'}"]
    tokenizer = load_tokenizer("hanzi")
    assert options(tmp_path, *mine).prepared(tokenizer) == options(tmp_path, *mine).prepared(tokenizer)
    changed = options(tmp_path, *mine, *[o.format(other=tmp_path / "elsewhere/in") for o in other])
    with pytest.raises(ConfigError, match=rf"prepare.out=.*shards: was made with another {key};.*overwrite=true"):
        changed.prepared(tokenizer)
    with pytest.raises(ConfigError, match=r"prepare.out=.*shards: was made with another tokenizer;.*overwrite=true"):
        options(tmp_path, *mine).prepared(CodePoints())
