"""Rules of cleaning: pure functions, text in, text out, or a Drop with the reason why the document goes."""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Drop:
    """Instead of a text: this document is not kept."""

    reason: str


Rule = Callable[[str], str | Drop]

# Only known tags count: List<String>, a<b, <T> and 《》 stay.
_BLOCK = (
    "p|br|div|li|ul|ol|tr|table|tbody|thead|tfoot|h1|h2|h3|h4|h5|h6|hr|section|article|header|footer|blockquote|dl|dt|dd|center"
    "|form|pre|title|body|html|head"
)
_VOID = "br|hr|wbr|img"
_INLINE = (
    "a|abbr|b|big|button|cite|code|em|embed|figcaption|figure|font|i|iframe|input|ins|label|link|main|map|mark|meta|nav|noscript"
    "|object|option|param|rb|rp|rt|ruby|s|select|small|source|span|strike|strong|sub|sup|svg|td|textarea|th|tt|u|video"
)
_BREAKS, _ALONE = frozenset(_BLOCK.split("|")), frozenset(_VOID.split("|"))
_ATTRIBUTES = r"""(?:\s+[\w:-]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s<>"']+)|\s+(?:disabled|checked|selected|nowrap|hidden))*"""
_TAG = re.compile(rf"<(/?)({_BLOCK}|{_VOID}|{_INLINE})({_ATTRIBUTES})\s*/?>", re.I)
_WITH_CONTENT = re.compile(r"<!--.*?-->|<(script|style)\b[^<>]*>.*?</\1\s*>|<!DOCTYPE\b[^<>]*>", re.I | re.S)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});|&nbsp\b")


def html_leftovers(text: str) -> str:
    """Tags go (those of blocks leave a line end), entities become their characters: also where they were encoded twice.

    A bare opening tag without its closing one stays: it is more often spoken of (`the <p> tag`) than left over.
    """
    for _ in range(3):
        before = text
        if "<" in text:
            text = _WITH_CONTENT.sub("", text)
            closed = {name.lower() for slash, name, _ in _TAG.findall(text) if slash}
            text = _TAG.sub(lambda tag: _without(tag, closed), text)  # noqa: B023 (called at once)
        if "&" in text:
            text = _ENTITY.sub(lambda found: html.unescape(found[0]), text)
        if text == before:
            break
    return text


def _without(tag: re.Match, closed: set[str]) -> str:
    slash, name, attributes = tag[1], tag[2].lower(), tag[3]
    if slash or attributes or name in closed or name in _ALONE:
        return "\n" if name in _BREAKS else ""
    return tag[0]


_LINE_END = re.compile("[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]\n?")


def line_ends(text: str) -> str:
    r"""Every kind of line end becomes `\n`."""
    return _LINE_END.sub("\n", text)


# Controls, soft hyphen, zero-width and direction marks, variation selectors, byte order marks, non-characters.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff]"
)


def invisible(text: str) -> str:
    """Characters that nobody sees go."""
    return _INVISIBLE.sub("", text)


_SURROGATE = re.compile("[\ud800-\udfff]")


def lone_surrogates(text: str) -> str:
    """Halves of characters become U+FFFD: they are no valid Unicode and could not be written to a file."""
    return _SURROGATE.sub("\ufffd", text)


_ODD_SPACE = re.compile("[\t\xa0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_RUN = re.compile("  +")
# Full-width punctuation brings its own space. Curly quotes are left alone: Latin text uses the same ones.
_BY_PUNCTUATION = re.compile(" (?:(?=[，。！？；：、）》】」』])|(?<=[，。！？；：、（）《》【】「」『』] ))")


def spaces(text: str) -> str:
    """Spaces of every width become one plain space, none beside full-width punctuation."""
    text = _RUN.sub(" ", _ODD_SPACE.sub(" ", text))
    return _BY_PUNCTUATION.sub("", text)


_EMPTY_BRACKETS = re.compile(
    "（[，、；：,;: ]*）"  # 经济学（，）
    "|（[，、；]*[^（）\n]{1,10}：）"  # 威尔特郡（，英文简称：）
    r"|(?<=[\u4e00-\u9fff])\( ?\)(?=[，。、；：是为])"  # 曾炯()，字炯之; but not a call of main()
)
_OPENS_WITH_COMMA = re.compile("（[，、；：]+")


def empty_brackets(text: str) -> str:
    """What Wikipedia's extractor left of foreign names: 经济学（，）是 and 经济学（，英语：Economics）是."""
    if "（" in text or "(" in text:
        text = _OPENS_WITH_COMMA.sub("（", _EMPTY_BRACKETS.sub("", text))
    return text


def paragraphs(text: str) -> str:
    r"""One `\n` between paragraphs; none is empty, or begins or ends with a space (\u3000 indents)."""
    return "\n".join([line for part in text.split("\n") if (line := part.strip())])


@dataclass(frozen=True)
class MinChars:
    """Drops documents of fewer characters."""

    characters: int

    def __call__(self, text: str) -> str | Drop:
        return text if len(text) >= self.characters else Drop(f"shorter than {self.characters} characters")
