"""Are the ids those of `tokenizers`, whatever the text? A million random strings say so, or how many differ.

    python -m experiments.preparation.fuzz [strings] [seed] [vocab.txt]

Every assigned character of Unicode can come: first a script or kind is drawn, then characters of it. Words around the limit of 100 characters,
runs of combining marks, controls, emoji with joiners, and lone surrogates, which `tokenizers` refuses and both read as U+FFFD here.
Four tokenizers read every string: hanzi's entries and the vocab.txt (by default hanzi's again), with and without lower case.
"""

import random
import sys
import time
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tokenizers import BertWordPieceTokenizer

from cngpt.tokens import Tokenizer, load_tokenizer

BATCH = 2000
LIMIT = 100  # characters of a word; a longer one is unknown
CONTROLS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # BertWordPieceTokenizer takes their names for ids, ours never does


def alphabets() -> dict[str, list[str]]:
    """Characters by the first word of their Unicode name (LATIN, CJK, ARABIC, ...) and by category (Cc, Mn, So, ...)."""
    alphabet = defaultdict(list)
    for code in range(0x110000):
        char = chr(code)
        category = unicodedata.category(char)
        if category not in ("Cn", "Cs"):
            alphabet[unicodedata.name(char, category).split()[0]].append(char)
            alphabet[category].append(char)
    return {name: chars for name, chars in sorted(alphabet.items()) if len(chars) > 1} | {
        "unassigned": [chr(c) for c in range(0, 0x110000, 97) if unicodedata.category(chr(c)) == "Cn"],
        "surrogates": [chr(c) for c in range(0xD800, 0xE000, 7)],
        "edges": list(
            "\u33ff\u3400\u4dbf\u4dc0\u4dff\u4e00\u9fff\ua000\uf8ff\uf900\ufaff\ufb00\U0001ffff\U00020000\U0002a6df\U0002a6e0"
        ),
        "spaces": list(" \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2002\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"),
        "ascii": [chr(c) for c in range(128)],
    }


def strings(seed: int, entries: list[str]) -> Iterator[str]:
    """Without end, a function of the seed."""
    rng, kinds = random.Random(seed), alphabets()
    names = list(kinds)
    common = ["CJK", "CJK", "LATIN", "ascii", "spaces", "Po", "edges", "Mn", "surrogates"]

    def part() -> str:
        draw = rng.random()
        if draw < 0.30:
            return "".join(rng.choices(kinds[rng.choice(names)], k=rng.randint(1, 6)))
        if draw < 0.60:
            return "".join(rng.choices(kinds[rng.choice(common)], k=rng.randint(1, 6)))
        if draw < 0.85:
            return rng.choice(entries)
        if draw < 0.88:
            return "".join(rng.choices(kinds[rng.choice(("LATIN", "CYRILLIC", "GREEK", "HANGUL"))], k=rng.randint(95, 105)))
        if draw < 0.91:
            return rng.choice("abc가ก中") * rng.randint(90, 110)
        if draw < 0.94:
            return rng.choice("aé中") + "".join(rng.choices(kinds["Mn"], k=rng.randint(1, 4)))
        if draw < 0.97:
            return "\u200d".join(rng.choices(kinds["So"], k=rng.randint(1, 4))) + rng.choice(["", "\ufe0f", "\U0001f3fd"])
        return rng.choice(["[SEP", "UNK]", "##", "[unused1]", "<T>", "…", "“", "'s", "-", "_", "￥"])

    while True:
        text = "".join(part() for _ in range(rng.randint(1, 12)))
        if not any(control in text for control in CONTROLS):
            yield text


def pairs(entries: list[str]) -> list[tuple[str, Tokenizer, BertWordPieceTokenizer]]:
    """(name, ours, theirs) with and without lower case."""
    vocab = {token: id for id, token in enumerate(entries)}
    return [
        (
            "lower case" if lowercase else "case kept",
            Tokenizer.from_vocab(entries, name="fuzz", lowercase=lowercase, newline=False),
            BertWordPieceTokenizer(vocab, lowercase=lowercase),
        )
        for lowercase in (False, True)
    ]


def without_surrogates(text: str) -> str:
    return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)


def differing(ours: Tokenizer, theirs: BertWordPieceTokenizer, texts: list[str]) -> list[str]:
    """The texts whose ids differ."""
    expected = theirs.encode_batch([without_surrogates(text) for text in texts], add_special_tokens=False)
    return [text for text, a, b in zip(texts, ours.encode_batch(texts), expected, strict=True) if a.tolist() != b.ids]


def main(count: int = 1_000_000, seed: int = 0, vocab: str | None = None) -> int:
    hanzi = load_tokenizer("hanzi")
    entries = [hanzi.token(id) for id in range(hanzi.vocab_size)]
    readers = [(f"hanzi, {name}", *pair) for name, *pair in pairs(entries)]
    if vocab:
        other = Path(vocab).read_text(encoding="utf-8").split("\n")[:-1]
        readers += [(f"{Path(vocab).name}, {name}", *pair) for name, *pair in pairs(other)]
    source, began, characters = strings(seed, entries[6:]), time.monotonic(), 0
    wrong = {name: 0 for name, *_ in readers}
    for start in range(0, count, BATCH):
        texts = [next(source) for _ in range(min(BATCH, count - start))]
        characters += sum(map(len, texts))
        for name, ours, theirs in readers:
            for text in differing(ours, theirs, texts):
                wrong[name] += 1
                print(f"{name}: {text!a}", flush=True)
        if start // BATCH % 50 == 49:
            print(f"{start + BATCH:,} strings, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    for name, number in wrong.items():
        print(f"{name}: {number:,} of {count:,} strings ({characters:,} characters) differ")
    return sum(wrong.values())


if __name__ == "__main__":
    arguments = sys.argv[1:]
    sys.exit(bool(main(*map(int, arguments[:2]), *arguments[2:])))
