"""Addresses on the web."""

import re

from cngpt.corpus.clean.rules import RuleWithThresholds, Share
from cngpt.settings import Field

_URL = re.compile(
    r"(?:https?://|ftp://|www\.)[\w\-.~:/?#\[\]@!$&'()*+,;=%]+|\b[a-z0-9][a-z0-9-]*(?:\.[a-z0-9-]+)*\.(?:com|cn|net|org|gov|edu)\b[\w\-.~:/?#@&=%+]*",
    re.I | re.A,
)
_HINT = re.compile(r"\.(?:com|cn|net|org|gov|edu)|://|www\.|\.(?:COM|CN|NET|ORG)|WWW\.")
# An address that the sentence before it does not need, with what led to it: brackets, or 详见：
_TRAILING = re.compile(
    rf"(?:[，,]?(?:详[见情]|请?参?见|网址|链接|地址|官网|来源)?[：:] *|(?<=[。！？；!?;]) *|[（(【\[<](?=[^）)】\]>]*[）)】\]>]))(?:{_URL.pattern})[）)】\]>]?[。. ]*$",
    re.I | re.A,
)
_LETTER = re.compile(r"\w")
_LABEL = 12  # letters; what is no longer than this before an address only announced it


class Urls(RuleWithThresholds, name="urls"):
    """Lines go of which addresses are more than `max`; of others an address at the end goes. Those within a sentence stay."""

    max: Share = Field(0.5, description="share of a line that addresses may be; above it the line goes")

    def __call__(self, text: str) -> str:
        if not _HINT.search(text):
            return text
        return "\n".join([kept for line in text.split("\n") if (kept := self.line(line)) is not None])

    def line(self, line: str) -> str | None:
        """None: the line goes."""
        if "." not in line or not _URL.search(line):
            return line
        rest = _URL.sub("", line)
        letters, before = len(_LETTER.findall(rest)), len(_LETTER.findall(line))
        if letters < (1 - self.max) * before:
            return None
        shorter = _TRAILING.sub("", line).rstrip()
        if shorter == line:
            return line
        return None if len(_LETTER.findall(shorter)) <= _LABEL and shorter[-1:] not in "。！？!?”" else shorter
