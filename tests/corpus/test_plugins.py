"""Readers and cleaning rules in a user's own file, which registers them; also in other processes."""

import sys

import pytest

from cngpt import plugins
from cngpt.corpus.clean import Cleaner, build, fingerprint, name_of, register_rule
from cngpt.corpus.clean.build import ALWAYS, RULES, settings_class
from cngpt.corpus.document import Document
from cngpt.corpus.readers import READERS
from cngpt.errors import ConfigError
from tests.corpus.test_prepare import run, small_units, texts

TOY = """
from cngpt.corpus.clean import RuleWithThresholds, register_rule
from cngpt.corpus.document import Document
from cngpt.corpus.readers import READERS
from cngpt.corpus.readers.corpora import Reader
from cngpt.corpus.readers.raw import files_below, lines
from cngpt.settings import Field

class Shout(RuleWithThresholds, name="shout"):
    '''Marks follow every text.'''
    marks: int = Field(1, ge=1)
    def __call__(self, text):
        return text + "！" * self.marks

def swap(text):
    return text.replace("甲", "乙")

class ToyReader(Reader):
    name = "toy"
    def raws(self, tally):
        return files_below(self.root, tally)
    def read(self, raw, tally, progress):
        for number, line in lines(raw, tally, progress):
            yield Document(line, "", self.name, f"{raw.id}:{number}")

register_rule("shout", Shout)
register_rule("swap", swap, before="chinese")
READERS["toy"] = ToyReader
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A plugin is loaded: a reader and two rules in a file of the user's own."""
    file = tmp_path / "toy.py"
    file.write_text(TOY, encoding="utf-8")
    monkeypatch.setenv(plugins.VARIABLE, "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = dict(RULES), dict(READERS)
    plugins.load([str(file)])
    yield file
    for registry, entries in zip((RULES, READERS), before, strict=True):
        registry.clear()
        registry.update(entries)


def test_a_plugin_adds_rules_to_the_group_clean(toy):
    settings = {"shout": {"marks": 2}, "swap": True, "min_chars": 5, "chinese": True}
    assert [name_of(rule) for rule in build(settings)] == [*ALWAYS, "swap", "chinese", "shout", "min_chars"]
    assert Cleaner(build(settings))(Document("甲方好")) == "乙方好！！"
    with pytest.raises(ConfigError, match=r"clean\.shout=0: must be 1 or more"):
        build({"shout": 0})
    with pytest.raises(ConfigError, match=r"clean\.shuot: no such key; .*Did you mean shout\?"):
        build({"shuot": 0})
    with pytest.raises(ValueError, match=r"clean\.html exists already"):
        register_rule("html", len)
    assert settings_class().field("shout").description == "Marks follow every text."


def test_another_plugin_has_another_fingerprint(toy):
    before = fingerprint({"swap": True}), fingerprint({"shout": True}), fingerprint({"html": True})
    toy.write_text(TOY.replace("乙", "丙"), encoding="utf-8")
    after = fingerprint({"swap": True}), fingerprint({"shout": True}), fingerprint({"html": True})
    assert before[0] != after[0] and before[1] != after[1] and before[2] == after[2]


@pytest.mark.parametrize("engine", ["local", "datatrove"])
def test_a_plugin_works_in_processes_that_were_spawned(toy, tmp_path, monkeypatch, engine):
    if engine == "datatrove":
        pytest.importorskip("datatrove")
    small_units(monkeypatch)
    (tmp_path / "in").mkdir()
    for n in range(4):
        lines = "".join(f"甲方的第{i}个正文，写得不算短，里面有很多字。\n" for i in range(n * 300, n * 300 + 300))
        (tmp_path / f"in/{n}.toy").write_text(lines, encoding="utf-8")
    sources = [{"reader": "toy", "root": str(tmp_path / "in")}]
    report = run(sources, tmp_path / "out", clean={"swap": True, "shout": 3}, processes=2, engine=engine)
    assert report["documents"]["kept"] == 1200 and report["settings"]["rules"][-2:] == ["swap", "shout"]
    assert all(text.startswith("乙方") and text.endswith("！！！") for text in texts(tmp_path / "out/train"))
