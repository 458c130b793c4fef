"""WordPiece at the speed of numpy, with the ids that slower, exact rules give.

Most of Chinese text is characters that stand alone whatever is around them: ideographs and punctuation. For those a table by
code point gives the id at once. A word between them (a number, Latin letters) is looked up in a cache; the words that the cache
lacks are encoded by the rules, all of a batch in one call. The table is filled from the rules too, when a character first
comes, so this file does not know what an ideograph is.
"""

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from cngpt.tokens.google import GoogleRules

# The kinds of code points, besides the id of one that stands alone: part of a word, white space, not yet looked up.
WORD, SPACE, NEW = -1, -2, -3
CHUNK = 1 << 17  # characters in one numpy pass: what fits the processor's cache is four times as fast as 1 << 23
CACHE = 1 << 22  # characters of cached words: some 400,000 words in 70 MB


class HuggingFaceRules:
    """BertNormalizer, BertPreTokenizer and WordPiece of the `tokenizers` library; `GoogleRules` has the same three methods."""

    def __init__(self, backend):
        self.backend = backend

    def words(self, text: str) -> list[str]:
        """The words of a text, normalized, cut at white space and punctuation."""
        return [word for word, _ in self.backend.pre_tokenizer.pre_tokenize_str(self.backend.normalizer.normalize_str(text))]

    def make_divisible(self, text: str) -> str:
        """A text with the same ids, each word of which may be encoded without its neighbours."""
        return text

    def ids(self, segments: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all segments, end to end, and how many each has."""
        encoding = self.backend.encode(segments, is_pretokenized=True, add_special_tokens=False)
        return np.array(encoding.ids, np.int32), np.bincount(np.array(encoding.word_ids, np.int64), minlength=len(segments))


class FastWordPiece:
    """`rules`, made fast. `fold` replaces code points before anything else; `newline_id` is the id of a line end, or None."""

    def __init__(
        self,
        rules: HuggingFaceRules | GoogleRules,
        vocab: dict[str, int],
        unk_id: int,
        newline_id: int | None,
        fold: dict[str, str],
    ):
        self.rules, self.vocab, self.unk_id = rules, vocab, unk_id
        self.fold = [(ord(a), ord(b)) for a, b in fold.items()]
        self.kinds = np.full(0x110000, NEW, np.int32)
        self.kinds[ord(" ")] = SPACE
        self.kinds[ord("\n")] = SPACE if newline_id is None else newline_id
        self._clear_cache()

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """One int32 array a text. Raises UnicodeEncodeError if a text has a lone surrogate."""
        return [ids for chunk in _chunks(texts) for ids in self._encode([self.rules.make_divisible(text) for text in chunk])]

    def stands_alone(self, char: str) -> bool:
        """Whether `char` is a token (or white space) whatever is beside it, so that it needs no space around it."""
        code = ord(char)
        if self.kinds[code] == NEW:
            self.kinds[code] = self._kind(char)
        return self.kinds[code] != WORD

    def _encode(self, texts: list[str]) -> list[np.ndarray]:
        # a space before each text
        chars = np.frombuffer(bytearray((" " + " ".join(texts)).encode("utf-32-le")), np.uint32)
        for old, new in self.fold:
            chars[chars == old] = new
        kinds = self.kinds[chars]
        if (kinds == NEW).any():
            for code in np.unique(chars[kinds == NEW]):
                self.kinds[code] = self._kind(chr(code))
            kinds = self.kinds[chars]

        in_word = kinds == WORD
        starts = np.flatnonzero(in_word[1:] & ~in_word[:-1]) + 1  # the first character of all is a space
        # all words in one string, each with the character before it as a separator
        with_separator = in_word.copy()
        with_separator[starts - 1] = True
        words = np.where(in_word, chars, ord(" "))[with_separator].tobytes().decode("utf-32-le").split(" ")[1:]
        rows = self._rows(words)

        alone, n = kinds >= 0, self._count[rows]
        counts = alone.astype(np.int64)
        counts[starts] = n
        ends = np.cumsum(counts)
        ids = np.empty(ends[-1], np.int32)
        ids[ends[alone] - 1] = kinds[alone]
        step = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)  # 0, 1, .. within each word
        ids[np.repeat(ends[starts] - n, n) + step] = self._flat[np.repeat(self._start[rows], n) + step]

        cuts = ends[np.cumsum([len(text) + 1 for text in texts]) - 1]
        return [of_text.copy() for of_text in np.split(ids, cuts[:-1])]

    def _rows(self, words: list[str]) -> np.ndarray:
        """Each word's row in the cache, after encoding the words that it lacked."""
        if self._row_of.characters > CACHE:
            self._clear_cache()
        try:
            rows = np.fromiter(map(self._row_of.__getitem__, words), np.int64, len(words))
            if self._row_of.new:
                new, self._row_of.new = self._row_of.new, []
                ids, count = self.rules.ids(new)
                self._start = np.concatenate([self._start, len(self._flat) + np.cumsum(count) - count])
                self._count = np.concatenate([self._count, count])
                self._flat = np.concatenate([self._flat, ids])
        except BaseException:
            # else the next call would take rows that have no ids yet
            self._clear_cache()
            raise
        return rows

    def _clear_cache(self) -> None:
        self._row_of = _Rows()
        self._start, self._count, self._flat = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int32)

    def _kind(self, char: str) -> int:
        """WORD is right for every character, only slower. A character stands alone if the rules cut it off and do not change it."""
        category = unicodedata.category(char)
        if not (category[0] in "PZ" or category == "Lo" or char.isascii()) or unicodedata.combining(char):
            return WORD
        words = self.rules.words(f"x{char}x")
        if words == ["x", "x"]:
            return SPACE
        return self.vocab.get(char, self.unk_id) if words == ["x", char, "x"] else WORD


class _Rows(dict):
    """word -> row; a new word gets the next row, and is kept in `new` until it is encoded."""

    def __init__(self):
        self.new: list[str] = []
        self.characters = 0

    def __missing__(self, word: str) -> int:
        row = self[word] = len(self)
        self.new.append(word)
        self.characters += len(word)
        return row


def _chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    chunk, size = [], 0
    for text in texts:
        if chunk and size + len(text) > CHUNK:
            yield chunk
            chunk, size = [], 0
        chunk.append(text)
        size += len(text) + 1
    if chunk:
        yield chunk
