import gzip
import json
import zipfile
from pathlib import Path

import pytest
import zstandard

from cngpt.corpus.document import Document, Tally
from cngpt.corpus.readers import open_source, raw
from cngpt.errors import ConfigError

SAMPLE = Path(__file__).parents[2] / "cngpt/corpus/sample"


def read(root, reader="files", **options):
    tally = Tally()
    return list(open_source({"reader": reader, "root": str(root), **options}).documents(tally)), tally


def texts(root, **options):
    documents, tally = read(root, **options)
    assert not tally.counts
    return [document.text for document in documents]


def jsonl(*records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


RECORDS = [{"title": "甲", "text": "第一篇。\n有两段。"}, {"title": "乙", "text": "第二篇。"}]
EXPECTED = [Document("第一篇。\n有两段。", "甲"), Document("第二篇。", "乙")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", jsonl(*RECORDS)),
        ("a.JSONL", jsonl(*RECORDS).replace("\n", "\r\n")),
        ("a.json", jsonl(*RECORDS)),  # json-lines in spite of its name
        ("a.json", json.dumps(RECORDS, ensure_ascii=False)),
        ("a.json", json.dumps(RECORDS, ensure_ascii=False, indent=2)),
        ("a.json", "[\n" + ",\n".join(json.dumps(r, ensure_ascii=False) for r in RECORDS) + "\n]"),
        ("a.json", "\n".join(json.dumps(r, ensure_ascii=False, indent=2) for r in RECORDS)),
    ],
)
@pytest.mark.parametrize("packed", ["plain", "gz", "zst", "zip"])
def test_json_is_read_in_every_dress(tmp_path, name, content, encoding, packed):
    data = content.encode(encoding)
    if packed == "plain":
        (tmp_path / name).write_bytes(data)
    elif packed == "gz":
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data))
    elif packed == "zst":
        (tmp_path / f"{name}.zst").write_bytes(zstandard.compress(data[:10]) + zstandard.compress(data[10:]))
    else:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(f"folder/{name}", data)
    documents, tally = read(tmp_path)
    assert [Document(d.text, d.title) for d in documents] == EXPECTED
    assert not tally.counts


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
def test_a_txt_is_one_document_or_one_a_line_or_one_a_block(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("一\n二\r\n\n \n三\n".encode(encoding))
    assert texts(tmp_path) == ["一\n二\n\n \n三"]
    assert texts(tmp_path, split="line") == ["一", "二", "三"]
    assert texts(tmp_path, split="blank") == ["一\n二", "三"]


def test_ids_name_file_and_line_and_files_come_sorted(tmp_path):
    (tmp_path / "b.jsonl").write_text(jsonl({"text": "乙"}, {"text": "丙"}), encoding="utf-8")
    (tmp_path / "a.txt").write_text("甲", encoding="utf-8")
    assert [d.id for d in read(tmp_path)[0]] == ["a.txt:1", "b.jsonl:1", "b.jsonl:2"]
    assert [d.id for d in read(tmp_path / "b.jsonl")[0]] == ["b.jsonl:1", "b.jsonl:2"]


def test_fields_are_guessed_or_given(tmp_path):
    (tmp_path / "a.jsonl").write_text(jsonl({"headline": "题", "content": "文", "other": ["一", "二"]}), encoding="utf-8")
    assert read(tmp_path)[0] == [Document("文", "题", "files", "a.jsonl:1")]
    assert read(tmp_path, text="other", title="content")[0] == [Document("一\n二", "文", "files", "a.jsonl:1")]


def test_the_first_field_that_is_not_empty_is_taken(tmp_path):
    records = [
        {"text": None, "content": "甲"},
        {"text": "", "content": "乙"},
        {"text": 7, "body": "丙"},
        {"text": " ", "正文": []},
    ]
    records = [{"title": None, "headline": "题", **record} for record in records]
    (tmp_path / "a.jsonl").write_text(jsonl(*records), encoding="utf-8")
    documents, tally = read(tmp_path)
    assert [(d.title, d.text) for d in documents] == [("题", "甲"), ("题", "乙"), ("题", "丙")]
    assert tally.counts == {"empty": 1}


def test_what_is_broken_is_counted_by_reason_and_the_rest_is_read(tmp_path):
    good = jsonl({"text": "好的一行"}).encode()
    lines = [good, b"{broken\n", b'{"text": "\xff\xfe"}\n', b'["a", "list"]\n', b"3\n", jsonl({"text": " "}).encode(), b"\n"]
    lines += [jsonl({"txet": "x"}).encode(), jsonl({"text": 7}).encode(), jsonl({"text": None}).encode(), good * 20]
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines))
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "empty.jsonl").write_bytes(b"")
    (tmp_path / "picture.jpg").write_bytes(b"\xff\xd8")
    (tmp_path / "utf16.txt").write_bytes("一些中文".encode("utf-16"))
    (tmp_path / "binary.txt").write_bytes(bytes(range(256)) * 9)
    (tmp_path / "lost.txt").symlink_to(tmp_path / "nowhere")
    documents, tally = read(tmp_path)
    assert [d.text for d in documents] == ["好的一行"] * 21
    assert tally.counts == {
        "bad JSON": 1,
        "bad encoding": 3,
        "not a JSON object": 2,
        "missing field": 2,
        "field is no text": 1,
        "empty": 1,
        "other kind of file": 1,
        "unreadable file": 1,
    }
    assert tally.examples["bad JSON"] == ["a.jsonl:2: {broken"]
    assert tally.examples["missing field"][0].endswith("no text or content or body or article or 正文 or 内容 or 文本 among txet")


