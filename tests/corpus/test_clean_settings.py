"""The group `clean`: from what a user typed to the rules that run, also in other processes."""

import pickle
import re
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cngpt.cli.compose import register_resolvers
from cngpt.corpus.clean import BASIC, Cleaner, Drop, build, fingerprint, name_of
from cngpt.corpus.clean.build import ALWAYS, RULES
from cngpt.corpus.document import Document
from cngpt.errors import ConfigError

CONF = Path(__file__).parents[2] / "conf"
PRESETS = sorted(p.stem for p in (CONF / "clean").glob("*.yaml"))


def settings_of(*overrides: str) -> dict:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose("config", [*overrides, "data.root=texts"]).clean, resolve=True)


def names(settings) -> list[str]:
    return [name_of(rule) for rule in build(settings)]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_names_every_rule_and_builds(preset):
    settings = settings_of(f"clean={preset}")
    assert set(settings) == set(RULES) - set(ALWAYS)
    assert build(settings)


@pytest.mark.parametrize("data", sorted(p.stem for p in (CONF / "data").glob("*.yaml")))
def test_each_corpus_brings_its_rules_unless_others_are_chosen(data):
    own = data if data in PRESETS else "basic"
    assert settings_of(f"data={data}") == settings_of(f"clean={own}")
    assert settings_of(f"data={data}", "clean=web") == settings_of("clean=web") != settings_of(f"data={data}")


def test_the_basic_rules_are_those_of_the_file():
    assert fingerprint(settings_of("clean=basic")) == fingerprint(BASIC)
    assert names(BASIC) == names(settings_of("clean=basic"))


def test_rules_work_in_their_own_order_whatever_the_order_of_the_settings():
    settings = settings_of("clean=web")
    assert names(dict(reversed(settings.items()))) == names(settings)


def test_a_rule_is_switched_and_set_in_three_ways():
    assert "chinese" not in names({"chinese": False}) and "chinese" not in names({"chinese": None}) and "chinese" not in names({})
    assert [build({"chinese": value})[-1].min for value in (True, {"min": 0.2}, 0.2, 0)] == [0.5, 0.2, 0.2, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"repetion": True}, r"clean\.repetion: no such key; clean takes html, .* Did you mean repetition\?"),
        ({"repetition": {"max": 2}}, r"clean\.repetition\.max=2: must be from 0 to 1"),
        (
            {"repetition": {"mx": 0.2}},
            r"clean\.repetition\.mx: no such key; clean\.repetition takes max, lines, min_chars\. Did you mean max\?",
        ),
        ({"repetition": "yes"}, r"clean\.repetition=yes: a number from 0 to 1 is needed"),
        ({"min_chars": -1}, r"clean\.min_chars=-1: must be 0 or more"),
        ({"min_chars": 2.5}, r"clean\.min_chars=2\.5: a whole number 0 or more is needed"),
        ({"html": 3}, r"clean\.html=3: true or false; it has no thresholds"),
        ({"html": {"max": 3}}, r"clean\.html={max: 3}: true or false; it has no thresholds"),
        ({"markdown": {"code": "kep"}}, r"clean\.markdown\.code=kep: one of keep, drop\. Did you mean keep\?"),
        ({"lines": {"copies": 1}}, r"clean\.lines\.copies=1: true or false"),
        ({"flagged_words": True}, r"clean\.flagged_words\.file=\.\.\. is needed: a file with one word a line"),
        ({"flagged_words": "none.txt"}, r"clean\.flagged_words=none\.txt: cannot be read: No such file"),
        ({"own": 3}, r"clean\.own=3: a list \[path/to/file\.py:function, \.\.\.\]"),
        ({"own": ["rules.py"]}, r"clean\.own=rules\.py: path/to/file\.py:function is needed"),
        ({"own": ["none.py:f"]}, r"clean\.own=none\.py:f: there is no file none\.py"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_the_key(settings, message):
    with pytest.raises(ConfigError) as error:
        build(settings)
    assert re.match(message, str(error.value)) and "\n" not in str(error.value)


OWN = """
from cngpt.corpus.clean import Drop
LIMIT = 3
def no_adverts(text):
    return Drop("advert") if "加微信" in text else text.replace("甲", "乙")
def nothing(text): pass
def fails(text): return text[10**9]
def number(text): return 7
"""


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN, encoding="utf-8")
    return file


def test_a_rule_of_ones_own_runs_before_length_is_judged(own):
    settings = {"own": [f"{own}:no_adverts"], "min_chars": 2, "chinese": True}
    assert names(settings) == [*ALWAYS, "chinese", "no_adverts", "min_chars"]
    cleaner = Cleaner(build(settings))
    assert cleaner(Document("甲方好")) == "乙方好" and cleaner(Document("请加微信")) is None
    assert cleaner.done["no_adverts", "", "changed"] == 1 and cleaner.dropped.counts == {"advert": 1}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("no_advert", r"clean\.own=.*mine\.py:no_advert: .*mine\.py has no no_advert\. Did you mean no_adverts\?"),
        ("LIMIT", r"clean\.own=.*mine\.py:LIMIT: LIMIT is no function but int"),
    ],
)
def test_a_missing_function_of_ones_own_is_one_line(own, function, message):
    with pytest.raises(ConfigError, match=message):
        build({"own": [f"{own}:{function}"]})


def test_a_broken_file_of_ones_own_is_one_line(tmp_path):
    (tmp_path / "broken.py").write_text("def f(:\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken\.py cannot be run: SyntaxError"):
        build({"own": [f"{tmp_path / 'broken.py'}:f"]})


