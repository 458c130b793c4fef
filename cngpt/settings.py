"""How a room declares what it takes, and how what a user typed wrong becomes one line.

    class Sampling(Settings, group="generation"):
        temperature: float = Field(0.9, ge=0, description="0: the likeliest token each time")

    Sampling(temperature=-1)      ConfigError: generation.temperature=-1: must be 0 or more

A class states types, ranges, choices and a line of doc for each key once; errors and `--help` are made from that.
"""

import functools
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from cngpt.errors import ConfigError, nearest

__all__ = [
    "Chosen",
    "Field",
    "Hints",
    "OneOf",
    "Positive",
    "PositiveNumber",
    "PositiveOrAuto",
    "Settings",
    "Text",
    "allowed",
    "keys_of",
    "show",
]


@dataclass(frozen=True)
class Hints:
    """Words that people try for a key; an unknown key of this name is answered with the right one."""

    words: tuple[str, ...]

    def __init__(self, *words: str):
        object.__setattr__(self, "words", words)


@dataclass(frozen=True)
class OneOf:
    """A text that is a name in a registry, which may still grow: Annotated[str, OneOf(BLOCKS)]."""

    registry: Mapping[str, Any]

    def __get_pydantic_core_schema__(self, source, handler):
        from pydantic_core import core_schema

        def check(value: str) -> str:
            if value not in self.registry:
                raise ValueError("not one of the choices")
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))


def _as_text(value: Any) -> Any:
    """What was typed without quotes may have become a number: name=2024 is a name."""
    return show(value) if isinstance(value, int | float) else value


Text = Annotated[str, BeforeValidator(_as_text)]
Positive = Annotated[int, annotated_types.Gt(0)]
PositiveOrAuto = Positive | Literal["auto"]
PositiveNumber = Annotated[float, annotated_types.Gt(0)]


@dataclass(frozen=True)
class Chosen:
    """Settings whose class depends on one of their keys: Annotated[Settings, Chosen(OPTIMIZERS, "optim")]."""

    registry: Mapping[str, type["Settings"]]
    group: str
    by: str = "name"

    def __get_pydantic_core_schema__(self, source, handler):
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self.make)

    def make(self, value: Any) -> "Settings":
        if isinstance(value, Settings):
            return value
        if not isinstance(value, Mapping):
            raise ConfigError(f"{self.group}={show(value)}: a group of keys is needed")
        return self.class_of(value)(**{str(key): v for key, v in value.items()})

    def class_of(self, value: Mapping) -> type["Settings"]:
        name = value.get(self.by)
        if name not in self.registry:
            key = f"{self.group}.{self.by}"
            raise ConfigError(f"{key}={show(name)}: one of {', '.join(self.registry)}.{nearest(str(name), self.registry)}")
        return self.registry[name]


@dataclass(frozen=True)
class Made:
    """Settings whose class is made when it is asked for, from a registry that may still grow: Annotated[Settings, Made(rules_class)]."""

    make_class: Callable[[], type["Settings"]]

    def __get_pydantic_core_schema__(self, source, handler):
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self.make)

    def make(self, value: Any) -> "Settings":
        if isinstance(value, Settings):
            return value
        made = self.make_class()
        if not isinstance(value, Mapping):
            raise ConfigError(f"{made.group}={show(value)}: a group of keys is needed")
        return made(**{str(key): v for key, v in value.items()})