@pytest.mark.parametrize("kind", ["gz", "zst"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "garbage"])
def test_a_damaged_archive_gives_what_it_held_and_is_counted(tmp_path, kind, damage):
    records = [{"text": f"第{i}篇，{i * 7919 % 104729}。"} for i in range(20_000)]
    content = jsonl(*records).encode()
    data = bytearray(gzip.compress(content) if kind == "gz" else zstandard.ZstdCompressor(write_checksum=True).compress(content))
    if damage == "truncated":
        del data[len(data) // 2 :]
    elif damage == "flipped":
        data[len(data) // 2] ^= 0xFF
    else:
        data += b"garbage"
    (tmp_path / f"a.jsonl.{kind}").write_bytes(data)
    (tmp_path / "b.txt").write_text("下一个文件照读。", encoding="utf-8")
    documents, tally = read(tmp_path)
    assert documents[-1].text == "下一个文件照读。"
    assert tally.counts["broken archive"] + tally.counts["bad JSON"] + tally.counts["bad encoding"] >= 1
    found = [d.text for d in documents[:-1]]
    assert set(found) <= {r["text"] for r in records}
    assert len(found) >= {"truncated": 7_000, "flipped": 4_000, "garbage": 20_000}[damage]


@pytest.mark.parametrize("kind", ["gz", "zst"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "array.json", "a.txt"])
def test_a_small_archive_that_breaks_off_gives_its_beginning_in_every_format(tmp_path, kind, name):
    records = [{"text": f"第{i}篇，{i * 7919 % 104729}，{'字' * (i % 7)}。"} for i in range(5_000)]
    whole = json.dumps(records, ensure_ascii=False) if name == "array.json" else jsonl(*records)
    compress = gzip.compress if kind == "gz" else zstandard.ZstdCompressor().compress
    data = compress((whole if name != "a.txt" else "".join(r["text"] + "\n" for r in records)).encode())
    (tmp_path / f"{name}.{kind}").write_bytes(data[: len(data) * 9 // 10])
    documents, tally = read(tmp_path)
    found = documents[0].text.split("\n") if name == "a.txt" else [d.text for d in documents]
    assert found == [r["text"] for r in records[: len(found)]]
    assert len(found) > 2_000
    assert tally.counts == {"broken archive": 1}


def test_gzip_members_one_after_another_and_padding_are_read(tmp_path):
    parts = [gzip.compress(f"第{i}行\n".encode()) for i in range(3)]
    (tmp_path / "a.txt.gz").write_bytes(b"".join(parts) + bytes(600))
    assert texts(tmp_path, split="line") == ["第0行", "第1行", "第2行"]


def test_a_damaged_zip_member_does_not_spoil_the_others(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for i in range(3):
            archive.writestr(f"{i}.txt", f"这是第{i}个文件" * 50)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[data.index("这是第1个".encode()) + 30] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(data)
    (tmp_path / "b.zip").write_bytes(b"PK no zip at all")
    documents, tally = read(tmp_path)
    assert [d.id for d in documents] == ["a.zip/0.txt:1", "a.zip/2.txt:1"]
    assert tally.counts == {"broken archive": 2}


def test_an_array_that_breaks_off_gives_its_whole_elements(tmp_path):
    whole = json.dumps([{"text": f"第{i}篇"} for i in range(50)], ensure_ascii=False)
    (tmp_path / "a.json").write_text(whole[:-10], encoding="utf-8")
    documents, tally = read(tmp_path)
    assert len(documents) == 49
    assert tally.counts == {"bad JSON": 1}


def test_long_arrays_and_long_texts_are_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(raw, "PIECE", 1000)
    (tmp_path / "a.json").write_text(
        json.dumps([{"text": "长" * 600_000}] * 4 + [{"text": "短"}], ensure_ascii=False), encoding="utf-8"
    )
    assert [len(text) for text in texts(tmp_path)] == [600_000] * 4 + [1]
    (tmp_path / "a.json").unlink()
    (tmp_path / "b.txt").write_bytes("".join(f"第{i}行\n" for i in range(2000)).encode("gb18030"))
    assert texts(tmp_path, split="line") == [f"第{i}行" for i in range(2000)]


def test_a_very_long_txt_becomes_several_documents(tmp_path, monkeypatch):
    monkeypatch.setattr("cngpt.corpus.readers.corpora.TEXT_LIMIT", 100)
    content = "".join(f"第{i}行\n" for i in range(100))
    (tmp_path / "a.txt").write_text(content, encoding="utf-8")
    found = texts(tmp_path)
    assert len(found) == 5
    assert "\n".join(found) + "\n" == content


def test_json_lines_named_json_survive_a_broken_first_line(tmp_path):
    (tmp_path / "a.json").write_text('{"text": "br\n' + jsonl({"text": "好"}), encoding="utf-8")
    documents, tally = read(tmp_path)
    assert [d.text for d in documents] == ["好"]
    assert tally.counts == {"bad JSON": 1}


def test_a_line_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(raw, "PIECE", 100)
    monkeypatch.setattr(raw, "LIMIT", 1000)
    (tmp_path / "a.txt").write_text("头\n" + "x" * 5000 + "\n尾\n", encoding="utf-8")
    documents, tally = read(tmp_path, split="line")
    assert [d.text for d in documents] == ["头", "尾"]
    assert tally.counts == {"line too long": 1}


def test_gb18030_is_recognised_after_a_long_ascii_head(tmp_path, monkeypatch):
    monkeypatch.setattr(raw, "PIECE", 64)
    (tmp_path / "a.txt").write_bytes(b"plain ascii\n" * 50 + "中文在后。\n".encode("gb18030"))
    assert texts(tmp_path)[0].endswith("中文在后。")


def test_thucnews_takes_the_first_line_as_title_from_folder_and_zip_alike(tmp_path):
    folder = tmp_path / "THUCNews"
    for name, text in (
        ("体育/2.txt", "标题二\n　　正文二"),
        ("体育/10.txt", "标题十\r\n　　正文\r\n　　再"),
        ("财经/1.txt", "只有标题"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())
    with zipfile.ZipFile(tmp_path / "THUCNews.zip", "w") as archive:
        for path in folder.rglob("*.txt"):
            info = zipfile.ZipInfo(str(path.relative_to(tmp_path)))
            archive.writestr(info, path.read_bytes())
    unpacked, tally = read(folder, "thucnews")
    assert [(d.title, d.text, d.id) for d in unpacked] == [
        ("标题十", "　　正文\n　　再", "体育/10.txt"),
        ("标题二", "　　正文二", "体育/2.txt"),
    ]
    assert tally.counts == {"empty": 1}
    zipped, _ = read(tmp_path / "THUCNews.zip", "thucnews")
    assert [(d.title, d.text) for d in zipped] == [(d.title, d.text) for d in unpacked]
    both, tally = read(tmp_path, "thucnews")
    assert len(both) == 2
    assert tally.counts["zip beside its unpacked folder"] == 1
    folder.rename(tmp_path / "elsewhere")
    assert len(read(folder, "thucnews")[0]) == 2  # data.root=.../THUCNews with THUCNews.zip in its place


def test_names_in_zips_made_on_chinese_windows_are_readable(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("XXXX/1.txt", "标题\n正文")
    data = (tmp_path / "a.zip").read_bytes().replace(b"XXXX", "体育".encode("gbk"))
    (tmp_path / "a.zip").write_bytes(data)
    assert [d.id for d in read(tmp_path, "thucnews")[0]] == ["a.zip/体育/1.txt"]


FIVE_SETS = {
    "wiki_zh/AA/wiki_00": {"id": "53", "url": "u", "title": "经济学", "text": "经济学\n\n经济学是"},
    "new2016zh/news2016zh_train.json": {"news_id": "1", "title": "新闻", "desc": "摘要", "content": "新闻正文", "source": "报"},
    "baike2018qa/baike_qa_train.json": {"qid": "q", "category": "c", "title": "问？", "desc": "补充", "answer": "答一\r\r答二"},
    "webtext2019zh/web_text_zh_train.json": {"qid": 1, "title": "问题", "desc": "", "topic": "t", "star": 3, "content": "回答"},
    "translation2019zh/translation2019zh_train.json": {"english": "Hello.", "chinese": "你好。"},
}
FROM_FIVE_SETS = [
    Document("补充\n答一\r\r答二", "问？", "baike2018qa", "baike2018qa/baike_qa_train.json:1"),
    Document("新闻正文", "新闻", "news2016zh", "new2016zh/news2016zh_train.json:1"),
    Document("你好。", "", "translation2019zh", "translation2019zh/translation2019zh_train.json:1"),
    Document("回答", "问题", "webtext2019zh", "webtext2019zh/web_text_zh_train.json:1"),
    Document("经济学\n\n经济学是", "经济学", "wiki2019zh", "wiki_zh/AA/wiki_00:1"),
]


@pytest.fixture
def five_sets(tmp_path):
    for name, record in FIVE_SETS.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(jsonl(record), encoding="utf-8")
    return tmp_path


def test_the_five_sets_of_nlp_chinese_corpus_are_told_apart_by_their_paths(five_sets):
    (five_sets / "README.md").write_text("x")
    documents, tally = read(five_sets, "nlp_chinese_corpus")
    assert documents == FROM_FIVE_SETS
    assert tally.counts == {"other kind of file": 1}
    assert read(five_sets, "nlp_chinese_corpus", sets=["wiki2019zh"])[0] == FROM_FIVE_SETS[-1:]
    alone = read(five_sets / "wiki_zh", "nlp_chinese_corpus")[0]
    assert [d.text for d in alone] == ["经济学\n\n经济学是"]


def test_a_zip_stands_in_for_a_set_that_is_not_unpacked(five_sets):
    for name, member in ("wiki_zh_2019.zip", "wiki_zh/AA/wiki_00"), ("new2016zh.zip", "news2016zh_train.json"):
        with zipfile.ZipFile(five_sets / name, "w") as archive:
            archive.writestr(member, jsonl(FIVE_SETS.get(member, FIVE_SETS["new2016zh/news2016zh_train.json"])))
    (five_sets / "wiki_zh/AA/wiki_00").unlink()
    documents, tally = read(five_sets, "nlp_chinese_corpus")
    assert sorted(d.source for d in documents) == sorted(d.source for d in FROM_FIVE_SETS)
    assert tally.counts == {"zip beside its unpacked folder": 1}


def test_a_description_that_repeats_the_question_or_is_empty_is_left_out(tmp_path):
    records = [{"qid": 1, "title": "问", "desc": desc, "answer": "答"} for desc in ("问", "", "答", None)]
    (tmp_path / "baike.json").write_text(jsonl(*records), encoding="utf-8")
    assert [d.text for d in read(tmp_path, "nlp_chinese_corpus")[0]] == ["答"] * 4


def test_the_bundled_sample_is_read_whole():
    thucnews, tally = read(SAMPLE / "THUCNews", "thucnews")
    nlp, other = read(SAMPLE / "nlp_chinese_corpus", "nlp_chinese_corpus")
    assert (len(thucnews), len(nlp)) == (256, 128)
    assert not tally.counts and not other.counts
    assert all(d.title and d.text for d in thucnews + nlp)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"reader": "thucnews", "root": "/no/such"}, r"data\.root=/no/such is not there.*THUCNews\.zip.*thuctc\.thunlp\.org"),
        ({"reader": "nlp_chinese_corpus", "root": "/no"}, r"data\.root=/no .*wiki_zh/AA/wiki_00.*github\.com/brightmart"),
        ({"reader": "files", "root": "/no"}, r"\.txt, \.jsonl or \.json"),
        ({"reader": "thucnew", "root": "/no"}, "Did you mean thucnews"),
        ({"reader": "files", "root": ".", "splt": "line"}, "Did you mean split"),
        ({"reader": "files", "root": ".", "split": "lines"}, r"data\.split=lines is none of file, line, blank"),
        ({"reader": "nlp_chinese_corpus", "root": ".", "sets": ["wiki"]}, "'wiki', which is none of wiki2019zh"),
    ],
)
def test_a_wrong_source_is_named_with_its_remedy(source, message):
    with pytest.raises(ConfigError, match=message):
        open_source(source)


def test_a_folder_without_anything_readable_says_what_was_looked_for(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"holds nothing to read. Looked for: <category>/<number>\.txt"):
        open_source({"reader": "thucnews", "root": str(tmp_path)}).size()


def test_reading_reports_progress_up_to_the_bytes_on_disk(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(jsonl(*RECORDS * 50).encode()))
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b.txt", "一二三\n" * 1000)
    source, seen = open_source({"reader": "files", "root": str(tmp_path)}), []
    list(source.documents(Tally(), seen.append))
    assert sum(seen) == pytest.approx(source.size())


def test_remote_sources_are_read_like_local_ones():
    from cngpt import files

    files.write_text("memory://corpus/a.txt", "远处的文")
    assert read("memory://corpus")[0] == [Document("远处的文", "", "files", "a.txt:1")]
    assert read("memory://corpus/a.txt")[0] == [Document("远处的文", "", "files", "a.txt:1")]
