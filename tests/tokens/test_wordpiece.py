"""The fast path gives the ids of `tokenizers`, whatever the text."""

import gzip
import json
import pickle
import zipfile
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer

from cngpt.tokens import Tokenizer, load_tokenizer, wordpiece

HANZI = load_tokenizer("hanzi")
ENTRIES = [HANZI.token(id) for id in range(HANZI.vocab_size)]
FAST = {low: Tokenizer.from_vocab(ENTRIES, name="t", lowercase=low, newline=False) for low in (False, True)}
SLOW = {low: BertWordPieceTokenizer({t: i for i, t in enumerate(ENTRIES)}, lowercase=low) for low in (False, True)}

AWKWARD = [
    "中", "文", "a", "B", "9", " ", "\n", "\r", "\t", "。", "，", "“", "-", "[", "]", "[UNK", "SEP]", "#", "##", "$", "☆", "℃", "3～5",
    "\u0301", "\u0308", "\u030a", "\u3099", "\u20dd", "\u302e", "\u0e38",  # marks, some with a place in NFD's order
    "\0", "\x07", "\x1c", "\x85", "\u00ad", "\u200b", "\u200d", "\ufe0f", "\ufeff", "\ufffd", "\ue000", "\U000e0041",  # controls and holes
    "\u00a0", "\u2003", "\u2028", "\u2029", "\u3000", "\u180e",  # white space, and what was
    "\u037e", "\u0387", "\u1fef", "\u2260", "\u226e",  # turn into punctuation
    "\uf900", "\ufa0e", "\U0002f800", "\u2f00", "\u3007", "\u9fff", "\U0002b81d", "\U0002b820", "\U0002cea1", "\U00030000",  # ideographs, edges
    "한", "국", "ᄒ", "ᅡ", "が", "ガ", "İ", "ı", "ǅ", "ß", "ẞ", "Σ", "ς", "ﬁ", "Å", "é", "Ａ", "𝔘", "😀", "👩\u200d👧", "🇨🇳", "नि", "ไทย",
]  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(AWKWARD), st.text(max_size=6), st.sampled_from(ENTRIES[6:])), max_size=30).map("".join)


def reference(text: str, lowercase: bool) -> list[int]:
    return SLOW[lowercase].encode(text, add_special_tokens=False).ids


