"""Tokenizers by name and by path; what is missing or damaged is said in one line."""

import sys
import types

import numpy as np
import pytest
import tokenizers

from cngpt.errors import UserError
from cngpt.tokens import Tokenizer, load_tokenizer

SMALL = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "中", "国", "a", "##a", "!", '"', "-"]


def vocab_file(folder, entries=SMALL, name="vocab.txt"):
    path = folder / name
    path.write_text("\n".join(entries) + "\n", encoding="utf-8")
    return path


def one_line(call, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bert_gives_the_line_end_its_first_unused_entry(shared):
    tokenizer = load_tokenizer("bert", vocab=shared("golden/vocab/bert-base-chinese-vocab.txt"))
    assert (tokenizer.vocab_size, tokenizer.newline_id, tokenizer.eos_id, tokenizer.unk_id, tokenizer.pad_id) == (
        21128,
        1,
        102,
        100,
        0,
    )
    assert [tokenizer.token(i) for i in tokenizer.encode("Ａ股\nB股")] == ["ａ", "股", "\n", "b", "股"]  # lower-cased
    assert tokenizer.decode(tokenizer.encode("今天\nHello")) == "今天\nhello"
    assert {100, 101, 103, 2, 99, 104, 105} < set(tokenizer.control_ids) and not {1, 102, 106} & set(tokenizer.control_ids)


def test_clue_gives_the_line_end_its_spare_entry(shared):
    tokenizer = load_tokenizer("clue", vocab=shared("golden/vocab/clue-vocab.txt"))
    assert (tokenizer.vocab_size, tokenizer.newline_id, tokenizer.eos_id, tokenizer.unk_id, tokenizer.pad_id) == (
        8021,
        105,
        102,
        100,
        0,
    )
    assert tokenizer.token(105) == "\n"
    assert tokenizer.control_ids == (0, 100, 101, 103, 104, 7809)  # the last: ## and nothing
    off = load_tokenizer("clue", vocab=shared("golden/vocab/clue-vocab.txt"), newline=False)
    assert off.newline_id is None and 105 in off.control_ids and len(off.encode("\n")) == 0


def test_mbert_keeps_case_and_its_size_is_known(tmp_path):
    entries = [*SMALL, "A", *(f"##x{n}" for n in range(119_547 - len(SMALL) - 1))]
    tokenizer = load_tokenizer("mbert", vocab=vocab_file(tmp_path, entries))
    assert (tokenizer.vocab_size, tokenizer.newline_id) == (119_547, 1)
    assert tokenizer.encode("A\na").tolist() == [len(SMALL), 1, SMALL.index("a")]
    assert "119,547" in one_line(load_tokenizer, "mbert", vocab=vocab_file(tmp_path))


@pytest.mark.parametrize(
    "changes", [{}, {"lowercase": False}, {"newline": False}, {"fold_quotes": True}, {"eos": "[MASK]"}, {"manner": "gpt2ml"}]
)
def test_one_file_restores_everything(tmp_path, changes):
    first = load_tokenizer(vocab_file(tmp_path), **changes)
    first.save(tmp_path / "tokenizer.json")
    for again in (load_tokenizer(tmp_path), load_tokenizer(tmp_path / "tokenizer.json"), Tokenizer.from_json(first.to_json())):
        for fact in ("name", "manner", "vocab_size", "pad_id", "eos_id", "unk_id", "newline_id", "control_ids", "fingerprint"):
            assert getattr(again, fact) == getattr(first, fact)
        assert again.encode("中国“a”—\nÁ").tolist() == first.encode("中国“a”—\nÁ").tolist()
        assert again.to_json() == first.to_json()


@pytest.mark.parametrize("changes", [{}, {"lowercase": False}, {"newline": False}, {"fold_quotes": True}])
def test_the_tokenizers_library_reads_the_file_and_gives_the_same_ids(tmp_path, changes):
    ours = load_tokenizer(vocab_file(tmp_path), **changes)
    ours.save(tmp_path / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "中国“aa”——\n\n中 aA!á \r\n国"
    assert theirs.encode(text).ids == ours.encode(text).tolist()
    assert theirs.token_to_id("\n") == ours.newline_id


def test_quotes_are_folded_to_what_the_vocabulary_has_only_on_request(shared):
    path = shared("golden/vocab/bert-base-chinese-vocab.txt")
    text = "他说：“好……”‘是’——a"
    assert load_tokenizer("bert", vocab=path).unk_id in load_tokenizer("bert", vocab=path).encode(text)
    folded = load_tokenizer("bert", vocab=path, fold_quotes=True)
    assert folded.unk_id not in folded.encode(text)
    assert folded.decode(folded.encode(text)) == "他说：\"好⋯⋯\"'是'--a"


def test_a_tokenizer_json_of_another_maker_is_read(tmp_path):
    theirs = tokenizers.BertWordPieceTokenizer({token: id for id, token in enumerate(SMALL)}, lowercase=True)
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = load_tokenizer(tmp_path)
    assert ours.encode("中国A\n!").tolist() == theirs.encode("中国A\n!", add_special_tokens=False).ids
    assert (ours.eos_id, ours.newline_id, ours.manner) == (4, None, "hf")
    theirs.normalizer = tokenizers.normalizers.NFKC()
    theirs.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).encode("中ａ").tolist() == theirs.encode("中ａ", add_special_tokens=False).ids == [6, 9]


@pytest.mark.parametrize(
    "entries, message",
    [
        ([], "empty"),
        ([""], "empty"),
        (["中", "国"], "no [UNK]"),
        ([*SMALL, "中"], "'中' twice"),
        ([t for t in SMALL if t != "[SEP]"], "no [SEP]"),
    ],
)
def test_a_vocabulary_that_is_none_is_refused(tmp_path, entries, message):
    line = one_line(load_tokenizer, vocab_file(tmp_path, entries))
    assert message in line and "vocab.txt" in line


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"model": {"type": "WordPiece", "vocab": {"a": 0}}}', '{"model": {"type": "Unigram", "vocab": []}}'],
)
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    assert "tokenizer.json" in one_line(load_tokenizer, tmp_path)


