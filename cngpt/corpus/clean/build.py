"""The group `clean` of the configuration -> the rules that it asks for, in the order in which they work."""

import functools
import hashlib
import inspect
from collections.abc import Mapping
from importlib.metadata import version
from typing import Annotated, Any

from pydantic import PlainValidator, create_model

from cngpt.corpus.clean import characters
from cngpt.corpus.clean.boilerplate import Advertisements, boilerplate
from cngpt.corpus.clean.lines import Lines
from cngpt.corpus.clean.markup import Markdown, html
from cngpt.corpus.clean.mojibake import Mojibake
from cngpt.corpus.clean.own import OwnRule
from cngpt.corpus.clean.quality import Chinese, FlaggedWords, MaxChars, MinChars, Repetition
from cngpt.corpus.clean.rules import Rule, RuleWithThresholds
from cngpt.corpus.clean.traditional import Traditional
from cngpt.corpus.clean.urls import Urls
from cngpt.errors import ConfigError
from cngpt.settings import Field, Settings, show

VERSION = 4  # raised when the rules leave another text than before: shards made with the old ones are then made anew

# In working order: entities hide line ends and Markdown, tags leave blank lines; garbled text is repaired before its controls go
# and its characters are judged; lines go before what is left is measured. A class has thresholds, a plain function has none.
RULES: dict[str, Rule | type] = {
    "html": html,
    "mojibake": Mojibake,
    "line_ends": characters.line_ends,
    "lone_surrogates": characters.lone_surrogates,
    "invisible": characters.invisible,
    "private_use": characters.PrivateUse,
    "markdown": Markdown,
    "full_width": characters.full_width,
    "half_width": characters.half_width,
    "spaces": characters.spaces,
    "empty_brackets": characters.empty_brackets,
    "paragraphs": characters.paragraphs,
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
# a Document's text is valid Unicode in paragraphs: not a matter of choice
ALWAYS = ("line_ends", "lone_surrogates", "paragraphs")
# conf/clean/basic.yaml, for who has no conf/
BASIC = {**dict.fromkeys(("html", "mojibake", "invisible", "private_use", "spaces", "empty_brackets"), True), "min_chars": 20}


def register_rule(name: str, rule: Rule | type[RuleWithThresholds], before: str = "min_chars") -> None:
    """Adds the key clean.<name>; the rule works right before another one."""
    if name in RULES:
        raise ValueError(f"clean.{name} exists already")
    later = list(RULES)[list(RULES).index(before) :]
    RULES[name] = rule
    for key in later:
        RULES[key] = RULES.pop(key)


def settings_class() -> type[Settings]:
    """The group `clean`: a key for each rule that is there by now. What a key holds becomes a list of rules when it is checked."""
    return _settings_class(tuple((name, rule) for name, rule in RULES.items() if name not in ALWAYS))


@functools.cache
def _settings_class(rules: tuple[tuple[str, Rule | type], ...]) -> type[Settings]:
    keys = {}
    for name, rule in rules:
        what_it_does = (rule.__doc__ or "").strip().partition("\n")[0]
        keys[name] = Annotated[list, PlainValidator(functools.partial(rules_for, name))], Field([], description=what_it_does)
    clean = create_model("Clean", __base__=Settings, **keys)
    clean.group = "clean"
    return clean


def build(settings: Mapping[str, Any]) -> list[Rule]:
    """The rules for the group `clean`: rule -> false or null (off), true (its defaults), a mapping of its thresholds, or one
    value, which is its first threshold. What is not named is off. ConfigError for an unknown rule or threshold, or a wrong value.
    """
    chosen = settings_class()(**{str(name): value for name, value in settings.items()})
    return [rule for name, kind in RULES.items() for rule in ([kind] if name in ALWAYS else getattr(chosen, name))]


def rules_for(name: str, value: Any) -> list[Rule]:
    rule = RULES[name]
    if value is None or value is False:
        return []
    if rule is OwnRule:
        return own(value)
    if not isinstance(rule, type):
        if value is not True and value != {}:
            raise ConfigError(f"clean.{name}={show(value)}: true or false; it has no thresholds")
        return [rule]
    if value is True or isinstance(value, Mapping):
        return [rule(**({} if value is True else {str(key): threshold for key, threshold in value.items()}))]
    first = next(iter(rule.model_fields))
    try:
        return [rule(**{first: value})]
    except ConfigError as error:  # names the key as it was typed
        raise ConfigError(str(error).replace(f"clean.{name}.{first}=", f"clean.{name}=", 1)) from None


def own(value: Any) -> list[Rule]:
    """The rules that a user wrote: `path/to/file.py:function`, in the order given."""
    addresses = [value] if isinstance(value, str) else value
    if not isinstance(addresses, list | tuple) or not all(isinstance(address, str) for address in addresses):
        raise ConfigError(f"clean.own={show(value)}: a list [path/to/file.py:function, ...]")
    return [OwnRule.at(address) for address in addresses]


def fingerprint(settings: Mapping[str, Any]) -> str:
    """What decides the clean text: the rules with their thresholds, the user's own rules and lists by content, our version, OpenCC's."""
    rules = build(settings)
    # its phrases grow from version to version
    libraries = [f"opencc {version('opencc')}"] if any(isinstance(rule, Traditional) for rule in rules) else []
    return hashlib.sha256("\n".join([str(VERSION), *libraries, *map(describe, rules)]).encode()).hexdigest()


def describe(rule: Rule) -> str:
    """A rule with its thresholds, in words; one that a plugin registered with a hash of its file."""
    words = rule.__name__ if inspect.isfunction(rule) else repr(rule)
    kind = rule if inspect.isfunction(rule) else type(rule)
    if kind.__module__.partition(".")[0] == "cngpt":
        return words
    with open(inspect.getsourcefile(kind), "rb") as file:
        return f"{words} {hashlib.sha256(file.read()).hexdigest()}"
