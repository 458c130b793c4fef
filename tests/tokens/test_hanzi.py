"""The bundled tokenizer."""

import gzip
import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cngpt.tokens import load_tokenizer
from cngpt.tokens.hanzi import FILE, SIZE
from cngpt.tokens.hanzi.build import MORE_HANZI, build

HANZI = load_tokenizer("hanzi")


def test_the_script_makes_the_bundled_file_byte_for_byte(tmp_path):
    build().save(tmp_path / "tokenizer.json")
    assert (tmp_path / "tokenizer.json").read_bytes() == FILE.read_bytes()


def test_the_control_tokens_come_first_and_the_size_fits_a_padded_vocabulary():
    assert [HANZI.token(id) for id in range(6)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\n"]
    assert HANZI.vocab_size == SIZE and SIZE % 128 == 0


def test_every_character_of_gb_2312_is_one_token():
    hanzi = [bytes([row, cell]).decode("gb2312", "ignore") for row in range(0xB0, 0xF8) for cell in range(0xA1, 0xFF)]
    hanzi = [c for c in hanzi if c]
    assert len(hanzi) == 6763
    assert len(set(HANZI.encode("".join(hanzi)))) == 6763
    assert HANZI.unk_id not in HANZI.encode("".join(hanzi) + MORE_HANZI)
    assert not set(MORE_HANZI) & set(hanzi) and len(set(MORE_HANZI)) == len(MORE_HANZI)


def test_chinese_punctuation_and_common_signs_are_known():
    signs = "“”‘’—…·《》〈〉【】「」『』〔〕、。，！？；：（）％～￥〇①Ⅱ℃±×÷→★№α°＋Ａｂ１"
    assert HANZI.unk_id not in HANZI.encode(" ".join(signs))
    assert HANZI.unk_id not in HANZI.encode("气温-5℃～10℃，3×4㎡，10‰，20°C，5μm，No.1②，￥100，ＡＢＣ１２３，Pokémon，ǚ")


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=90))
def test_no_ascii_word_is_unknown(text):
    assert HANZI.unk_id not in HANZI.encode(text)


def test_case_is_kept_and_frequent_words_and_numbers_are_one_token():
    assert [HANZI.token(i) for i in HANZI.encode("2024 AI Linux 1000 37")] == ["2024", "AI", "Linux", "1000", "37"]
    assert HANZI.decode(HANZI.encode("linux LINUX Linux")) == "linux LINUX Linux"


def test_almost_nothing_in_real_news_is_unknown(shared):
    with gzip.open(shared("corpora/bench/news_xwlb.jsonl.gz"), "rt", encoding="utf-8") as lines:
        ids = np.concatenate(HANZI.encode_batch([json.loads(line)["text"] for line, _ in zip(lines, range(3000), strict=False)]))
    assert (ids == HANZI.unk_id).mean() < 0.0005
