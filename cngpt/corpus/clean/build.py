"""The group `clean` of the configuration -> the rules that it asks for, in the order in which they work."""

import dataclasses
import hashlib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Annotated, Any, Literal, get_args, get_origin

from cngpt.corpus.clean.boilerplate import Advertisements, boilerplate
from cngpt.corpus.clean.characters import (
    PrivateUse,
    empty_brackets,
    full_width,
    half_width,
    invisible,
    line_ends,
    lone_surrogates,
    paragraphs,
    spaces,
)
from cngpt.corpus.clean.lines import Lines
from cngpt.corpus.clean.markup import Markdown, html
from cngpt.corpus.clean.mojibake import Mojibake
from cngpt.corpus.clean.own import OwnRule
from cngpt.corpus.clean.quality import Chinese, FlaggedWords, MaxChars, MinChars, Repetition
from cngpt.corpus.clean.rules import Rule
from cngpt.corpus.clean.traditional import Traditional
from cngpt.corpus.clean.urls import Urls
from cngpt.errors import ConfigError, nearest

VERSION = 4  # raised when the rules leave another text than before: shards made with the old ones are then made anew

# In working order: entities hide line ends and Markdown, tags leave blank lines; garbled text is repaired before its controls go
# and its characters are judged; lines go before what is left is measured. A class has thresholds, a plain function has none.
RULES: dict[str, Rule | type] = {
    "html": html,
    "mojibake": Mojibake,
    "line_ends": line_ends,
    "lone_surrogates": lone_surrogates,
    "invisible": invisible,
    "private_use": PrivateUse,
    "markdown": Markdown,
    "full_width": full_width,
    "half_width": half_width,
    "spaces": spaces,
    "empty_brackets": empty_brackets,
    "paragraphs": paragraphs,
    "traditional": Traditional,
    "urls": Urls,
    "boilerplate": boilerplate,
    "advertisements": Advertisements,
    "lines": Lines,
    "chinese": Chinese,
    "repetition": Repetition,
    "flagged_words": FlaggedWords,
    "own": OwnRule,
    "min_chars": MinChars,
    "max_chars": MaxChars,
}
ALWAYS = (
    "line_ends",
    "lone_surrogates",
    "paragraphs",
)  # a Document's text is valid Unicode in paragraphs: not a matter of choice
BASIC = (
    "html",
    "mojibake",
    "invisible",
    "private_use",
    "spaces",
    "empty_brackets",
)  # conf/clean/basic.yaml, for who has no conf/


def build(settings: Mapping[str, Any]) -> list[Rule]:
    """The rules for the group `clean`: rule -> false or null (off), true (its defaults), a mapping of its thresholds, or one
    value, which is its first threshold. What is not named is off. ConfigError for an unknown rule or threshold, or a wrong value.
    """
    choices = [name for name in RULES if name not in ALWAYS]
    for name in settings:
        if name not in choices:
            raise ConfigError(f"clean.{name}: no such rule; one of {', '.join(choices)}.{nearest(str(name), choices)}")
    rules: list[Rule] = []
    for name, kind in RULES.items():
        if name in ALWAYS:
            rules.append(kind)
        elif name == "own":
            rules += own(settings.get(name))
        else:
            value = settings.get(name)
            rules += [] if value is None or value is False else [make(name, kind, value)]
    return rules


def basic(min_chars: int = 20) -> list[Rule]:
    """The rules for any text."""
    return build({**dict.fromkeys(BASIC, True), "min_chars": min_chars})


def fingerprint(settings: Mapping[str, Any]) -> str:
    """What decides the clean text: the rules with their thresholds, the user's own rules and lists by content, our version, OpenCC's."""
    rules = build(settings)
    # its phrases grow from version to version
    libraries = [f"opencc {version('opencc')}"] if any(isinstance(rule, Traditional) for rule in rules) else []
    return hashlib.sha256("\n".join([str(VERSION), *libraries, *map(describe, rules)]).encode()).hexdigest()


def describe(rule: Rule) -> str:
    """A rule with its thresholds, in words."""
    return repr(rule) if dataclasses.is_dataclass(rule) else rule.__name__


def make(name: str, kind: Callable, value: Any) -> Rule:
    """One rule from its setting."""
    known = {} if not isinstance(kind, type) else dict(inspect.signature(kind).parameters)
    if value is True:
        given = {}
    elif isinstance(value, Mapping):
        given = dict(value)
    elif known:
        given = {next(iter(known)): value}
    else:
        raise ConfigError(f"clean.{name}={shown(value)}: true or false; it has no thresholds")
    for key in given:
        if key not in known:
            allowed = f"only {', '.join(known)}" if known else "it has none: true or false"
            raise ConfigError(f"clean.{name}.{key}: no such threshold, {allowed}.{nearest(str(key), known)}")
    if not isinstance(kind, type):
        return kind
    for key, threshold in given.items():
        place = f"clean.{name}.{key}" if isinstance(value, Mapping) else f"clean.{name}"
        wrong = complaint(known[key].annotation, threshold)
        if wrong:
            raise ConfigError(f"{place}={shown(threshold)}: {wrong}")
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in given:
            raise ConfigError(f"clean.{name}={shown(value)}: {key} is needed, as in clean.{name}=<{key}>")
    try:
        return kind(**given)
    except ConfigError as error:
        raise ConfigError(f"clean.{name}={shown(value)}: {error}") from None


def complaint(kind: Any, value: Any) -> str | None:
    """What is wrong with the value of a threshold, if anything."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return None if value in choices else f"one of {', '.join(choices)}.{nearest(str(value), choices)}"
    if kind is bool:
        return None if isinstance(value, bool) else "true or false"
    if kind is str:
        return None if isinstance(value, str) and value else "a path"
    if kind is int:
        return None if number and isinstance(value, int) and value >= 0 else "a whole number, 0 or more"
    if get_origin(kind) is Annotated:
        return None if number and 0 <= value <= 1 else "a share from 0 to 1"
    return None if number and value >= 0 else "a number, 0 or more"


def own(value: Any) -> list[Rule]:
    """The rules that a user wrote: `path/to/file.py:function`, in the order given."""
    if value in (None, False, []):
        return []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple) or not all(isinstance(place, str) for place in value):
        raise ConfigError(f"clean.own={shown(value)}: a list [path/to/file.py:function, ...]")
    return [OwnRule.at(place) for place in value]


def shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {shown(v)}" for k, v in value.items()) + "}"
    return f"[{', '.join(map(shown, value))}]" if isinstance(value, list | tuple) else str(value)
