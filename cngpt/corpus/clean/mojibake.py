"""Text that was read in the wrong encoding: repaired where the way back is certain, else out."""

import re

from cngpt.corpus.clean.rules import Drop, RuleWithThresholds, Share
from cngpt.settings import Field

# Where nothing of this is found, a text is not looked at more closely. 锛紝銆鐨殑 are what ，。的 become when UTF-8 is read as GBK.
_HIGH = "\x80-\xff€‚ƒ„†‡ˆ‰Š‹ŒŽ•˜™š›œžŸ"  # without …‘’“”–—, which Chinese text uses
# Not line end, space, soft hyphen, ·, × and °, which are in clean text too.
_ODD = _HIGH.replace("\x80-\xff", "\x80-\x84\x86-\x9f\xa1-\xac\xae\xaf\xb1-\xb6\xb8-\xd6\xd8-\xff")
_STRANGE = re.compile(f"[{_ODD}\ufffd锟锛紝銆鐨殑]")  # one set of characters is found fastest
_SUSPECT = re.compile(f"[{_ODD}][{_HIGH}]{{2}}|\ufffd|锟|锛|紝|銆|鐨|殑")
_RUN = re.compile(f"[{_HIGH}…‘’“”–—][{_HIGH}…‘’“”–—\t -~]*[{_HIGH}…‘’“”–—]")
_TIGHT = re.compile(f"[{_HIGH}…‘’“”–—]{{4,}}")
_BYTE = {ord(c): bytes([b]) for b in range(0x80, 0xA0) if (c := bytes([b]).decode("cp1252", "ignore"))}
_BYTE |= {b: bytes([b]) for b in range(256)}
_CHINESE = re.compile("[\u4e00-\u9fff\u3001-\u3011\uff01-\uff5e]")
_LATIN = re.compile(f"[{_ODD}]")
# The characters that three-byte UTF-8 becomes in GBK: first byte E4 to E9, second 80 to BF. Many of them are common in no text.
_AS_GBK = re.compile(
    "[" + "".join(bytes([a, b]).decode("gbk", "ignore") for a in range(0xE4, 0xEA) for b in range(0x80, 0xC0)) + "锛锟斤拷]"
)


class Mojibake(RuleWithThresholds, name="mojibake"):
    """Repairs what a round trip through the two encodings proves; other garbled lines go, and with them the document when they
    make up more than `max` of it. Recognised: UTF-8 or GBK read as Latin-1, UTF-8 read as GBK, bytes lost to U+FFFD or 锟斤拷."""

    max: Share = Field(0.1, description="share of the document that garbled lines may be; above it the document goes")
    repair: bool = Field(True, description="false: garbled lines go, without an attempt to repair them")

    def __call__(self, text: str) -> str | Drop:
        if not _STRANGE.search(text) or not _SUSPECT.search(text):
            return text
        lines = text.split("\n")
        if self.repair:
            before = lines
            lines = [repaired(line) if _SUSPECT.search(line) else line for line in lines]
            if lines != before:  # what was proved on one line holds for its short neighbours
                lines = [repaired(line, least=2) if _LATIN.search(line) else line for line in lines]
        garbled = [bool(_SUSPECT.search(line)) and is_garbled(line) for line in lines]
        if any(garbled):
            lost = sum(len(line) for line, gone in zip(lines, garbled, strict=True) if gone)
            if lost > self.max * sum(map(len, lines)):
                return Drop("mojibake")
            lines = [line for line, gone in zip(lines, garbled, strict=True) if not gone]
        return "\n".join(lines)


def repaired(line: str, least: int = 4) -> str:
    """The line as it was written, where that is certain; else as it came. least: characters of GBK that prove it."""
    for _ in range(2):  # read wrongly twice
        before = line
        line = _from_gbk(line)
        for run in _RUN, _TIGHT:
            line = run.sub(lambda match: _from_latin(match[0], least), line)
        if line == before:
            break
    return line


def is_garbled(line: str) -> bool:
    """Whether a reader could make nothing of it."""
    size = max(1, len(line))
    if line.count("\ufffd") > 0.05 * size or 3 * line.count("锟斤拷") > max(3, 0.05 * size):
        return True
    return len(_AS_GBK.findall(line)) > 0.25 * size or len(_LATIN.findall(line)) > 0.3 * size


def _from_latin(run: str, least: int) -> str:
    if not _LATIN.search(run):
        return run
    data = b"".join([_BYTE[ord(c)] for c in run])
    try:
        text = data.decode("utf-8")
        return text if len(_CHINESE.findall(text)) >= 0.6 * len(_foreign(text)) else run
    except UnicodeDecodeError:
        pass
    try:
        text = data.decode("gb18030")
    except UnicodeDecodeError:
        return run
    foreign = _foreign(text)
    certain = len(set(foreign)) >= min(3, least) and len(foreign) >= least
    return text if certain and sum(map(_is_common, foreign)) >= 0.8 * len(foreign) else run


def _foreign(text: str) -> list[str]:
    return [c for c in text if c > "\x7f"]


def _is_common(character: str) -> bool:
    """One of the 3,755 characters of GB2312's first level, or its punctuation."""
    first = character.encode("gb2312", "ignore")[:1]
    return b"\xa1" <= first <= b"\xa3" or b"\xb0" <= first <= b"\xd7"


def _from_gbk(line: str) -> str:
    if len(_AS_GBK.findall(line)) < 3:
        return line
    try:
        text = line.encode("gbk").decode("utf-8")
    except UnicodeError:
        return line
    return text if len(_CHINESE.findall(text)) >= 3 else line
