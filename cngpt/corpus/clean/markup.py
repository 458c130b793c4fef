"""Markup that was left in: HTML tags and entities, Markdown."""

import re
from html import unescape
from html.entities import html5
from typing import Literal

from cngpt.corpus.clean.rules import RuleWithThresholds
from cngpt.settings import Field

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
_RUBY = re.compile(r"<rp>[^<>]*</rp>|<rt>\s*([^<>]*?)\s*</rt>", re.I)
_SPOKEN_OF = re.compile(
    rf"(?<=[^\s<>] )<({_BLOCK}|{_INLINE})> [^<>\n]+ </\1>(?= [^\s<>])"  # written <p> so </p> in running text
    rf"|<({_BLOCK}|{_INLINE})> ?[与和及或到] ?</\2>",  # <p>和</p>
    re.I,
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});|&nbsp\b")


def html(text: str) -> str:
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
    if "<rt>" in text:
        text = _RUBY.sub(lambda gloss: f"（{gloss[1]}）" if gloss[1] else "", text)  # 承诺（pledge）
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
    """unescape for whole names only: it would read the beginning of `&region;` as `&reg`."""
    return unescape(entity[0]) if entity[0][1] == "#" else html5.get(entity[0][1:], entity[0])


# Any of these, or the text is not looked at: a fence, a pair of marks, a link, or a mark that begins a line.
_MARK = re.compile(r"[*_#>|`\[~=+-]")
_MARKDOWN = re.compile(r"```|~~~|`|\*\*|__|\]\(|\]\[|^\[|^[ \t]*(?:#|>|\||[*+-] |[-*_=]{3})|[*_]\S", re.M)
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[^\n`]*\n(.*?)(?:^[ \t]*\1[`~]*[ \t]*$\n?|\Z)", re.M | re.S)
_FRONT_MATTER = re.compile(r"\A([^\n]*\n)?---\n(?:[\w-]+:[^\n]*\n|[ \t]+[^\n]*\n|- [^\n]*\n)+---\n")
_DEFINITION = re.compile(r"^[ \t]*\[[^\]\n]+\]:[ \t][^\n]*\n?", re.M)  # [1]: https://...
_RULER = re.compile(r"^[ \t]*(?:(?:\* *){3,}|(?:- *){3,}|(?:_ *){3,}|={3,})$\n?", re.M)
_TABLE_RULER = re.compile(
    r"^[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)+\|?[ \t]*$\n?|^[ \t]*\|[ \t]*:?-+:?[ \t]*\|[ \t]*$\n?", re.M
)
_TABLE_ROW = re.compile(r"^[ \t]*\|(.+)\|[ \t]*$", re.M)
_CELLS = re.compile(r"[ \t]*(?<!\\)\|[ \t]*")
_HEADING = re.compile(r"^[ \t]*#{1,6}[ \t]+(.*?)[ \t]*#*$", re.M)
_QUOTE = re.compile(r"^[ \t]*(?:>[ \t]?)+(?=\S)|^[ \t]*>[ \t]*$", re.M)
_ITEM = re.compile(r"^[ \t]*[*+-][ \t]+(?:\[[ xX]\][ \t]+)?(?=\S)", re.M)
_IMAGE = re.compile(r"!\[[^\]\n]*\](?:\([^()\n]*(?:\([^()\n]*\)[^()\n]*)*\)|\[[^\]\n]*\])")
_LINK = re.compile(r"\[([^\[\]\n]+)\](?:\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*(?:[ \t]+[\"'“][^\n)]*)?\)|\[\^?[\w-]*\])")
_FOOTNOTE = re.compile(r"\[\^[\w-]+\]:?")
_STRONG = re.compile(
    r"(?<![\\*])\*\*(?=[^\s*])([^\n]*?[^\s*\\])\*\*(?!\*)|(?<![\w\\])__(?![A-Za-z0-9_]+__)(?=[^\s_])([^\n]*?[^\s_\\])__(?!\w)",
    re.A,
)
# not 2*3*4, snake_case, ___, ^_^ or T_T
_EMPHASIS = re.compile(
    r"(?<![!-~])\*(?=[^\s*])([^*\n]*?[^\s*\\])\*(?![\w*])|(?<![!-~])_(?=[^\s_])([^_\n]*?[^\s_\\])_(?![!-+/-9;->@-~])", re.A
)
_STRUCK = re.compile(r"~~(?=\S)([^~\n]+)~~")
_CODE = re.compile(r"(?<!`)(`{1,2})(?!`)([^`\n]+)\1(?!`)")
_ESCAPED = re.compile(r"\\([*_#`~|\[\]])")


class Markdown(RuleWithThresholds, name="markdown"):
    """Marks go, words stay: of a link its text, of a table row its cells, of an image nothing. What only looks like a mark stays:
    2*3*4, snake_case, #话题#, ^_^.
    """

    code: Literal["keep", "drop"] = Field("keep", description="fenced blocks stay without their fences, or go")

    def __call__(self, text: str) -> str:
        if not _MARK.search(text) or not _MARKDOWN.search(text):
            return text
        text = _FRONT_MATTER.sub(lambda match: match[1] or "", text)
        parts, at = [], 0
        for fence in _FENCE.finditer(text) if "```" in text or "~~~" in text else ():
            parts += [_without_marks(text[at : fence.start()]), fence[2] if self.code == "keep" else ""]
            at = fence.end()
        return "".join([*parts, _without_marks(text[at:])])


def _without_marks(text: str) -> str:
    """Of text without fences. Code within a line is set aside first: its marks are its own."""
    codes: list[str] = []

    def set_aside(code: re.Match) -> str:
        codes.append(code[2].strip() or code[2])
        return f"\x00{len(codes) - 1}\x00"

    if "`" in text:
        text = _CODE.sub(set_aside, text.replace("\x00", ""))
    if "[" in text:
        text = _DEFINITION.sub("", text)
        text = _FOOTNOTE.sub("", _LINK.sub(r"\1", _IMAGE.sub("", text)))
    if "|" in text:
        text = _TABLE_RULER.sub("", text)
        text = _TABLE_ROW.sub(lambda row: _CELLS.sub(" ", row[1]).strip(), text)
    text = _ITEM.sub("", _QUOTE.sub("", _HEADING.sub(r"\1", _RULER.sub("", text))))
    if "*" in text or "_" in text:
        text = _STRONG.sub(lambda match: match[1] or match[2], text)
        text = _EMPHASIS.sub(lambda match: match[1] or match[2], text)
    if "~~" in text:
        text = _STRUCK.sub(r"\1", text)
    if "\\" in text:
        text = _ESCAPED.sub(r"\1", text)
    if codes:
        text = re.sub("\x00(\\d+)\x00", lambda mark: codes[int(mark[1])], text)
    return text
