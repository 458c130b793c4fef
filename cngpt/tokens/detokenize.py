"""From WordPiece tokens back to text that a reader would print."""

import re
from collections.abc import Callable, Iterable

ADDRESS = re.compile(r"://|^www\.|@")  # in the run since the last space: from here on a dot ends no sentence


def detokenize(tokens: Iterable[str], stands_alone: Callable[[str], bool]) -> str:
    """The tokens as text; `##x` goes on with the word before it, "\n" ends a line.

    Two words that would melt into one get a space; that much is needed for the text to encode to the same ids again. Chinese
    characters and Chinese punctuation have no spaces around them, beside Latin words neither: 在Linux 7.0上. After and before
    ASCII punctuation a space is put where English prose has one, not in numbers (3.14, 1,234, 19:00), addresses, hyphenated
    words and names of files; the spaces of the original are gone, so this is a guess.
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
    opens_quote = first == '"' and text.count('"', line) % 2 == 0
    if word_before and last.isascii():
        return first == "(" or opens_quote
    if not last.isascii() or ADDRESS.search(text, run):
        return False
    if last in ",;!?" and (first == "(" or opens_quote):
        return True
    return word_after and first.isalnum() and _space_after(text[-2:-1], last, token, text.count('"', line))


def _space_after(before: str, mark: str, word: str, quotes: int) -> bool:
    """Whether there is a space between an ASCII punctuation mark and the word after it; `before` is what stands before the mark."""
    if mark in ")]}%":
        return True
    if mark == '"':
        return quotes % 2 == 0
    if mark in ",;!?":
        return not (before.isdigit() and word[0].isdigit())
    if mark == ":":
        return before.isalpha() and word[0].isalpha()
    if mark == ".":  # "the end. Next", but node.js, 7.0, U.S.A
        return word[0].isupper() and not (before.isupper() and len(word) == 1)
    return False
