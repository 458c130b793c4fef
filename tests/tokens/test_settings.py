"""The group `tokenizer`: what conf/tokenizer says is what the settings take, and what they make."""

import json

import pytest
import yaml

from cngpt.errors import ConfigError, UserError
from cngpt.settings import Chosen
from cngpt.tokens import hanzi, load_tokenizer
from cngpt.tokens.load import KNOWN, from_settings, known_vocab_size
from cngpt.tokens.settings import TOKENIZERS, Bert, Bpe, Hanzi, Wordpiece
from tests.conftest import ROOT, tiny_tokenizer

CHOSEN = Chosen(TOKENIZERS, "tokenizer")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_keys_and_values_are_those_of_the_configuration(name):
    conf = yaml.safe_load((ROOT / f"conf/tokenizer/{name}.yaml").read_text(encoding="utf-8"))
    settings = CHOSEN.make(conf)
    assert settings == TOKENIZERS[name]() and settings.model_dump() == conf
    assert all(field.description for field in type(settings).model_fields.values())


def test_every_choice_has_settings():
    assert {path.stem for path in (ROOT / "conf/tokenizer").glob("*.yaml")} == set(TOKENIZERS)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"name": "hanz"}, "tokenizer.name=hanz: one of hanzi, .*Did you mean hanzi?"),
        ({"name": "bert", "manner": "gpt2"}, "tokenizer.manner=gpt2: one of hf, gpt2ml"),
        ({"name": "bert", "newline": "yes"}, "tokenizer.newline=yes: true or false, or null is needed"),
        ({"name": "bert", "path": "x"}, "tokenizer.path: no such key; tokenizer takes name, vocab, .*tokenizer.vocab"),
        ({"name": "wordpiece", "vocab": "x"}, "tokenizer.vocab: no such key; .*tokenizer.path"),
        ({"name": "hanzi", "vocab": "x"}, "tokenizer.vocab: no such key; tokenizer takes name"),
    ],
)
def test_a_wrong_key_or_value_is_one_line(values, line):
    with pytest.raises(ConfigError, match=line):
        CHOSEN.make(values)


@pytest.mark.parametrize("settings", [Bpe(), Wordpiece(), Wordpiece(path="")])
def test_a_missing_path_is_asked_for(settings):
    with pytest.raises(
        ConfigError, match=r"^tokenizer\.path=\.\.\. is needed: the folder that task=tokenizer wrote.*vocab\.txt$"
    ):
        from_settings(settings)


def test_settings_make_the_tokenizer_that_load_tokenizer_makes(shared, tmp_path, monkeypatch):
    assert from_settings(Hanzi()).fingerprint == load_tokenizer("hanzi").fingerprint
    vocab = str(shared("golden/vocab/bert-base-chinese-vocab.txt"))
    options = {"vocab": vocab, "manner": "gpt2ml", "newline": True, "lowercase": False, "fold_quotes": False}
    assert from_settings(Bert(**options)).fingerprint == load_tokenizer("bert", **options).fingerprint
    folded = load_tokenizer("bert", vocab=vocab, fold_quotes=True)
    assert from_settings(Bert(vocab=vocab)).fingerprint == folded.fingerprint
    assert from_settings(Wordpiece(path=vocab, fold_quotes=True)).fingerprint == folded.fingerprint
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2024").mkdir()
    tiny_tokenizer().save(tmp_path / "2024/tokenizer.json")
    assert from_settings(Bpe(path=2024)).fingerprint == tiny_tokenizer().fingerprint
    with pytest.raises(UserError, match=r"there is no nowhere\.txt"):
        from_settings(Bert(vocab="nowhere.txt"))


def test_sizes_are_known_without_a_file():
    vocab = json.loads(hanzi.FILE.read_text(encoding="utf-8"))["model"]["vocab"]
    assert known_vocab_size("hanzi") == len(vocab) == load_tokenizer("hanzi").vocab_size
    sizes = {name: known_vocab_size(name) for name in ("bert", "clue", "mbert")}
    assert sizes == {"bert": 21_128, "clue": 8_021, "mbert": 119_547} and set(sizes) == set(KNOWN)
    assert known_vocab_size("bpe") is known_vocab_size("wordpiece") is known_vocab_size("somewhere/vocab.txt") is None
