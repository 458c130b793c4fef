"""How often a source is read in one pass over the shards."""

import json
from collections import Counter
from itertools import pairwise

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cngpt.cli.compose import register_resolvers
from cngpt.corpus.mixture import copies
from cngpt.corpus.settings import Data
from cngpt.errors import ConfigError, UserError
from tests.conftest import ROOT
from tests.corpus.test_prepare import bytes_of, corpus, run, small_units, texts


def mixed(tmp_path, weight, out, **options):
    """400 documents of weight 1 and 400 others of `weight`."""
    news, wiki = corpus(tmp_path / "news", 400)[0], corpus(tmp_path / "wiki", 400, start=1000)[0]
    return run([news, {**wiki, "weight": weight}], tmp_path / out, valid_fraction=0.1, **options)


def of_wiki(folder):
    return Counter(text for text in texts(folder) if int(text[1 : text.index("篇")]) >= 1000)


def test_a_source_comes_as_often_as_it_weighs_in_train_and_once_in_valid(tmp_path):
    reports = {weight: mixed(tmp_path, weight, f"out{weight}") for weight in (0.5, 1, 2, 2.5)}
    train = {weight: of_wiki(tmp_path / f"out{weight}/train") for weight in reports}
    assert set(train[1].values()) == {1} and set(train[2].values()) == {2} and set(train[2.5].values()) == {2, 3}
    assert set(train[0.5].values()) == {1} and set(train[0.5]) < set(train[1]) == set(train[2]) == set(train[2.5])
    assert {text for text, n in train[2.5].items() if n == 3} == set(train[0.5])
    assert 0.4 < len(train[0.5]) / len(train[1]) < 0.6
    for weight in reports:
        assert (tmp_path / f"out{weight}/valid/00000.bin").read_bytes() == (tmp_path / "out1/valid/00000.bin").read_bytes()
        assert len(texts(tmp_path / f"out{weight}/train")) - train[weight].total() == len(texts(tmp_path / "out1/train")) - len(
            train[1]
        )


def test_the_copies_of_a_document_lie_a_pass_apart(tmp_path):
    mixed(tmp_path, 3, "out")
    found = texts(tmp_path / "out/train")
    positions = {text: [i for i, other in enumerate(found) if other == text] for text in of_wiki(tmp_path / "out/train")}
    assert all(len(at) == 3 for at in positions.values())
    assert min(b - a for at in positions.values() for a, b in pairwise(at)) >= len(positions) - 2  # but for the two held back


def test_of_one_document_alone_every_copy_is_for_training(tmp_path):
    run([{**corpus(tmp_path / "in", 1)[0], "weight": 3}], tmp_path / "out", valid_fraction=0.5)
    assert len(texts(tmp_path / "out/train")) == 3 and not texts(tmp_path / "out/valid")


def test_the_report_says_what_one_pass_reads_of_each_source(tmp_path):
    report = mixed(tmp_path, 2, "out")
    news, wiki = report["mixture"]
    assert (news["weight"], wiki["weight"], news["documents"], wiki["documents"]) == (1, 2, 400, 400)
    assert news["source"] == f"files: {tmp_path / 'news'}"
    assert (news["times"], wiki["times"]) == (1.0, 2.0)
    assert wiki["train"]["documents"] == 2 * (400 - wiki["valid"]["documents"])
    for part in "train", "valid":
        for what in "documents", "tokens":
            assert news[part][what] + wiki[part][what] == report[part][what]
    assert json.loads((tmp_path / "out/report.json").read_text())["mixture"] == report["mixture"]
    page = (tmp_path / "out/report.html").read_text()
    assert "One pass over the shards" in page and f"{wiki['train']['tokens']:,}" in page


def test_a_mixture_does_not_depend_on_processes_or_batches(tmp_path, monkeypatch):
    mixed(tmp_path, 1.5, "one")
    small_units(monkeypatch)
    mixed(tmp_path, 1.5, "two", processes=2)
    assert bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")


def test_another_mixture_of_the_same_texts_needs_no_second_cleaning(tmp_path):
    mixed(tmp_path, 1, "one", texts=tmp_path / "texts")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "texts").rglob("*")}
    mixed(tmp_path, 2, "two", texts=tmp_path / "texts")
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "texts").rglob("*")}


def test_documents_of_a_lower_weight_are_among_those_of_a_higher_one():
    hashes = range(0, 2**64, 2**64 // 997)
    for low, high in (0.1, 0.5), (0.5, 0.9), (0.9, 1), (1, 1.2), (1.2, 1.9):
        assert all(copies(h, low) <= copies(h, high) for h in hashes)
    assert abs(sum(copies(h, 0.3) for h in hashes) / 997 - 0.3) < 0.03


@pytest.mark.parametrize("weight", [0, -1, 101, "two", True, float("nan")])
def test_an_impossible_weight_is_said_before_anything_is_read(tmp_path, weight):
    with pytest.raises(ConfigError, match="weight="):
        mixed(tmp_path, weight, "out")
    assert not (tmp_path / "out-texts").exists()


def test_weights_that_leave_nothing_to_train_on_are_an_error(tmp_path):
    source = {**corpus(tmp_path / "in", 3)[0], "weight": 1e-9}
    with pytest.raises(UserError, match="leave no document to train on"):
        run([source], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_are_set_by_name_on_the_command_line():
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        texts, none = (compose("config", ["data=gpt2ml", f"data.weights.thucnews={weight}"]).data for weight in (2, 0))
    assert [source["weight"] for source in Data(**OmegaConf.to_container(texts, resolve=True)).sources] == [2, 1.0]
    with pytest.raises(ConfigError, match=r"data\.weights\.thucnews=0: "):
        Data(**OmegaConf.to_container(none, resolve=True))
