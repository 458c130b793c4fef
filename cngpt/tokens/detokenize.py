"""From WordPiece tokens back to text that a reader would print."""

import re
from collections.abc import Callable, Iterable

ADDRESS = re.compile(r"://|^www\.|@")  # in the run since the last space: from here on a dot ends no sentence
REACH = 24  # characters to look back for Chinese, and for a space or a letter of Greek, Russian, Arabic, ...
CHINESE = re.compile("[\u2e80-\uabff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef\U00020000-\U0003ffff]")  # and Japanese
SUFFIX = re.compile("s|t|re|ve|ll|d|m|em|clock", re.I)  # don't, o'clock
ABBREVIATION = re.compile("vs|etc|al|cf|no|fig|sec|ch|vol|pp|v|eq|approx", re.I)  # a small letter or a digit may follow its dot
BEFORE_QUOTE = re.compile(
    r"\b(a|an|and|are|as|at|by|called|for|from|in|is|like|named|of|on|or|said|says|see|the|thus|to|use|with)$", re.I
)
SPACED = re.compile("[ \u0370-\u1fff\uac00-\ud7af]")
KOREAN = re.compile("[\uac00-\ud7af]")
RUSSIAN = re.compile("[\u0400-\u04ff]")
FILE = re.compile("[a-z]|cc|cn|co|com|conf|cpp|css|csv|edu|exe|gov|gz|html|io|java|jpg|js|json|md|mp[34]|net|org|pdf|php|png|py|rs|sh|so|sql|tar|ts|tv|txt|uk|us|wav|xml|ya?ml|zip")  # fmt: skip
DOTTED = re.compile(r"(?:^|[^\w.])[^\W\d]\.[^\W\d]\.$")  # e.g. i.e. p.m. U.S.
SENTENCE = re.compile(r"(^|[ \"'(])\w+,? \w+,? [\w'-]{2,}\.$|\w \([\w' -]+\)\.$")  # its end: three words at the least


def detokenize(tokens: Iterable[str], stands_alone: Callable[[str], bool]) -> str:
    """The tokens as text; `##x` goes on with the word before it, "\\n" ends a line.

    Two words that would melt into one get a space; that much is needed for the text to encode to the same ids again. Chinese
    characters and Chinese punctuation have no spaces around them, beside Latin words neither: 在Linux 7.0上. After and before
    other punctuation a space is put where prose has one, not in numbers (3.14, 1,234, 19:00), addresses, hyphenated
    words and names of files; the spaces of the original are gone, so this is a guess. It looks back only, so that a
    text can be shown while it is written.
    """
    text = ""
    line = run = 0  # where the line began, and the stretch without a space
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
    if last >= "\u2e80" and not word_before:
        return False  # a Chinese character or mark
    if ADDRESS.search(text, run):
        return word_before and last.isascii() and (first == "(" or (first == '"' and text.count('"', line) % 2 == 0))
    here = text[max(line, len(text) - REACH) :]
    prose = bool(SPACED.search(here)) and not CHINESE.search(here)
    if not word_after:
        return _opens(text, line, first, prose) and _room_before(text, line, first, word_before, prose)
    if not first.isalnum() or not _spaced(first):
        return False
    return _space_after(text, line, token, prose)


def _spaced(char: str) -> bool:
    """Whether it is of a script that has spaces between words."""
    return char.isalnum() and (char < "\u2e80" or "\uac00" <= char <= "\ud7af")


def _opens(text: str, line: int, mark: str, prose: bool) -> bool:
    """Whether `mark` begins something and has a space before it, once there is room for one."""
    if mark == "'":
        return prose if not text[-1].isalnum() else bool(BEFORE_QUOTE.search(text))
    if mark in '"`':
        return text.count(mark, line) % 2 == 0 and (mark == '"' or prose)
    if mark == "“" and text.count("„", line) > text.count("“", line):
        return False  # as Germans close
    return mark in "(«„¿¡" or (prose and mark in "$“‘&—–")


def _room_before(text: str, line: int, mark: str, word_before: bool, prose: bool) -> bool:
    """Whether what stands before an opening mark keeps its distance."""
    last, before = text[-1], text[-2:-1]
    if mark in "—–":
        return bool(RUSSIAN.search(text[-4:]))  # Russian has spaces around its dash
    if mark == "&":
        word = _last_word(text)
        return len(word) > 2 and not word.isupper()
    if word_before:
        return _spaced(last) and (mark != "$" or last.islower())
    if last in ",;!?":
        return True
    if last in ".:":
        return _spaced(before) and (mark != "(" or before.islower())
    closes = last in ")”»" or (last in "'’" and mark == "(") or (last == '"' and text.count(last, line) % 2 == 0)
    return prose and closes and mark not in "$'"


def _space_after(text: str, line: int, word: str, prose: bool) -> bool:
    """Whether there is a space between the punctuation mark that ends `text` and the word after it."""
    mark, before = text[-1], text[-2:-1]
    if KOREAN.match(word) and mark in ')]}%"”’':
        return False  # a particle: "네"라고
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
    """text: the line so far. Not in don't and O'Brien; after users' and 'quoted' there is one."""
    if text[-2:-1] in ("", " ", "(", "[", '"') or SUFFIX.fullmatch(word):
        return False
    opened = max(text.rfind(" '", 0, -1), text.rfind("('", 0, -1), text.rfind(" ‘"), 0 if text[0] in "'‘" else -1)
    closed = re.search(r"['’](?![^\W_])", text[opened + 2 : -1]) if opened >= 0 else True
    return not closed or (text[-2] in "sS" and len(word) > 1)


def _after_dot(text: str, before: str, word: str, prose: bool) -> bool:
    """text: the line so far. "the end. Next", "e.g. this", but node.js, 7.0, U.S.A"""
    if word[0].isalpha() and not word[0].islower():  # a capital letter, or of a script without them
        return not (before.isupper() and len(word) == 1)
    abbreviated = ABBREVIATION.fullmatch(_last_word(text[:-1]))
    if word[0].isdigit():
        return prose and bool(abbreviated or DOTTED.search(text))
    if text.endswith("...") or re.fullmatch(r"\d+\.", text):
        return len(text) > 3 and len(word) > 1
    if abbreviated or (DOTTED.search(text) and len(word) > 1):
        return True
    return prose and not FILE.fullmatch(word) and text == text.lower() and bool(SENTENCE.search(text))  # an uncased vocabulary


def _last_word(text: str) -> str:
    return re.search(r"\w*$", text)[0]
