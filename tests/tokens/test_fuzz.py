"""Twenty thousand of the strings of experiments/preparation/fuzz.py, which reads a million."""

from itertools import islice

import pytest

from cngpt.tokens import load_tokenizer
from experiments.preparation import fuzz

HANZI = load_tokenizer("hanzi")
ENTRIES = [HANZI.token(id) for id in range(HANZI.vocab_size)]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return list(islice(fuzz.strings(1, ENTRIES[6:]), 20_000))


def test_strings_of_every_kind_come(texts):
    everything = "".join(texts)
    for char in ("\ud800", "\x00", "中", "ß", "가", "\u0301", "\u200d", "\ufeff", "\n", "😀"):
        assert char in everything, ascii(char)
    assert max(len(word) for text in texts for word in text.split()) > 100


@pytest.mark.parametrize("number", [0, 1], ids=["case kept", "lower case"])
def test_random_strings_of_every_script_give_the_ids_of_tokenizers(texts, number):
    _, ours, theirs = fuzz.pairs(ENTRIES)[number]
    differing = [text for n in range(0, len(texts), 2000) for text in fuzz.differing(ours, theirs, texts[n : n + 2000])]
    assert [ascii(text) for text in differing] == []