class Settings(BaseModel):
    """Frozen, checked when it is made: whatever is wrong raises ConfigError, one line that begins with the key."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    group: ClassVar[str] = ""  # what stands before its keys: "generation"
    renamed: ClassVar[Mapping[str, str]] = {}  # a key of earlier versions -> what to type instead: "generation.compat=gpt2ml"

    def __init_subclass__(cls, group: str | None = None, **options):
        super().__init_subclass__(**options)
        if group is not None:
            cls.group = group

    def __init__(self, /, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(self._explain(error, values)) from None

    @classmethod
    def extended(cls, fields: Mapping[str, Any]) -> type[Self]:
        """A subclass with more keys: {name: (type, default or Field)}; the same class for the same keys."""
        return _extended(cls, tuple(fields.items()))

    @classmethod
    def key(cls, name: str) -> str:
        """A key as a user types it."""
        return f"{cls.group}.{name}" if cls.group else name

    @classmethod
    def _explain(cls, error: ValidationError, values: Mapping[str, Any]) -> str:
        errors = error.errors(include_url=False)
        # a misspelled key is often a missing one, too
        first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError) or not first["loc"]:  # of a group in this one, or of several keys together
            return str(cause or first["msg"])
        name = str(first["loc"][0])
        key, field = cls.key(name), cls.field(name)
        if first["type"] == "missing":
            chosen = next((item for item in field.metadata if isinstance(item, Chosen)), None)
            what = f"one of {', '.join(chosen.registry)}" if chosen else field.description
            return f"{key}=... is needed{f': {what}' if what else ''}"
        if field is None:
            return cls.unknown(name)
        value = show(values.get(name))
        if first["type"] == "value_error" and not _is_one_of(field):
            return f"{key}={value}: {cause}"
        return f"{key}={value}: {_complaint(key, field, values.get(name))}"

    @classmethod
    def unknown(cls, name: str) -> str:
        """What is said of a key that the class does not have."""
        if name in cls.renamed:
            return f"{cls.key(name)}: there is no such key any more; take {cls.renamed[name]}"
        names = [field.alias or name for name, field in cls.model_fields.items()]
        hinted = next((n for n, field in cls.model_fields.items() if name in hints_of(field)), None)
        hint = f" Did you mean {cls.key(hinted)}?" if hinted else nearest(name, names)
        if not cls.group:
            return f"{name}: no such group or key.{hint} python run.py --help lists them"
        return f"{cls.key(name)}: no such key; {cls.group} takes {', '.join(names)}.{hint}"

    @classmethod
    def field(cls, name: str) -> FieldInfo | None:
        """The declaration of a key, by the name under which it is typed."""
        return next((f for n, f in cls.model_fields.items() if (f.alias or n) == name), None)


@functools.cache
def _extended(cls: type[Settings], fields: tuple[tuple[str, Any], ...]) -> type[Settings]:
    return create_model(cls.__name__, __base__=cls, **dict(fields))


def hints_of(field: FieldInfo) -> tuple[str, ...]:
    return tuple(word for item in field.metadata if isinstance(item, Hints) for word in item.words)


def show(value: Any) -> str:
    """A value as it is typed on the command line."""
    if value is None or isinstance(value, bool):
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {show(v)}" for key, v in value.items()) + "}"
    return f"[{', '.join(map(show, value))}]" if isinstance(value, list | tuple) else str(value)


def allowed(field: FieldInfo) -> str:
    """What a key takes, in words: "a whole number above 0, or auto"."""
    parts, words = _kinds(field.annotation, field.metadata)
    range_ = _range(field.metadata)
    if parts and range_:
        parts[0] = f"{parts[0]} {range_}"
    return ", or ".join([*parts, *words])


def _kinds(annotation: Any, metadata: list) -> tuple[list[str], list[str]]:
    """(kinds of value, single words such as auto and null)."""
    if one_of := next((item for item in metadata if isinstance(item, OneOf)), None):
        return [f"one of {', '.join(one_of.registry)}"], []
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        parts, words = _kinds(inner, more)
        if parts and (range_ := _range(more)):
            parts[0] = f"{parts[0]} {range_}"
        return parts, words
    if get_origin(annotation) in (Union, types.UnionType):
        parts, words = [], []
        for option in get_args(annotation):
            more_parts, more_words = _kinds(option, [])
            word = get_origin(option) is Literal and len(get_args(option)) == 1
            parts += [] if word else more_parts
            words += get_args(option) if word else more_words
        return parts, words
    if get_origin(annotation) is Literal:
        return [f"one of {', '.join(map(show, get_args(annotation)))}"], []
    if annotation is type(None):
        return [], ["null"]
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    if annotation in names:
        return [names[annotation]], []
    if get_origin(annotation) is list:
        length = next((item.min_length for item in metadata if isinstance(item, annotated_types.MinLen)), None)
        return [f"a list of {length}, [a,b]" if length else "a list [a,b]"], []
    return ["a group of keys"], []


def _range(metadata: list) -> str:
    low = next((item for item in metadata if isinstance(item, annotated_types.Gt | annotated_types.Ge)), None)
    high = next((item for item in metadata if isinstance(item, annotated_types.Lt | annotated_types.Le)), None)
    below = "" if high is None else f"below {high.lt:g}" if isinstance(high, annotated_types.Lt) else f"up to {high.le:g}"
    if low is None:
        return below
    if isinstance(low, annotated_types.Gt):
        return f"above {low.gt:g}" + (f" and {below}" if below else "")
    if isinstance(high, annotated_types.Le):
        return f"from {low.ge:g} to {high.le:g}"
    return f"{low.ge:g} or more" + (f" and {below}" if below else "")


def _is_one_of(field: FieldInfo) -> bool:
    return any(isinstance(item, OneOf) for item in field.metadata)


def _complaint(key: str, field: FieldInfo, value: Any) -> str:
    """What is wrong with a value: its kind, its range, or that it is none of the choices."""
    text = allowed(field)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match = re.fullmatch(r"a (whole )?number (.+)", text)
    if number and match and (not match[1] or isinstance(value, int)):
        return f"must be {match[2]}"
    if text.startswith("one of") and value is not None:
        return f"{text}.{nearest(show(value), re.split(', (?:or )?', text.removeprefix('one of ')))}"
    if isinstance(value, list) and text.startswith("text"):  # what Hydra makes of [SEP]
        return f"a text is needed; brackets need quotes inside quotes: '{key}=\"{show(value)}\"'"
    return f"{text} is needed"


def keys_of(cls: type[Settings], value: Mapping | Settings | None = None) -> Iterator[tuple[str, type[Settings], FieldInfo]]:
    """(key as typed, class, declaration) of every key, nested groups included. `value`: what was composed; it decides which class
    a group has whose settings depend on a choice; None: those of all choices."""
    for name, field in cls.model_fields.items():
        typed = field.alias or name
        inner = None if value is None else value.get(typed) if isinstance(value, Mapping) else getattr(value, name, None)
        if not (nested := nested_classes(field, inner)):
            yield cls.key(typed), cls, field
        seen: set[str] = set()
        for kind in nested:
            keys = [row for row in keys_of(kind, inner) if row[0] not in seen]
            seen |= {key for key, _, _ in keys}
            yield from keys


def nested_classes(field: FieldInfo, value: Any = None) -> list[type[Settings]]:
    """The Settings of a key that is a group; none of a single key."""
    if made := next((item for item in field.metadata if isinstance(item, Made)), None):
        return [made.make_class()]
    if chosen := next((item for item in field.metadata if isinstance(item, Chosen)), None):
        if isinstance(value, Settings):
            return [type(value)]
        return [chosen.class_of(value)] if isinstance(value, Mapping) else list(dict.fromkeys(chosen.registry.values()))
    kind = field.annotation
    return [kind] if isinstance(kind, type) and issubclass(kind, Settings) else []