def test_an_exception_in_a_rule_of_ones_own_drops_the_document_and_is_counted(own):
    for function, reason in (
        ("fails", "fails raised IndexError: string index out of range"),
        ("number", "number returned int, not text"),
        ("nothing", "nothing"),
    ):
        cleaner = Cleaner(build({"own": f"{own}:{function}"}))
        assert cleaner(Document("正文")) is None
        assert cleaner.dropped.counts == {reason: 1}


HARD = """
from __future__ import annotations
import sys
from dataclasses import dataclass
from beside import word
from cngpt.corpus.clean import Drop
@dataclass
class Rest:
    text: str
def blanks(text): return Rest(text.replace(word, "\\r\\n\\r\\n")).text
def ends(text): sys.exit("bye")
def scores(text): return Drop(f"score {len(text) / 7}")
"""


def test_rules_of_ones_own_import_what_lies_beside_end_nothing_and_leave_paragraphs(tmp_path):
    (tmp_path / "hard.py").write_text(HARD, encoding="utf-8")
    (tmp_path / "beside.py").write_text("word = '广告'\n", encoding="utf-8")

    def cleaner(function):
        return Cleaner(build({"own": f"{tmp_path / 'hard.py'}:{function}"}))

    assert cleaner("blanks")(Document("一段广告二段")) == "一段\n二段"
    for function, reason in ("ends", "ends raised SystemExit: bye"), ("scores", "score #"):
        made = cleaner(function)
        assert made(Document("一段")) is made(Document("一二三段")) is None
        assert made.dropped.counts == {reason: 2}


def test_a_rule_of_ones_own_works_in_a_process_that_was_spawned(own):
    rules = build({"own": [f"{own}:no_adverts"]})
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        assert pool.submit(rules[-1], "甲方").result() == "乙方"


def test_every_rule_travels_to_other_processes(tmp_path):
    (tmp_path / "words.txt").write_text("坏词\n", encoding="utf-8")
    rules = build(settings_of("clean=web") | {"flagged_words": str(tmp_path / "words.txt"), "max_chars": 99, "markdown": True})
    text = "**重**<b>粗</b>好的，我们说一句坏词。"
    for rule, copy in zip(rules, pickle.loads(pickle.dumps(rules)), strict=True):
        assert rule(text) == copy(text)


def test_the_fingerprint_follows_what_decides_the_text_and_nothing_else(own, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("坏词\n", encoding="utf-8")
    base = {"html": True, "chinese": True, "own": [f"{own}:no_adverts"], "flagged_words": str(words)}
    print_of_base = fingerprint(base)
    assert fingerprint(dict(reversed(base.items()))) == print_of_base
    assert fingerprint(base | {"chinese": {"min": 0.5}, "urls": False}) == print_of_base
    assert fingerprint(base | {"chinese": 0.4}) != print_of_base != fingerprint(base | {"html": False})
    words.write_text("坏词\n另一个\n", encoding="utf-8")
    with_words = fingerprint(base)
    own.write_text(OWN + "\n# changed\n", encoding="utf-8")
    assert len({print_of_base, with_words, fingerprint(base)}) == 3


# what was made with these settings before is found by the fingerprint, which therefore must stay as it was recorded
RECORDED = [
    ({}, "1553ee9689dd"),
    ({"html": {}}, "958b1d0f1357"),
    ({"chinese": True}, "16abf5193661"),
    ({"chinese": 0.3}, "444bbe05fd5a"),
    ({"chinese": 0}, "acb732e117fc"),
    ({"chinese": 1}, "35cea2bc8d0c"),
    ({"repetition": {"max": 1, "min_chars": 0}}, "adf7595cff3a"),
    ({"mojibake": {"max": 0, "repair": False}}, "b040a5f9ab70"),
    ({"markdown": {"code": "drop"}}, "2a720681796f"),
    ({"markdown": "drop"}, "2a720681796f"),
    ({"lines": {"sentences": False}}, "4e098f54fa3f"),
    ({"lines": 7}, "665320dc26f8"),
    ({"min_chars": 0}, "1c47f25f0d39"),
    ({"max_chars": 100}, "d34e77ec0813"),
    ({"max_chars": True}, "0fd5f1d442e8"),
    ({"flagged_words": "words.txt"}, "db6ed015c142"),
    ({"flagged_words": {"file": "words.txt", "max": 1, "share": 1}}, "7eeffbe2a047"),
    ({"traditional": 3}, "62caaa0a9a93"),
    ({"urls": {"max": 0.25}}, "665f58596ab7"),
    ({"advertisements": 1}, "3be9aa10d809"),
    ({"private_use": 0.5}, "85b392df85c4"),
    ("basic", "d831a4116d15"),
    ("nlp_chinese_corpus", "bbd08e7c78c8"),
    ("thucnews", "f21191c02561"),
    ("web", "2d6abe5a0f3f"),
]


@pytest.mark.parametrize(("settings", "recorded"), RECORDED, ids=str)
def test_the_fingerprint_is_the_one_that_was_recorded(settings, recorded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.txt").write_text("坏词\n另一个\n", encoding="utf-8")
    monkeypatch.setattr(sys.modules["cngpt.corpus.clean.build"], "version", lambda library: "1.4.2")  # of OpenCC
    assert fingerprint(settings_of(f"clean={settings}") if isinstance(settings, str) else settings)[:12] == recorded


def test_flagged_words_drop_a_text_that_is_full_of_them(tmp_path):
    (tmp_path / "words.txt").write_text("\ufeff坏词\n坏词语\na+b\n", encoding="utf-8")
    (rule,) = (r for r in build({"flagged_words": str(tmp_path / "words.txt")}) if name_of(r) == "flagged_words")
    assert rule("坏词，" * 3 + "好。") == "坏词，" * 3 + "好。"
    assert rule("坏词，坏词语，a+b，坏词。") == Drop("flagged words")
    assert isinstance(rule("坏词。" * 4 + "好" * 9999), str)