def spells_control(text: str) -> bool:
    return any(t in text for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"))


@pytest.mark.parametrize("lowercase", [False, True])
@settings(max_examples=400, deadline=None)
@given(texts=st.lists(texts, min_size=1, max_size=4))
def test_ids_are_those_of_tokenizers(lowercase, texts):
    texts = [t for t in texts if not spells_control(t)]
    assert [ids.tolist() for ids in FAST[lowercase].encode_batch(texts)] == [reference(t, lowercase) for t in texts]


def same_for_code_points(codes, lowercase):
    """Each alone, between two Chinese characters and between two letters; 128 code points in one text."""
    block = [" ".join(f"{c} 中{c}中 a{c}b" for c in map(chr, codes[i : i + 128])) for i in range(0, len(codes), 128)]
    expected = SLOW[lowercase].encode_batch(block, add_special_tokens=False)
    return [
        ascii(text)
        for text, ids, slow in zip(block, FAST[lowercase].encode_batch(block), expected, strict=True)
        if ids.tolist() != slow.ids
    ]


EVERY = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
USED = [code for code in EVERY if code < 0x32400 or 0xE0000 <= code < 0xE0200]


@pytest.mark.parametrize("lowercase", [False, True])
def test_every_assigned_code_point_gives_the_ids_of_tokenizers(lowercase):
    assert same_for_code_points(USED + EVERY[0x32400::97], lowercase) == []


@pytest.mark.slow
@pytest.mark.parametrize("lowercase", [False, True])
def test_every_code_point_gives_the_ids_of_tokenizers(lowercase):
    assert same_for_code_points(EVERY, lowercase) == []


def lines_below(folder):
    """Every line of every file, packed ones too: JSON as the texts in it."""
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                whole = [archive.read(name) for name in archive.namelist()]
        else:
            whole = [gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()]
        for line in (line for data in whole for line in data.split(b"\n")):
            try:
                yield from strings_in(json.loads(line))
            except ValueError:
                yield line.decode("gb18030" if "gb18030" in path.parts else "utf-8", "replace")


def strings_in(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings_in(part)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # `tokenizers` takes minutes
@pytest.mark.parametrize("lowercase", [False, True])
def test_all_texts_at_hand_give_the_ids_of_tokenizers(shared, lowercase):
    """150 MB, a tokenizer at a time: hanzi's entries with case on all of it, bert-base-chinese on all but the largest folder."""
    folders = [shared(f"corpora/{name}") for name in (["dev", "eval"] if lowercase else ["dev", "eval", "bench"])]
    fast, slow = FAST[False], SLOW[False]
    if lowercase:
        path = shared("golden/vocab/bert-base-chinese-vocab.txt")
        fast, slow = load_tokenizer("bert", vocab=path, newline=False), BertWordPieceTokenizer(str(path))
    texts = (text for folder in folders for text in lines_below(folder) if text and not spells_control(text))
    characters = 0
    while batch := list(islice(texts, 2000)):
        characters += sum(map(len, batch))
        expected = slow.encode_batch(batch, add_special_tokens=False)
        ours = fast.encode_batch(batch)
        assert [text for text, a, b in zip(batch, ours, expected, strict=True) if a.tolist() != b.ids] == []
    print(f"{characters:,} characters")
    assert characters > 4e6


def test_real_articles_give_the_ids_of_tokenizers(shared):
    path = shared("golden/vocab/bert-base-chinese-vocab.txt")
    fast, slow = load_tokenizer("bert", vocab=path, newline=False), BertWordPieceTokenizer(str(path))
    for corpus in (
        "dev/dirty/tech_markdown_lctt.jsonl",
        "dev/news2016zh_schema/news_xwlb_dev.jsonl",
        "dev/dirty/mojibake_pairs.jsonl",
    ):
        lines = shared(f"corpora/{corpus}").read_text(encoding="utf-8").splitlines()[:200]
        assert [i.tolist() for i in fast.encode_batch(lines)] == [
            e.ids for e in slow.encode_batch(lines, add_special_tokens=False)
        ]


def test_a_line_end_is_a_token_and_other_white_space_is_none():
    ids = HANZI.encode("中国\n\n abc\r\n北京\u2028上海 \t")
    assert [HANZI.token(i) for i in ids] == ["中", "国", "\n", "\n", "ab", "##c", "\n", "北", "京", "上", "海"]


def test_text_that_spells_a_control_token_does_not_become_it():
    text = "[SEP][PAD] [UNK][CLS]x[MASK] <T> <S> [unused1]"
    assert not set(HANZI.encode(text)) & {0, 1, 2, 3, 4}
    assert HANZI.decode(HANZI.encode(text)).replace(" ", "") == text.replace(" ", "")


def test_lone_surrogates_become_replacement_characters_and_are_counted():
    tokenizer = Tokenizer.from_json(HANZI.to_json())
    ids = tokenizer.encode_batch(["中\ud800国", "好", "a\udfff\ud83d"])
    assert [i.tolist() for i in ids] == [HANZI.encode(t).tolist() for t in ("中\ufffd国", "好", "a\ufffd\ufffd")]
    assert tokenizer.surrogates == 3


def test_a_text_has_the_same_ids_alone_and_in_any_batch(monkeypatch):
    batch = ["", "北京2022年冬奥会", " ", "GPT-2 有 1.5B 参数\n", "", "x" * 101, "中" * 50]
    alone = [HANZI.encode(text).tolist() for text in batch]
    assert [i.tolist() for i in HANZI.encode_batch(batch)] == alone
    monkeypatch.setattr(wordpiece, "CHUNK", 8)
    assert [i.tolist() for i in HANZI.encode_batch(batch)] == alone
    assert HANZI.encode_batch([]) == []


def test_the_cache_of_words_stays_bounded_and_clearing_it_changes_nothing(monkeypatch):
    monkeypatch.setattr(wordpiece, "CACHE", 100)
    monkeypatch.setattr(wordpiece, "CHUNK", 50)
    tokenizer = Tokenizer.from_json(HANZI.to_json())
    words = [f"word{n} 和 {n}" for n in range(300)]
    first = tokenizer.encode_batch(words)
    assert tokenizer._fast._row_of.characters < 200
    assert all(np.array_equal(a, b) for a, b in zip(first, tokenizer.encode_batch(words), strict=True))
    assert [i.tolist() for i in first] == [reference(w, False) for w in words]


def test_an_interrupted_batch_leaves_no_word_without_ids(monkeypatch):
    tokenizer = Tokenizer.from_json(HANZI.to_json())
    with monkeypatch.context() as broken:
        broken.setattr(tokenizer._fast.rules, "ids", lambda segments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tokenizer.encode("interrupted")
    assert tokenizer.encode("interrupted").tolist() == HANZI.encode("interrupted").tolist()


def test_a_tokenizer_travels_to_another_process():
    again = pickle.loads(pickle.dumps(HANZI))
    assert again.fingerprint == HANZI.fingerprint
    assert again.encode("在 Linux 7.0 上").tolist() == HANZI.encode("在 Linux 7.0 上").tolist()


def test_ids_are_int32_and_what_may_be_sampled_leaves_out_control_tokens():
    assert HANZI.encode("中国").dtype == np.int32
    assert HANZI.control_ids == (0, 1, 2, 4)
    assert (HANZI.pad_id, HANZI.unk_id, HANZI.eos_id, HANZI.newline_id) == (0, 1, 3, 5)


def test_the_fingerprint_depends_on_what_decides_ids_and_on_nothing_else():
    def made(entries=ENTRIES, **changes):
        return Tokenizer.from_vocab(entries, **{"name": "t", "lowercase": False, **changes}).fingerprint

    assert made() == made(name="other")
    swapped = [*ENTRIES[:6], ENTRIES[7], ENTRIES[6], *ENTRIES[8:]]
    changed = [
        made(swapped),
        made(lowercase=True),
        made(newline=False),
        made(eos="[MASK]"),
        made(manner="gpt2ml"),
        made(fold_quotes=True),
    ]
    assert len({made(), *changed}) == 7
    assert json.loads(HANZI.to_json())["model"]["vocab"]["[PAD]"] == 0
