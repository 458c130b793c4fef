"""The manner `gpt2ml` gives the ids that the code of gpt2-ml gave (golden file), and knows where it differs from `tokenizers`."""

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cngpt.tokens import Tokenizer, load_tokenizer

SETTINGS = {
    "clue": ("clue-vocab.txt", "clue", True),
    "bert-base-chinese": ("bert-base-chinese-vocab.txt", "bert", True),
    "bert-base-chinese-no-lower": ("bert-base-chinese-vocab.txt", "bert", False),
}
CASED = Tokenizer.from_vocab(
    ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "中", "a", "##a", "b", "##b", ".", "σ", "##σ", "##ς", "α", "##α", "i", "##i", "!"],
    name="small", manner="gpt2ml", lowercase=True,
)  # fmt: skip


def names(text: str) -> list[str]:
    return [CASED.token(id) for id in CASED.encode(text)]


@pytest.mark.parametrize("setting", SETTINGS)
def test_tokens_and_ids_are_those_of_the_original_code(shared, setting):
    golden = json.loads(shared("golden/tokenizer.json").read_text(encoding="utf-8"))["items"]
    file, name, lowercase = SETTINGS[setting]
    tokenizer = load_tokenizer(name, vocab=shared(f"golden/vocab/{file}"), manner="gpt2ml", lowercase=lowercase)
    for item, ids in zip(golden, tokenizer.encode_batch([item["text"] for item in golden]), strict=True):
        assert [tokenizer.token(id) for id in ids] == item[setting]["tokens"], item["text"]
        assert ids.tolist() == item[setting]["ids"], item["text"]
        if "demo_text" in item[setting]:
            assert tokenizer.decode_as_gpt2ml(ids) == item[setting]["demo_text"], item["text"]
    assert len(golden) == 70


def test_words_are_those_of_the_original_code(shared):
    for item in json.loads(shared("golden/tokenizer.json").read_text(encoding="utf-8"))["items"]:
        assert CASED._fast.rules.words(item["text"]) == item["basic_tokens"]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(st.sampled_from([*"中aAbΣΑΣΑσİ.!'’:\n ", "\u0301", "\x07", "\u00ad"]), st.text(max_size=4)), max_size=20
    ).map("".join)
)
def test_the_fast_path_changes_nothing(text):
    slow = CASED._fast.rules.ids([text.encode(errors="replace").decode()])[0]
    assert CASED.encode(text).tolist() == slow.tolist()


def test_a_final_sigma_is_known_across_punctuation():
    assert names("ΑΣ ΑΣ.Α ΑΣ中") == ["α", "##ς", "α", "##σ", ".", "α", "α", "##ς", "中"]


def test_a_word_may_have_two_hundred_characters():
    assert CASED.unk_id not in CASED.encode("a" * 200)
    assert names("a" * 201) == ["[UNK]"]
    assert json.loads(CASED.to_json())["model"]["max_input_chars_per_word"] == 200


def test_characters_without_a_category_stay_and_formats_go():
    assert unicodedata.category("\ue000") == "Co"
    assert names("a\ue000") == ["[UNK]"]
    assert names("a\u200ba\x07a\ufffda\0a") == ["a", "##a", "##a", "##a", "##a"]


def test_a_converted_model_sees_no_line_ends_unless_asked(shared):
    vocab = shared("golden/vocab/clue-vocab.txt")
    assert load_tokenizer("clue", vocab=vocab, manner="gpt2ml").newline_id is None
    assert load_tokenizer("clue", vocab=vocab, manner="gpt2ml", newline=True).newline_id == 105


def test_the_manner_survives_saving():
    again = Tokenizer.from_json(CASED.to_json())
    assert (again.manner, again.newline_id, again.fingerprint) == ("gpt2ml", None, CASED.fingerprint)
    assert again.encode("a" * 150).tolist() == CASED.encode("a" * 150).tolist()
