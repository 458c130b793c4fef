"""Errors that are the user's to mend: one line each, printed without a traceback, exit code 2."""


class UserError(Exception):
    """Something the user can put right. The message is one line: what came, what was allowed, what to do."""


class ConfigError(UserError, ValueError):
    """A key of the command line or of a file in conf/ is wrong. The message begins with the key as it was typed.

    A ValueError, too, so that pydantic goes on and all wrong keys of a group are known before one of them is reported.
    """


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 200 characters, control characters escaped."""
    import json

    message = str(error).strip().split("\n")[0][:200] or type(error).__name__
    return json.dumps(message, ensure_ascii=False)[1:-1]


def nearest(word: str, choices) -> str:
    """' Did you mean x?' for a near miss, else nothing: the tail of many messages."""
    import difflib

    matches = difflib.get_close_matches(word, [str(c) for c in choices], n=1, cutoff=0.6)
    return f" Did you mean {matches[0]}?" if matches else ""
