"""report.html: a page that stands alone, and says all that report.json knows."""

import json
import os
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cngpt.corpus.clean import BASIC
from cngpt.corpus.dedup.settings import Dedup
from cngpt.corpus.report import LEAD, first_difference
from cngpt.corpus.report_page import side_by_side
from tests.conftest import ROOT
from tests.corpus.test_prepare import run

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags and the text between them; fails where they do not balance."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def is_alone(page):
    """No script, nothing fetched, no link to elsewhere; addresses in texts are texts."""
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "img", "a", "object", "base"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), name
            assert name.startswith("xmlns") or not re.match(r"(https?:)?//|javascript:", value or ""), (tag, name, value)
    style = re.sub(r"/\*.*?\*/", "", " ".join(value or "" for _, a in page.tags for value in a.values()))
    assert "url(http" not in style


@pytest.fixture
def made(tmp_path):
    """(report, page) of a corpus with a little of everything."""
    bad = "<script>alert(1)</script>坏的\ud800字符，"
    rows = [
        {"title": f"<b>第{i}篇</b>", "text": f"{bad}正文{i}\n{'一二三四五六七八九十' * (i + 2)}\n另一段&amp;的话{i}"}
        for i in range(9)
    ]
    rows += [
        rows[0],
        {**rows[1], "text": rows[1]["text"] + "。"},
        {"text": "短\ud800"},
        {"text": "𠮷𠮷𠮷" + "够长的一行文字" * 5},
    ]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{bad <script>\n")
    (tmp_path / "b.txt").write_text("另一个来源的一个文件，也有二十多个字，总之够长了，是吧。" * 3, encoding="utf-8")
    sources = [
        {"reader": "files", "root": str(tmp_path / "in"), "weight": 2},
        {"reader": "files", "root": str(tmp_path / "b.txt")},
    ]
    report = run(sources, tmp_path / "out", clean={**BASIC, "chinese": 0.3}, dedup=Dedup())
    return report, Page((tmp_path / "out/report.html").read_text(encoding="utf-8"))


def test_the_page_stands_alone_and_shows_markup_as_text(made):
    _, page = made
    is_alone(page)
    assert any("<script>" in text for text in page.text)


def test_every_rule_source_reason_and_number_is_on_the_page(made):
    report, page = made
    text = "\n".join(page.text)
    for name in [*report["settings"]["rules"], *report["sources"], *report["dropped"], *report["skipped"], *report["stages"]]:
        assert name in text, name
    for row in report["mixture"]:
        assert row["source"] in text and f"{row['train']['tokens']:,}" in text
    assert "2.00 times" in text and "𠮷" in text and "U+20BB7" in text
    assert report["duplicates"]["exact"] >= 1 and "copies, to the letter" in text
    for number in (report["tokens"], report["characters"], report["documents"]["read"]):
        assert f"{number:,}" in text


def test_the_rules_say_what_they_changed_took_away_and_dropped(made):
    report, page = made
    mine = report["mixture"][0]["source"]  # several sources of one reader are told apart by their roots
    assert mine.startswith("files: ") and mine.endswith("/in") and mine in report["sources"]
    html = report["rules"]["html"][mine]
    assert html["changed"] >= 9 and html["characters"] >= 9 * len("<b></b>") and html["dropped"] == 0
    assert report["rules"]["min_chars"][mine] == {"changed": 0, "characters": 2, "dropped": 1}
    assert report["rules"]["copies"][mine]["dropped"] == report["duplicates"]["exact"]
    cells = "|".join(page.text)
    assert re.search(rf"html\|{html['changed']}\|{html['characters']:,}\|0\|", cells)
    assert re.search(rf"html, by source, with examples\|.*\|{mine}\|{html['changed']}\|.*before\|after\|<b>\|第", cells)
    assert re.search(r"min_chars\|0\|2\|1", cells)


def test_kept_documents_stand_beside_dropped_ones(made):
    report, page = made
    assert len(report["shown"]["kept"]) == 10
    cells = "|".join(page.text)
    assert re.search(r"Kept, and dropped\|\s*\|kept\|dropped\|a\.jsonl:\d+: 第\d篇", cells)
    assert re.search(r"shorter than 20 characters: \|1\|[^|]*短", cells)


def test_the_same_report_is_the_same_page_but_for_the_seconds(tmp_path):
    sources = [{"reader": "thucnews", "root": str(ROOT / "cngpt/corpus/sample/THUCNews")}]
    pages = []
    for name in "a", "b":
        run(sources, tmp_path / name)
        page = (tmp_path / name / "report.html").read_text(encoding="utf-8")
        is_alone(Page(page))
        pages.append(page.partition("<h2>Seconds</h2>")[0])
    assert pages[0] == pages[1]


def test_a_difference_far_into_a_text_is_shown_with_what_surrounds_it():
    before = "甲" * 700 + "<i>" + "乙" * 300
    shown = side_by_side({"id": "a:1", "from": 0, "before": before, "after": "甲" * 700 + "乙" * 300}, "before", "after")
    assert "<del>&lt;i&gt;</del>" in shown and "<ins>" not in shown and shown.count("甲") == 120


@given(st.text("ab", max_size=200), st.text("ab", max_size=200), st.text("ab", max_size=200))
def test_where_two_texts_part_is_found(same, a, b):
    wanted = len(os.path.commonprefix([same + a, same + b]))  # noqa: RUF071 (of characters is meant)
    assert first_difference(same + a, same + b) == (wanted - LEAD if wanted > LEAD else 0)


def test_the_original_stands_beside_its_copy(made):
    _, page = made
    text = "|".join(page.text)
    assert re.search(r"the document that stayed\|copy\|", text)
