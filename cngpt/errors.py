"""Errors that are the user's to mend: one line each, printed without a traceback, exit code 2."""


class UserError(Exception):
    """Something the user can put right. The message is one line: what came, what was allowed, what to do."""


class ConfigError(UserError):
    """A key of the command line or of a file in conf/ is wrong. The message begins with the key as it was typed."""


def nearest(word: str, choices) -> str:
    """' Did you mean x?' for a near miss, else nothing: the tail of many messages."""
    import difflib

    found = difflib.get_close_matches(word, [str(c) for c in choices], n=1, cutoff=0.6)
    return f" Did you mean {found[0]}?" if found else ""
