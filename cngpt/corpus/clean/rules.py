"""Rules of cleaning: pure functions, text in, text out, or a Drop with the reason why the document goes."""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from html.entities import html5


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
_SPOKEN_OF = re.compile(
    rf"(?<=[^\s<>] )<({_BLOCK}|{_INLINE})> [^<>\n]+ </\1>(?= [^\s<>])"  # written <p> so </p> in running text
    rf"|<({_BLOCK}|{_INLINE})> ?[与和及或到] ?</\2>",  # <p>和</p>
    re.I,
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});|&nbsp\b")


def html_leftovers(text: str) -> str:
    """Tags go (those of blocks leave a line end), entities become their characters: also where they were encoded twice.

    What is more often spoken of than left over stays: a bare opening tag without its closing one (`the <p> tag`), a bare pair
    with spaces around both or one word between them (`<p> and </p>`), and escaped tags (`&lt;p&gt;` becomes `<p>`), unless
    the whole text was escaped.
    """
    if "&lt;" in text and _is_escaped_whole(text):
        text = _ENTITY.sub(_character, text)
    if "<" in text:
        text = _without_tags(text)
    for _ in range(3 if "&" in text else 0):
        before = text
        text = _ENTITY.sub(_character, text)
        if text == before:
            break
    return text


def _without_tags(text: str) -> str:
    text = _WITH_CONTENT.sub("", text)
    spoken_of = set()
    for pair in _SPOKEN_OF.finditer(text):
        spoken_of |= {pair.start(), text.rindex("</", 0, pair.end())}
    closed = {tag[2].lower() for tag in _TAG.finditer(text) if tag[1] and tag.start() not in spoken_of}

    def without(tag: re.Match) -> str:
        slash, name, attributes = tag[1], tag[2].lower(), tag[3]
        if tag.start() not in spoken_of and (slash or attributes or name in closed or name in _ALONE):
            return "\n" if name in _BREAKS else ""
        return tag[0]

    return _TAG.sub(without, text)


def _is_escaped_whole(text: str) -> bool:
    """No tag is plain, and at least half of the lines (a title is none) begin and end with the escaped tag of a block."""
    if _TAG.search(text) or _WITH_CONTENT.search(text):
        return False
    lines = [line for part in _ENTITY.sub(_character, text).split("\n") if (line := part.strip())]
    return 2 * sum(map(_is_between_blocks, lines)) >= len(lines)


def _is_between_blocks(line: str) -> bool:
    first, last = _TAG.match(line), _TAG.match(line, max(0, line.rfind("<")))
    return bool(first and last and {first[2].lower(), last[2].lower()} <= _BREAKS and last.end() == len(line))


def _character(entity: re.Match) -> str:
    """html.unescape for whole names only: it would read the beginning of `&region;` as `&reg`."""
    return html.unescape(entity[0]) if entity[0][1] == "#" else html5.get(entity[0][1:], entity[0])


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


_LANGUAGES = (
    "英|法|德|日|俄|韩|朝鲜|西班牙|葡萄牙|意大利|拉丁|希腊|荷兰|瑞典|挪威|丹麦|芬兰|波兰|捷克|匈牙利|土耳其|阿拉伯|越南|泰|琉球"
)
_EMPTY_BRACKETS = re.compile(
    "(?<!号)（ ?[，、；：,;:][，、；：,;: ]*）"  # 姆拉登·佩特里奇（，）; but not the sign itself, 逗号（，）
    "|（[，、；]+[^（）\n]{1,10}：）"  # 威尔特郡（，英文简称：）
    f"|（(?:学名|(?:{_LANGUAGES})[语文])：）"  # 松鸦（学名：）; but not the blank of 注意（说明：）
)
_OPENS_WITH_COMMA = re.compile("（[，、；：]+(?=[^，、；：）])")
_NESTED = 20  # brackets within brackets that are looked through


def empty_brackets(text: str) -> str:
    """What Wikipedia's extractor left of foreign names: 经济学（，）是 and 经济学（，英语：Economics）是.

    Brackets with nothing but space in them stay: far more of them are blanks to be filled in, （　）, or calls, main().
    """
    for _ in range(_NESTED if "（" in text else 0):
        before = text
        text = _OPENS_WITH_COMMA.sub("（", _EMPTY_BRACKETS.sub("", text))
        if text == before:
            break
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