def test_a_cut_off_file_is_refused(tmp_path):
    whole = load_tokenizer(vocab_file(tmp_path)).to_json()
    (tmp_path / "tokenizer.json").write_text(whole[: len(whole) // 2])
    assert "damaged" in one_line(load_tokenizer, tmp_path)


def test_what_cannot_be_is_refused_with_a_remedy(tmp_path, monkeypatch):
    assert "Did you mean hanzi?" in one_line(load_tokenizer, "hanz")
    assert "there is no" in one_line(load_tokenizer, "bert", vocab=tmp_path / "none.txt")
    assert "there is no" in one_line(load_tokenizer, tmp_path)
    (tmp_path / "gbk.txt").write_bytes("[UNK]\n中国\n".encode("gbk"))
    assert "not UTF-8" in one_line(load_tokenizer, tmp_path / "gbk.txt")
    assert "no [unusedN]" in one_line(load_tokenizer, vocab_file(tmp_path, [t for t in SMALL if t != "[unused1]"]), newline=True)
    assert "manner=gpt3" in one_line(load_tokenizer, vocab_file(tmp_path), manner="gpt3")
    assert "needs no vocab" in one_line(load_tokenizer, "hanzi", vocab=tmp_path)
    assert "task=tokenizer" in one_line(load_tokenizer, "bpe")
    assert "says for itself" in one_line(load_tokenizer, "hanzi", lowercase=True)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "tokenizer.vocab=" in one_line(load_tokenizer, "bert")


def test_a_known_vocabulary_is_fetched_by_name(tmp_path, monkeypatch):
    path = vocab_file(tmp_path, [*SMALL, *(f"##x{n}" for n in range(21_128 - len(SMALL)))])
    asked = []
    hub = types.SimpleNamespace(
        constants=types.SimpleNamespace(ENDPOINT="https://hub.example"),
        try_to_load_from_cache=lambda repository, file: None,
        hf_hub_download=lambda repository, file: asked.append((repository, file)) or str(path),
    )
    monkeypatch.setattr("socket.create_connection", lambda *a, **k: types.SimpleNamespace(close=lambda: None))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert load_tokenizer("bert").vocab_size == 21_128
    assert asked == [("google-bert/bert-base-chinese", "vocab.txt")]


def test_a_file_with_a_mark_in_front_and_windows_line_ends_is_read(tmp_path):
    (tmp_path / "v.txt").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(SMALL).encode())
    tokenizer = load_tokenizer(tmp_path / "v.txt")
    assert np.array_equal(tokenizer.encode("中国"), [6, 7]) and tokenizer.pad_id == 0 and tokenizer.vocab_size == len(SMALL)
