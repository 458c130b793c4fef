"""WordPiece at the speed of numpy, with ids that come from somebody else's slow and exact rules.

Most of Chinese text is characters that stand alone whatever is around them: ideographs and punctuation. For those a table by
code point gives the id at once. What lies between them (a number, a Latin word) is looked up in a cache of words; what the
cache lacks is encoded by the rules themselves, all of a batch in one call. The table is learned from the rules too, a
character at a time when it is first met, so nothing here knows what an ideograph is.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

WORD, SPACE, NEW = -1, -2, -3  # what a code point may be, besides an id that stands alone
CHUNK = 1 << 17  # characters in one numpy pass: what fits the processor's cache is four times as fast as 1 << 23
CACHE = 1 << 22  # characters of remembered words: some 400,000 words in 70 MB


class Rules(Protocol):
    def words(self, text: str) -> list[str]: ...  # normalized, cut at white space and punctuation
    def settle(self, text: str) -> str: ...  # the same text to these rules, and now each word may be read without its neighbours
    def ids(self, segments: Sequence[str]) -> tuple[np.ndarray, np.ndarray]: ...  # ids end to end, and how many each segment has


class HuggingFaceRules:
    """BertNormalizer, BertPreTokenizer and WordPiece of the `tokenizers` library."""

    def __init__(self, backend):
        self.backend = backend

    def words(self, text: str) -> list[str]:
        return [word for word, _ in self.backend.pre_tokenizer.pre_tokenize_str(self.backend.normalizer.normalize_str(text))]

    def settle(self, text: str) -> str:
        return text

    def ids(self, segments: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        found = self.backend.encode(segments, is_pretokenized=True, add_special_tokens=False)
        return np.array(found.ids, np.int32), np.bincount(np.array(found.word_ids, np.int64), minlength=len(segments))


class FastWordPiece:
    """`rules`, made fast. `fold` replaces code points before anything else; `newline_id` is the id of a line end, or None."""

    def __init__(self, rules: Rules, vocab: dict[str, int], unk_id: int, newline_id: int | None, fold: dict[str, str]):
        self.rules, self.vocab, self.unk_id = rules, vocab, unk_id
        self.fold = [(ord(a), ord(b)) for a, b in fold.items()]
        self.kinds = np.full(0x110000, NEW, np.int32)
        self.kinds[ord(" ")] = SPACE
        self.kinds[ord("\n")] = SPACE if newline_id is None else newline_id
        self._forget()

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """One int32 array a text. Raises UnicodeEncodeError if a text has a lone surrogate."""
        return [ids for chunk in _chunks(texts) for ids in self._encode([self.rules.settle(text) for text in chunk])]

    def stands_alone(self, char: str) -> bool:
        """Whether `char` is a token (or white space) whatever is beside it, so that no space is needed around it."""
        code = ord(char)
        if self.kinds[code] == NEW:
            self._learn([code])
        return self.kinds[code] != WORD

    def _encode(self, texts: list[str]) -> list[np.ndarray]:
        chars = np.frombuffer(bytearray((" " + " ".join(texts)).encode("utf-32-le")), np.uint32)  # a space before each text
        for old, new in self.fold:
            chars[chars == old] = new
        kinds = self.kinds[chars]
        if (kinds == NEW).any():
            self._learn(np.unique(chars[kinds == NEW]))
            kinds = self.kinds[chars]

        inside = kinds == WORD
        starts = np.flatnonzero(inside[1:] & ~inside[:-1]) + 1  # the first of all is a space
        shown = inside.copy()
        shown[starts - 1] = True
        words = np.where(inside, chars, ord(" "))[shown].tobytes().decode("utf-32-le").split(" ")[1:]
        rows = self._rows(words)

        counts = (kinds >= 0).astype(np.int64)
        counts[starts] = self._count[rows]
        ends = np.cumsum(counts)
        ids = np.empty(ends[-1], np.int32)
        alone = kinds >= 0
        ids[ends[alone] - 1] = kinds[alone]
        n = self._count[rows]
        step = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)  # 0, 1, .. within each word
        ids[np.repeat(ends[starts] - n, n) + step] = self._flat[np.repeat(self._start[rows], n) + step]

        cuts = ends[np.cumsum([len(text) + 1 for text in texts]) - 1]
        return [piece.copy() for piece in np.split(ids, cuts[:-1])]

    def _rows(self, words: list[str]) -> np.ndarray:
        """Each word's row in the cache, after encoding those that it lacked."""
        if self._known.characters > CACHE:
            self._forget()
        try:
            rows = np.fromiter(map(self._known.__getitem__, words), np.int64, len(words))
            if self._known.new:
                ids, count = self.rules.ids(self._known.take_new())
                self._start = np.concatenate([self._start, len(self._flat) + np.cumsum(count) - count])
                self._count = np.concatenate([self._count, count])
                self._flat = np.concatenate([self._flat, ids])
        except BaseException:
            self._forget()  # rows without ids would be believed the next time
            raise
        return rows

    def _forget(self) -> None:
        self._known = _Rows()
        self._start, self._count, self._flat = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int32)

    def _learn(self, codes: Sequence[int]) -> None:
        for code in codes:
            self.kinds[code] = self._kind(chr(code))

    def _kind(self, char: str) -> int:
        """WORD is always right, only slower. To stand alone, a character must come out of the rules cut off and unchanged."""
        category = unicodedata.category(char)
        if not (category[0] in "PZ" or category == "Lo" or char.isascii()) or unicodedata.combining(char):
            return WORD
        around = self.rules.words(f"x{char}x")
        if around == ["x", "x"]:
            return SPACE
        return self.vocab.get(char, self.unk_id) if around == ["x", char, "x"] else WORD


class _Rows(dict):
    """word -> row; a word not met before gets the next row and waits in `new`."""

    def __init__(self):
        self.new: list[str] = []
        self.characters = 0

    def __missing__(self, word: str) -> int:
        row = self[word] = len(self)
        self.new.append(word)
        self.characters += len(word)
        return row

    def take_new(self) -> list[str]:
        new, self.new = self.new, []
        return new


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
