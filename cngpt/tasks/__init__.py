"""The registry of tasks: task=<name> is the file <name>.py here, or what a plugin registered.

A task is a module (or any object) with

    Keys             its settings: tasks.command.Common with the keys of conf/task/<name>.yaml
    READS            names of groups and common keys that it reads, for its help page
    run(command)     does it
"""

import importlib
import importlib.util
from typing import Any

from cngpt import plugins
from cngpt.errors import ConfigError, nearest
from cngpt.installed import conf_folder
from cngpt.settings import keys_of

# the value of a key without a default
MISSING = "???"
# tasks that plugins add
REGISTERED: dict[str, Any] = {}


def names() -> list[str]:
    return sorted({path.stem for path in (conf_folder() / "task").glob("*.yaml")} | set(REGISTERED))


def find(name: str) -> Any:
    """The task of this name; ConfigError where there is none."""
    if name in REGISTERED:
        return REGISTERED[name]
    if not str(name).isidentifier() or importlib.util.find_spec(f"cngpt.tasks.{name}") is None:
        raise ConfigError(f"task={name}: no such task; one of {', '.join(names())}.{nearest(str(name), names())}")
    return importlib.import_module(f"cngpt.tasks.{name}")


def task_of(config: dict[str, Any]) -> Any:
    """The task of a composed configuration, interpolations not resolved; plugins are loaded."""
    listed = config.get("plugins") or []
    if not isinstance(listed, list) or not all(isinstance(path, str) for path in listed):
        raise ConfigError(f"plugins={listed}: a list [path/to/file.py, ...]")
    plugins.load(listed)
    return find(config.get("task"))


def check_complete(task: Any, plain: dict[str, Any]) -> None:
    """ConfigError where a key is missing that the user must give."""
    if key := _missing(plain):
        described = {name: field.description for name, _, field in keys_of(task.Keys, plain)}
        raise ConfigError(f"{key}=... is needed: {described.get(key) or 'it has no default'}")


def _missing(value: Any, prefix: str = "") -> str | None:
    """The first key that is `???` in a configuration."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if inner == MISSING:
            return prefix + str(key)
        if below := _missing(inner, f"{prefix}{key}."):
            return below
    return None


def task_in(words: list[str]) -> Any:
    """The task of a command that may not have been composed; train where it cannot be known."""
    typed = {key: value for key, _, value in (word.partition("=") for word in words)}
    try:
        plugins.load(path for path in typed.get("plugins", "").strip("[]").split(",") if path)
        return find(typed.get("task", "train"))
    except ConfigError:
        return find("train")


def interrupted(words: list[str]) -> str:
    """What ctrl-C means for the task of a command, to be said behind "stopped"."""
    return getattr(task_in(words), "INTERRUPTED", "")
