"""Single characters and the white space between them."""

import re

from cngpt.corpus.clean.rules import Drop, RuleWithThresholds, Share
from cngpt.settings import Field

_LINE_END = re.compile("[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]\n?")


def line_ends(text: str) -> str:
    r"""Every kind of line end becomes `\n`."""
    return _LINE_END.sub("\n", text)


# Controls, soft hyphen, zero-width and direction marks, variation selectors, byte order marks, non-characters.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff]"
)
# Joiners are letters' business in Arabic and Indic scripts (می‌خواهم, क्‍ष) and make one emoji of several (👨‍👩‍👧); elsewhere nobody sees them.
_JOINER = re.compile("[\u200c\u200d]+")
_JOINED = "[\u0600-\u08ff\u0900-\u0dff\u1000-\u109f\u1780-\u17ff\u2600-\u27bf\U0001f000-\U0001faff]"
_IDLE_JOINER = re.compile(f"(?<!{_JOINED})[\u200c\u200d]+|[\u200c\u200d]+(?!{_JOINED})")


def invisible(text: str) -> str:
    """Characters that nobody sees go."""
    text = _INVISIBLE.sub("", text)
    return _IDLE_JOINER.sub("", text) if _JOINER.search(text) else text


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


_FULL_DIGIT = "０-９"
_FULL = "０-９Ａ-Ｚａ-ｚ"
_FULL_ANY = re.compile(f"[{_FULL}％－]")
_TO_ASCII = {c: c - 0xFEE0 for c in range(0xFF01, 0xFF5F)}
# A mark between full-width digits belongs to the number, as a percent sign does after any digit: ２３．５％, １２：３０, Ｆ－１６, 歼－２０
_FULL_WORD = re.compile(
    f"(?:(?<=[\u4e00-\u9fff])－)?[{_FULL}]+(?:(?:[．－／＆＋][{_FULL}]+|(?<=[{_FULL_DIGIT}])(?:：[{_FULL_DIGIT}]+|，[{_FULL_DIGIT}]{{3}}(?![{_FULL_DIGIT}]))))*％?|(?<=[0-9])％|(?<=[\u4e00-\u9fff])－(?=[0-9])"
)


def full_width(text: str) -> str:
    """Full-width letters and digits become ASCII; never punctuation."""
    if not _FULL_ANY.search(text):
        return text
    return _FULL_WORD.sub(lambda word: word[0].translate(_TO_ASCII), text)


_HAN = "\u4e00-\u9fff"
_OPENS, _CLOSES = "“‘（《「『【", "”’）》」』】"
_HALF_WIDTH = re.compile(
    f"(?<=[{_HAN}{_CLOSES}]) ?[,;:?!](?=[{_HAN}{_OPENS} \\n]|\\Z)"  # 好,对
    f"|(?<=[{_HAN}{_CLOSES}]) ?,(?=[0-9A-Za-z])|(?<=[0-9A-Za-z%)]) ?,(?=[{_HAN}{_OPENS}])"  # 持平,14家 and 25%,对: no thousands
    f"|(?<=[0-9A-Za-z%]) ,(?=[0-9A-Za-z.%]{{1,12}}[{_HAN}])"  # 8% ,31个
)
_HALF_ANY = re.compile(f"[,;:?!](?:[{_HAN}{_OPENS} \\n]|\\Z|(?<=[{_HAN}{_CLOSES}],)[0-9A-Za-z])")
_WIDE = {",": "，", ";": "；", ":": "：", "?": "？", "!": "！"}


def half_width(text: str) -> str:
    """ASCII punctuation between Chinese characters becomes Chinese punctuation; full stops, which end numbers too, stay."""
    if " ," not in text and not _HALF_ANY.search(text):
        return text
    return _HALF_WIDTH.sub(lambda mark: _WIDE[mark[0].strip()], text)


_PRIVATE = re.compile("[\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd]")


class PrivateUse(RuleWithThresholds, name="private_use"):
    """Characters of the private-use areas, which mean something on one machine only, go; a document that has more than `max` of
    them goes."""

    max: Share = Field(0.1, description="share of such characters above which the document goes")

    def __call__(self, text: str) -> str | Drop:
        rest = _PRIVATE.sub("", text)
        return rest if len(text) - len(rest) <= self.max * len(text) else Drop("private-use characters")
