"""How to sample: the keys of conf/generation. No torch, so that the command line can check them at once."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import model_validator

from cngpt.errors import ConfigError, nearest
from cngpt.settings import Field, Hints, Settings, show

# Keys of model directories and training checkpoints that are older than `compat`.
OLD_COMPAT_KEYS = ("nucleus", "stop", "join")
OLD_COMPAT_VALUES = ("usual", "gpt2ml")


class Sampling(Settings, group="generation"):
    """How the next token is chosen, and where a text ends."""

    renamed: ClassVar[dict[str, str]] = dict.fromkeys(OLD_COMPAT_KEYS, "generation.compat=gpt2ml")

    temperature: Annotated[float, Hints("temp")] = Field(0.9, ge=0, description="0: the likeliest token each time")
    top_k: int = Field(0, ge=0, description="only the k likeliest tokens may come; 0: off")
    top_p: float = Field(
        0.9, ge=0, le=1, description="only the likeliest tokens that sum up to this probability may come; 1: off"
    )
    compat: Annotated[Literal["none", "gpt2ml"], Hints("mode")] = Field(
        "none",
        description="gpt2ml: as the code of gpt2-ml. The token that crosses top_p is dropped; a text ends at an end of text beyond"
        " min_len tokens, or when the context is full; it is printed without spaces and [UNK]",
    )
    min_len: Annotated[int, Hints("min_length")] = Field(
        0, ge=0, description="with compat=gpt2ml: tokens before a text may end, the prompt's included"
    )
    repetition_penalty: Annotated[float, Hints("penalty", "repeat_penalty", "frequency_penalty")] = Field(
        1.0, gt=0, description="above 1: tokens that came before become less likely (Keskar et al. 2019); 1: off"
    )
    min_new_tokens: Annotated[int, Hints("min_tokens")] = Field(
        0, ge=0, description="0: none, but 100 where the end of text is 。, as in gpt2-ml's 15 GB release"
    )
    max_new_tokens: Annotated[int, Hints("length", "max_length", "max_len", "max_tokens", "tokens", "new_tokens")] = Field(
        200, ge=1, description="tokens after the prompt, at most"
    )
    seed: Annotated[int, Hints("random_seed")] = Field(1, ge=0, description="the same seed, prompt and model give the same text")

    @property
    def as_gpt2ml(self) -> bool:
        return self.compat == "gpt2ml"

    @model_validator(mode="after")
    def _check_lengths(self) -> "Sampling":
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(
                f"{self.key('min_new_tokens')}={self.min_new_tokens}: must be at most max_new_tokens, {self.max_new_tokens}"
            )
        if self.min_len and not self.as_gpt2ml:
            raise ValueError(f"{self.key('min_len')}={self.min_len}: goes with generation.compat=gpt2ml; else min_new_tokens=...")
        return self


def saved_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of today, from what a model directory or a checkpoint of any age holds; all other keys stay as they are.

    Before `compat` there were `nucleus`, `stop` and `join`, each "usual" or "gpt2ml". Of a mixture, what decides which tokens come
    is kept: compat is "gpt2ml" if `nucleus` or `stop` is.
    """
    old = {key: values[key] for key in OLD_COMPAT_KEYS if key in values}
    for key, value in old.items():
        if value not in OLD_COMPAT_VALUES:
            choices = ", ".join(OLD_COMPAT_VALUES)
            hint = nearest(show(value), OLD_COMPAT_VALUES)
            raise ConfigError(f"generation.{key}={show(value)}: saved with a model, where it must be one of {choices}.{hint}")
    today = {key: value for key, value in values.items() if key not in old}
    if old:
        today.setdefault("compat", "gpt2ml" if "gpt2ml" in (old.get("nucleus"), old.get("stop")) else "none")
    return today
