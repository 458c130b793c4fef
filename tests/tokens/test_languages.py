"""Beyond Chinese: English and mixed text with spaces and case intact, other scripts, vocabularies that keep case."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cngpt.errors import UserError
from cngpt.tokens import load_tokenizer
from cngpt.tokens.shards import dtype_for
from cngpt.tokens.train import train_bpe, train_wordpiece
from tests.commands import ROOT, run

PROSE = [
    "The dogs' owner, Smith & Co., said 'no' at 5 p.m. on 3 May. I'm sure.",
    'It costs $5.20 (or €4), i.e. 20% off; see Fig. 2. "Really?" asked Mr. O\'Brien. "Yes!"',
    "Don't use state-of-the-art node.js 7.0, U.S.A, AT&T and 1,234 files in 1991, 1996, 3.1, 3.2... or so",
    "“Hello,” she said, “it’s the students’ house.” He left. (It was 19:00, e.g. too late.)",
    "Wait: the 'wildmenu' option, run `ls` now, mail zhang.san@example.com or see https://example.com/a.b.html?x=1&y=2#top",
    "you may charge a fee (or none). and that is the end. the next sentence has no capital letter",
]
MIXED = "我在 GitHub 上读了 Attention Is All You Need，作者说：“it's the Transformer (2017)”。价格$5.20，版本7.0。"
MIXED_PRINTED = re.sub(r"(?<=[一-龥]) | (?=[一-龥])", "", MIXED)
SCRIPTS = {
    "Russian": "Привет, мир! «Хорошо», — ответил он (и ушёл). Это не так-то просто: надо подумать… Потом решим; да?",
    "Greek": "Καλημέρα, κόσμε! Τι κάνεις;",
    "Arabic": "مرحبا، كيف حالك؟ أنا بخير. القاهرة هي عاصمة مصر، وهي مدينة كبيرة.",
    "Hebrew": "שלום, עולם! מה שלומך?",
    "Hindi": "नमस्ते दुनिया। यह एक परीक्षण है।",
    "Thai": "สวัสดีชาวโลก",
    "Japanese": "東京は日本の首都です。「こんにちは」と彼は言いました。GPT-2のモデルは15億パラメータです。",
    "Korean": '안녕하세요, 세계! 서울은 대한민국의 수도이다. "네"라고 말했다 (웃으며).',
    "German": "Über die Straße läuft ein Fußgänger. „Guten Tag“, sagte er; später kam er an.",
    "Spanish": "¿Qué pasa? ¡Hola! Dijo: ¿cómo estás, señor?",
    "French": "L'été, c'est chaud, 30 °C à l'ombre. Il a dit: \"J'arrive\", et il est parti (enfin).",
}
TEXTS = [*PROSE, MIXED, *SCRIPTS.values()] * 3
WORDPIECE, BPE = train_wordpiece(TEXTS, 4000), train_bpe(TEXTS, 500)


@pytest.mark.parametrize("text", PROSE)
def test_english_prose_comes_back_with_spaces_and_case(text):
    assert WORDPIECE.decode(WORDPIECE.encode(text)) == text


def test_mixed_text_comes_back_as_it_is_printed():
    assert WORDPIECE.decode(WORDPIECE.encode(MIXED)) == MIXED_PRINTED
    assert BPE.decode(BPE.encode(MIXED)) == MIXED


@pytest.mark.parametrize("language", SCRIPTS)
def test_other_scripts_come_back_as_they_were(language):
    text = SCRIPTS[language]
    assert WORDPIECE.unk_id not in WORDPIECE.encode(text)
    assert WORDPIECE.decode(WORDPIECE.encode(text)) == BPE.decode(BPE.encode(text)) == text


def test_of_real_english_nine_sentences_of_ten_come_back_exactly():
    paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", (ROOT / "LICENSE").read_text(encoding="utf-8"))]
    sentences = [s for p in paragraphs for s in re.split(r"(?<=[.;])\s+(?=[A-Z\"(])", p) if len(s.split()) > 3]
    tokenizer = train_wordpiece(sentences, 3000)
    back = [tokenizer.decode(ids) == s for ids, s in zip(tokenizer.encode_batch(sentences), sentences, strict=True)]
    assert len(back) > 40 and np.mean(back) > 0.9


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_bpe_gives_back_every_text_of_any_language(text):
    assert BPE.decode(BPE.encode(text)) == text


latin = st.text(st.sampled_from("the a Hi s t O 12 345 ,.;:!?\"'`()[]$&%—–“”‘’«»…/-_@#*=+<>\n 中文，。да네다"), max_size=50)


@settings(max_examples=400, deadline=None)
@given(latin)
def test_whatever_spaces_are_guessed_the_ids_stay_and_what_was_shown_stays(text):
    ids = WORDPIECE.encode(text)
    if WORDPIECE.unk_id in ids:
        return
    shown = [WORDPIECE.decode(ids[:n]) for n in range(len(ids) + 1)]
    assert WORDPIECE.encode(shown[-1]).tolist() == ids.tolist()
    assert all(longer.startswith(shorter) for shorter, longer in itertools.pairwise(shown))


def cased(path, entries=0) -> list[str]:
    """A cased vocab.txt as Google lays it out, learned from the texts here; with `entries`, filled up to so many."""
    words = [WORDPIECE.token(i) for i in range(WORDPIECE.vocab_size)]
    vocab = ["[PAD]", *(f"[unused{n}]" for n in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab += [w for w in words if w not in vocab and w != "\n"]
    vocab += [f"filler{n}" for n in range(entries - len(vocab))]
    path.write_text("\n".join(vocab) + "\n", encoding="utf-8")
    return vocab


def test_a_vocab_txt_with_capital_letters_keeps_case_and_one_without_does_not(tmp_path):
    vocab = cased(tmp_path / "vocab.txt")
    tokenizer = load_tokenizer(tmp_path / "vocab.txt")
    assert tokenizer.decode(tokenizer.encode(PROSE[0] + "\n" + MIXED)) == PROSE[0] + "\n" + MIXED_PRINTED
    assert tokenizer.newline_id == 1 and tokenizer.eos_id == vocab.index("[SEP]")
    small = [w for w in vocab if w == w.lower() or w.startswith("[")]
    (tmp_path / "small.txt").write_text("\n".join(small) + "\n", encoding="utf-8")
    assert (
        load_tokenizer(tmp_path / "small.txt").encode("DON'T").tolist()
        == load_tokenizer(tmp_path / "small.txt").encode("don't").tolist()
    )
    kept = load_tokenizer(tmp_path / "small.txt", lowercase=False)
    assert kept.unk_id in kept.encode("DON'T") and kept.unk_id not in kept.encode("don't")


def test_mbert_keeps_case_and_its_ids_need_four_bytes(tmp_path):
    cased(tmp_path / "vocab.txt", entries=119_547)
    tokenizer = load_tokenizer("mbert", vocab=tmp_path / "vocab.txt", newline=True)
    assert tokenizer.decode(tokenizer.encode(PROSE[1])) == PROSE[1] and dtype_for(tokenizer.vocab_size) == np.uint32
    cased(tmp_path / "vocab.txt")
    with pytest.raises(UserError, match=r"tokenizer=wordpiece tokenizer\.path="):
        load_tokenizer("mbert", vocab=tmp_path / "vocab.txt")


SMALL = [
    "model.n_layer=1",
    "model.width=16",
    "model.n_head=2",
    "model.n_ctx=32",
    "tokens_per_step=64",
    "debug=fast",
    "max_steps=2",
]
SMALL += ["schedule.warmup_steps=1", "logger=csv", "trainer=cpu", "callbacks.samples.every=0", "data=files", "data.root=texts"]
PROMPT = "The dogs' owner, Smith & Co., said 'no' (twice)。我说Yes"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "texts").mkdir()
    for name, text in (("english", "\n".join(PROSE * 3)), ("mixed", MIXED * 5), ("russian", SCRIPTS["Russian"] * 3)):
        for n in range(20):  # so that some are kept aside for validation
            (home / "texts" / f"{name}{n}.txt").write_text(f"Number {n}\n{text}", encoding="utf-8")
    cased(home / "vocab.txt")
    return home


def written(home, name: str) -> str:
    few = ["task=generate", f"ckpt=runs/{name}", "prompts_file=-", "generation.max_new_tokens=3"]
    return run(*few, cwd=home, input=PROMPT + "\n").stdout


def test_bpe_of_ones_own_texts_is_trained_trained_with_and_writes_the_prompt_as_it_was(home):
    run("task=tokenizer", "kind=bpe", "vocab_size=600", "data=files", "data.root=texts", "out=own", cwd=home)
    run(*SMALL, "tokenizer=bpe", "tokenizer.path=own", "data.valid_fraction=0.2", "name=bpe", cwd=home)
    assert written(home, "bpe").startswith(PROMPT)


def test_a_cased_vocab_txt_of_ones_own_goes_the_whole_way(home):
    run(*SMALL, "tokenizer=wordpiece", "tokenizer.path=vocab.txt", "data.valid_fraction=0.2", "name=cased", cwd=home)
    assert written(home, "cased").startswith(PROMPT)
