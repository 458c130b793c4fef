"""How Google's BERT, and after it gpt2-ml, cuts text into words and words into pieces (the manner `gpt2ml`).

The rules are those of FullTokenizer in google-research/bert, tokenization.py. They differ from `tokenizers` in three points: a
word may have 200 characters (there 100), characters without a Unicode category stay, and lower-casing comes before accents are
stripped and depends on the word around a letter (a final sigma).
"""

import unicodedata
from collections.abc import Sequence

import numpy as np

WORD_LIMIT = 200  # characters; a longer word is unknown
IDEOGRAPHS = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2CEAF), (0x2F800, 0x2FA1F))


class GoogleRules:
    """`words` and `pieces` of FullTokenizer, in the form that FastWordPiece asks for."""

    def __init__(self, vocab: dict[str, int], unk_id: int, lowercase: bool):
        self.vocab, self.unk_id, self.lowercase = vocab, unk_id, lowercase

    def words(self, text: str) -> list[str]:
        return [word for token in text.translate(_CLEAN).split() for word in _split_punctuation(self._fold_case(token))]

    def make_divisible(self, text: str) -> str:
        """Lower-cases a text with a capital sigma, whose small form depends on its neighbours, so that words may be cut apart."""
        if not self.lowercase or "Σ" not in text:
            return text
        return "\n".join(" ".join(t.lower() for t in line.translate(_CLEAN).split()) for line in text.split("\n"))

    def ids(self, segments: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all segments, end to end, and how many each has."""
        each = [[i for word in self.words(segment) for i in self.pieces(word)] for segment in segments]
        return np.array([i for ids in each for i in ids], np.int32), np.array([len(ids) for ids in each], np.int64)

    def pieces(self, word: str) -> list[int]:
        """The longest piece in the vocabulary, again and again; a word with a part that has none is unknown as a whole."""
        if len(word) > WORD_LIMIT:
            return [self.unk_id]
        ids, start = [], 0
        while start < len(word):
            for end in range(len(word), start, -1):
                id = self.vocab.get(("##" if start else "") + word[start:end])
                if id is not None:
                    break
            else:
                return [self.unk_id]
            ids.append(id)
            start = end
        return ids

    def _fold_case(self, token: str) -> str:
        if not self.lowercase:
            return token
        return "".join(c for c in unicodedata.normalize("NFD", token.lower()) if unicodedata.category(c) != "Mn")


class _Clean(dict):
    """For str.translate: control characters are removed, white space becomes a space, an ideograph gets spaces around it."""

    def __missing__(self, code: int) -> str:
        char, category = chr(code), unicodedata.category(chr(code))
        if char in " \t\n\r" or category == "Zs":
            char = " "
        elif code in (0, 0xFFFD) or category in ("Cc", "Cf"):
            char = ""
        elif any(first <= code <= last for first, last in IDEOGRAPHS):
            char = f" {char} "
        self[code] = char
        return char


_CLEAN = _Clean()


def _split_punctuation(token: str) -> list[str]:
    words, word = [], ""
    for char in token:
        if _is_punctuation(char):
            words += [word, char]
            word = ""
        else:
            word += char
    return [w for w in [*words, word] if w]


def _is_punctuation(char: str) -> bool:
    """All of ASCII that is neither letter, digit nor space is punctuation, `$` and `~` too."""
    return ("!" <= char <= "~" and not char.isalnum()) or unicodedata.category(char)[0] == "P"
