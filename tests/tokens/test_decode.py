"""decode gives text that a reader would print, and the same ids when that text is encoded again."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cngpt.tokens import Tokenizer, load_tokenizer

HANZI = load_tokenizer("hanzi")
ENTRIES = [HANZI.token(id) for id in range(HANZI.vocab_size)]
LOWER = Tokenizer.from_vocab(ENTRIES, name="lower", lowercase=True)
GPT2ML = Tokenizer.from_vocab(ENTRIES, name="gpt2ml", lowercase=True, manner="gpt2ml")
printed = st.text(
    st.sampled_from("中文的。，！“”（）《》、 \n\n  ab Linux XY 012,.:;!?%()[]{}\"'-/@#$&*+=_<>~^|`\\℃～é²３Ａ"), max_size=60
)


@pytest.mark.parametrize(
    "text",
    [
        "双十一，全网销售额突破5000亿元。\n记者获悉，同比增长12.5%。",
        "他说：“人工智能（AI）正在改变世界……”——《人民日报》",
        "在Linux 7.0上运行Ubuntu 22.04 LTS，内存1,024 MB",
        "19:00至20:30，比分3-2，气温-5℃～10℃，占比50%左右",
        "网址https://www.example.com/news/2024-01-02.html?id=3&page=4#top，信箱zhang.san@example.com.cn",
        "state-of-the-art模型don't fail，it's R&D",
        "He said, \"Hello, World!\" and left (at 5 pm). Then it ended: no more.",
        "《GPT-2》有1.5B参数；node.js、README.md、C++、C#、100.5、$5.20、U.S.A",
        "第1章　开始".replace("　", ""),
    ],
)  # fmt: skip
def test_ordinary_text_comes_back_as_it_was(text):
    assert HANZI.decode(HANZI.encode(text)) == text


def test_spaces_between_chinese_and_latin_are_dropped_and_between_latin_words_kept():
    assert HANZI.decode(HANZI.encode("在 Linux  内核 里 ， hello   world 。")) == "在Linux内核里，hello world。"


@pytest.mark.parametrize("tokenizer", [HANZI, LOWER, GPT2ML], ids=lambda t: t.name)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(text=st.one_of(printed, st.lists(st.sampled_from(ENTRIES), max_size=12).map("".join)))
def test_decoded_text_encodes_to_the_same_ids(tokenizer, text):
    ids = tokenizer.encode(text)
    assume(tokenizer.unk_id not in ids)
    assert tokenizer.encode(tokenizer.decode(ids)).tolist() == ids.tolist()


def test_real_articles_encode_to_the_same_ids_after_decoding(shared):
    lines = shared("corpora/dev/dirty/tech_markdown_lctt.jsonl").read_text(encoding="utf-8").splitlines()[:60]
    known = [ids for ids in HANZI.encode_batch(lines) if HANZI.unk_id not in ids]
    assert len(known) > 30
    assert all(np.array_equal(HANZI.encode(HANZI.decode(ids)), ids) for ids in known)


def test_control_tokens_are_left_out_and_unknown_ones_shown():
    ids = [2, *HANZI.encode("中国"), 1, 4, *HANZI.encode("abc\n"), 3, 0, 0]
    assert HANZI.decode(ids) == "中国□ abc\n"


def test_any_sequence_of_ids_can_be_decoded():
    ids = HANZI.encode("中国")
    assert HANZI.decode(ids) == HANZI.decode(ids.tolist()) == HANZI.decode(tuple(ids.tolist())) == "中国"
    assert HANZI.decode([]) == ""
    assert HANZI.decode([HANZI.vocab_size + 5]) == "□"  # a model's padded rows have no token
    piece = HANZI.id("##ing")
    assert HANZI.decode([piece]) == "ing"
    assert HANZI.decode([HANZI.id("中"), piece, HANZI.newline_id, piece]) == "中ing\ning"
