"""Rules that a user wrote in a file of their own: `clean.own=[path/to/file.py:function]`."""

import functools
import hashlib
import importlib.util
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from cngpt.corpus.clean.characters import line_ends, lone_surrogates, paragraphs
from cngpt.corpus.clean.rules import Drop
from cngpt.errors import ConfigError, nearest


@dataclass(frozen=True)
class OwnRule:
    """One function of a file: text in, a text, a Drop, or None (the document goes) out. Travels to other processes as path and
    name, and is loaded again there."""

    path: str = field(repr=False)
    name: str
    digest: str  # of the file: another file, other shards

    @classmethod
    def at(cls, address: str) -> "OwnRule":
        """ConfigError when there is no such file or function, or the file cannot be run."""
        path, colon, name = address.rpartition(":")
        if not colon or not name.isidentifier():
            raise ConfigError(f"clean.own={address}: path/to/file.py:function is needed")
        file = Path(path).expanduser().resolve()
        if not file.is_file():
            raise ConfigError(f"clean.own={address}: there is no file {path}")
        rule = cls(str(file), name, hashlib.sha256(file.read_bytes()).hexdigest()[:16])
        try:
            module = _module(rule.path, rule.digest)
        except (Exception, SystemExit) as error:
            raise ConfigError(f"clean.own={address}: {path} cannot be run: {type(error).__name__}: {_line(error)}") from None
        functions = [key for key, value in vars(module).items() if callable(value)]
        if not hasattr(module, name):
            raise ConfigError(f"clean.own={address}: {path} has no {name}.{nearest(name, functions)}")
        if not callable(getattr(module, name)):
            raise ConfigError(f"clean.own={address}: {name} is no function but {type(getattr(module, name)).__name__}")
        return rule

    def __call__(self, text: str) -> str | Drop:
        try:
            result = getattr(_module(self.path, self.digest), self.name)(text)
        except (Exception, SystemExit) as error:  # one odd document must not end a run of hours: it is counted under this reason
            return reason(f"{self.name} raised {type(error).__name__}: {_line(error)}")
        if result is None:
            return Drop(self.name)
        if isinstance(result, str):
            return paragraphs(line_ends(lone_surrogates(result)))  # a line taken away leaves no empty one
        if isinstance(result, Drop):
            return reason(result.reason)
        return Drop(f"{self.name} returned {type(result).__name__}, not text")


def reason(text: object) -> Drop:
    """Without its numbers: "score 0.31" and "score 0.32" are one row of the report, not two of ten thousand."""
    return Drop(re.sub(r"\d+(\.\d+)?", "#", " ".join(str(text).split()))[:80])


@functools.cache
def _module(path: str, digest: str):
    spec = importlib.util.spec_from_file_location(f"own_rules_{digest}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    sys.path.insert(0, str(Path(path).parent))  # what lies beside it may be imported
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    finally:
        sys.path.remove(str(Path(path).parent))
    return module


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
