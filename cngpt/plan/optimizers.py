"""What each optimizer keeps for every weight, and holds besides while it updates one."""

import math
from collections.abc import Callable

from cngpt.model.shape import EMBEDDING, Shape, Tensors


def optimizer_bytes(optimizer: str, shape: Shape, tensors: Tensors, number: int) -> float:
    """State for these tensors of a model, whole or cut; `number`: bytes of one weight."""
    return sum(STATES[optimizer](shape, name, size, number) for name, size in tensors.items())


def update_bytes(optimizer: str, tensors: Tensors) -> float:
    """What is held besides while one whole tensor after the other is updated."""
    if optimizer == "adamw":
        return 0
    return 3 * 4 * max(math.prod(size) for size in tensors.values())


def adamw(shape: Shape, name: str, size: tuple[int, ...], number: int) -> float:
    """Two moments and a count of steps."""
    return 2 * number * math.prod(size) + 4


def adafactor(shape: Shape, name: str, size: tuple[int, ...], number: int) -> float:
    """A mean for each row and each column of a matrix, and a count of steps."""
    return sum(size) * number + 4


def gpt2ml_adafactor(shape: Shape, name: str, size: tuple[int, ...], number: int) -> float:
    """The same in float32, for the tensors as the seed has them: queries, keys and values apart, no padding rows."""
    if len(size) == 2 and name.endswith("qkv.weight"):
        return 4 * (size[0] + 3 * size[1])
    rows = min(size[0], shape.vocab_size) if name == EMBEDDING else size[0]
    return 4 * (rows + sum(size[1:]))


STATES: dict[str, Callable[[Shape, str, tuple[int, ...], int], float]] = {
    "adamw": adamw,
    "adafactor": adafactor,
    "gpt2ml_adafactor": gpt2ml_adafactor,
}
