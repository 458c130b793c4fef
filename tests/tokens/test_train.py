"""Tokenizers learned from texts."""

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from cngpt.errors import UserError
from cngpt.tokens import load_tokenizer
from cngpt.tokens.train import TRAINERS, train_bpe, train_wordpiece

MANY = "".join(chr(0x4E00 + n) for n in range(3000))  # more different characters than the common limit of 1,000
TEXTS = [MANY, MANY, *["人工智能 Artificial Intelligence 正在改变世界。\n新的一行 learning learned learns, 2024年！"] * 20]
BPE = train_bpe(TEXTS, 600)


def test_wordpiece_learns_every_frequent_character_and_pieces_of_words():
    tokenizer = train_wordpiece(TEXTS, 5000)
    assert tokenizer.vocab_size <= 5000
    assert tokenizer.unk_id not in tokenizer.encode(MANY)
    assert [tokenizer.token(i) for i in tokenizer.encode("learning\n人")] == ["learning", "\n", "人"]
    assert (tokenizer.pad_id, tokenizer.newline_id, tokenizer.control_ids) == (0, 5, (0, 1, 2, 4))
    assert tokenizer.encode("LEARN").tolist() != tokenizer.encode("learn").tolist()


def test_wordpiece_can_fold_case():
    tokenizer = train_wordpiece(TEXTS, 5000, lowercase=True)
    assert tokenizer.encode("LEARNED").tolist() == tokenizer.encode("learned").tolist()
    assert tokenizer.id("A") is None


def test_wordpiece_keeps_the_most_frequent_characters_where_not_all_have_room():
    tokenizer = train_wordpiece(TEXTS, 400)
    assert tokenizer.vocab_size <= 400
    assert tokenizer.unk_id not in tokenizer.encode("人工智能正在改变世界。新的一行 learned Any_other-ASCII 'word' 987")
    assert (tokenizer.encode(MANY) == tokenizer.unk_id).sum() > 2500


def test_training_again_gives_the_same_tokenizer():
    assert train_wordpiece(TEXTS, 4000).fingerprint == train_wordpiece(reversed(TEXTS), 4000).fingerprint
    assert train_bpe(TEXTS, 600).fingerprint == BPE.fingerprint


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_bpe_gives_back_every_text(text):
    assert BPE.decode(BPE.encode(text)) == text


def test_bpe_never_joins_chinese_and_latin():
    mixed = train_bpe(["在Ubuntu上安装"] * 50, 400)
    assert [mixed.decode([i]) for i in mixed.encode("在Ubuntu上安装")] == ["在", "Ubuntu", "上安装"]


def test_bpe_has_its_line_end_and_its_control_tokens():
    assert (BPE.pad_id, BPE.eos_id, BPE.unk_id, BPE.control_ids) == (0, 1, None, (0,))
    assert BPE.encode("\n").tolist() == [BPE.newline_id]
    assert not {0, 1} & set(BPE.encode("a<|endoftext|><|pad|>").tolist())
    assert BPE.decode([BPE.id("a"), 1, 0]) == "a"
    assert BPE.vocab_size == 600


def test_bpe_counts_lone_surrogates_too():
    before = BPE.surrogates
    assert BPE.decode(BPE.encode("中\ud800")) == "中\ufffd"
    assert BPE.surrogates == before + 1


def test_bpe_lives_in_one_file_that_the_tokenizers_library_reads(tmp_path):
    BPE.save(tmp_path / "tokenizer.json")
    again = load_tokenizer(tmp_path)
    text = "人工智能 AI\n\n2024"
    assert again.encode(text).tolist() == BPE.encode(text).tolist()
    assert tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids == BPE.encode(text).tolist()
    assert (again.name, again.eos_id, again.newline_id, again.fingerprint) == ("bpe", 1, BPE.newline_id, BPE.fingerprint)


def test_texts_may_come_from_a_generator_with_broken_characters():
    assert train_wordpiece((t + "\udc00" for t in TEXTS), 4000).vocab_size <= 4000


def test_a_vocabulary_too_small_is_refused():
    with pytest.raises(UserError, match="vocab_size=100"):
        train_bpe(TEXTS, 100)
    with pytest.raises(UserError, match="vocab_size=60"):
        train_wordpiece(TEXTS, 60)


def test_bpe_cannot_fold_case():
    with pytest.raises(UserError, match=r"^lowercase=true: .*kind=wordpiece"):
        TRAINERS["bpe"](TEXTS, 600, lowercase=True)
