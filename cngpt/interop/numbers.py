"""Numbers in other people's configurations: what each must be, before a model is made of them."""

from typing import Any


def requirement(value: Any, whole: bool) -> str | None:
    """What a value must be, in words, where it is not: a size is a whole number from 1, a rate a number from 0 to 1."""
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if number and (1 <= value < 1 << 31 if whole else 0 <= value <= 1):
        return None
    return "a whole number from 1" if whole else "a number from 0 to 1"
