"""From WordPiece tokens back to text that a reader would print."""

import re
from collections.abc import Callable, Iterable

ADDRESS = re.compile(r"://|^www\.|@")  # searched after the last space: a dot in an address ends no sentence
LOOK_BACK = 24  # characters in which Chinese is searched, and a space or a letter of Greek, Russian, Arabic, ...
CHINESE = re.compile("[\u2e80-\uabff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff]")  # and Japanese
SUFFIX = re.compile("s|t|re|ve|ll|d|m|em|clock", re.I)  # don't, o'clock
# a small letter or a digit may follow the dot of these
ABBREVIATION = re.compile("vs|etc|al|cf|no|fig|sec|ch|vol|pp|v|eq|approx", re.I)
BEFORE_QUOTE = re.compile(
    r"\b(a|an|and|are|as|at|by|called|for|from|in|is|like|named|of|on|or|said|says|see|the|thus|to|use|with)$", re.I
)
SPACED = re.compile("[ \u0370-\u1fff\uac00-\ud7af]")
KOREAN = re.compile("[\uac00-\ud7af]")
RUSSIAN = re.compile("[\u0400-\u04ff]")
DOTTED = re.compile(r"(?:^|[^\w.])[^\W\d]\.[^\W\d]\.$")  # e.g. i.e. p.m. U.S.
# the end of a sentence: three words and a full stop, or words in parentheses and a full stop
SENTENCE = re.compile(r"(^|[ \"'(])\w+,? \w+,? [\w'-]{2,}\.$|\w \([\w' -]+\)\.$")


def detokenize(tokens: Iterable[str], stands_alone: Callable[[str], bool]) -> str:
    """The tokens as text; `##x` continues the word before it, "\\n" ends a line.

    Two words that would become one get a space, so that the text encodes to the same ids again. Chinese characters and Chinese
    punctuation have no spaces around them, beside Latin words neither: 在Linux 7.0上. Other punctuation gets a space where prose
    has one, but not in numbers (3.14, 1,234, 19:00), addresses and hyphenated words. The ids do not hold the spaces of the
    original, so this is a guess. It depends on earlier tokens only, so a text can be shown while it is written.
    """
    text = ""
    line = run = 0  # where the line and the stretch without a space begin
    for token in tokens:
        if token.startswith("##") and len(token) > 2:
            text += token[2:]
            continue
        if not token:
            continue
        if text and _space(text, line, run, token, stands_alone):
            text += " "
            run = len(text)
        text += token
        if token == "\n":
            line = run = len(text)
        elif not token.isascii():
            run = len(text)
    return text


def _space(text: str, line: int, run: int, token: str, stands_alone: Callable[[str], bool]) -> bool:
    last, first = text[-1], token[0]
    if last == "\n" or first == "\n":
        return False
    word_before, word_after = not stands_alone(last), not stands_alone(first)
    if word_before and word_after:
        return True
    # after a Chinese character or mark, and in an address
    if (last >= "\u2e80" and not word_before) or ADDRESS.search(text, run):
        return False
    recent = text[max(line, len(text) - LOOK_BACK) :]
    prose = bool(SPACED.search(recent)) and not CHINESE.search(recent)
    if not word_after:
        return _opens(text, line, first, prose) and _room_before(text, line, first, word_before, prose)
    return _spaced(first) and _space_after(text, line, token, prose)


def _spaced(char: str) -> bool:
    """Whether it is a letter or digit of a script with spaces between words."""
    return char.isalnum() and (char < "\u2e80" or "\uac00" <= char <= "\ud7af")


def _opens(text: str, line: int, mark: str, prose: bool) -> bool:
    """Whether `mark` opens something and has a space before it where `_room_before` allows one."""
    if mark == "'":
        return prose if not text[-1].isalnum() else bool(BEFORE_QUOTE.search(text))
    if mark in '"`':
        return text.count(mark, line) % 2 == 0 and (mark == '"' or prose)
    # German quotation marks close with it: „so“
    if mark == "“" and text.count("„", line) > text.count("“", line):
        return False
    return mark in "(«„¿¡" or (prose and mark in "$“‘&—–")


def _room_before(text: str, line: int, mark: str, word_before: bool, prose: bool) -> bool:
    """Whether a space may follow the end of `text`, before an opening mark."""
    last, before = text[-1], text[-2:-1]
    # Russian has spaces around its dash
    if mark in "—–":
        return bool(RUSSIAN.search(text[-4:]))
    if mark == "&":
        word = _last_word(text)
        return len(word) > 2 and not word.isupper()
    if word_before:
        return _spaced(last)
    if last in ",;!?" or (last in ".:" and _spaced(before)):
        return True
    closes = last in ")”»" or (last in "'’" and mark == "(") or (last == '"' and text.count(last, line) % 2 == 0)
    return prose and closes and mark not in "$'"


def _space_after(text: str, line: int, word: str, prose: bool) -> bool:
    """Whether there is a space between the punctuation mark that ends `text` and the word after it."""
    mark, before = text[-1], text[-2:-1]
    # a Korean particle: "네"라고
    if KOREAN.match(word) and mark in ')]}%"”’':
        return False
    if mark in ")]}%" or (mark == "”" and before in ",.!?"):
        return True
    if mark in '"`':
        return text.count(mark, line) % 2 == 0 and (mark == '"' or prose)
    if mark in ",;!?":
        if before.isdigit() and word[0].isdigit():
            return prose and (len(word) > 3 or bool(re.search(r"(\d{4}|\.\d+),$", text)))
        return True
    if mark == ":":
        return (before.isalpha() or before == ")") and word[0].isalpha()
    if mark in "'’":
        return prose and _after_apostrophe(text[line:], word)
    if mark == ".":
        return _after_dot(text[line:], before, word, prose)
    if mark in "—–":
        return before == " "
    return prose and (mark in "”»،؛؟।…" or (mark == "&" and before == " "))


def _after_apostrophe(text: str, word: str) -> bool:
    """text: the line so far. No space in don't and O'Brien; a space after users' and 'quoted'."""
    if text[-2:-1] in ("", " ", "(", "[", '"') or SUFFIX.fullmatch(word):
        return False
    opened = max(text.rfind(" '", 0, -1), text.rfind("('", 0, -1), text.rfind(" ‘"), 0 if text[0] in "'‘" else -1)
    closed = re.search(r"['’](?![^\W_])", text[opened + 2 : -1]) if opened >= 0 else True
    return not closed or (text[-2] in "sS" and len(word) > 1)


def _after_dot(text: str, before: str, word: str, prose: bool) -> bool:
    """text: the line so far. "the end. Next", "e.g. this", but node.js, 7.0, U.S.A"""
    # a capital letter, or a letter of a script without capitals
    if word[0].isalpha() and not word[0].islower():
        return not (before.isupper() and len(word) == 1)
    abbreviated = ABBREVIATION.fullmatch(_last_word(text[:-1]))
    if word[0].isdigit():
        return prose and bool(abbreviated or DOTTED.search(text))
    if text.endswith("...") or abbreviated or (DOTTED.search(text) and len(word) > 1):
        return True
    # of a vocabulary without capital letters
    return prose and text == text.lower() and bool(SENTENCE.search(text))


def _last_word(text: str) -> str:
    return re.search(r"\w*$", text)[0]
