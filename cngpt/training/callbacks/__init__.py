"""What happens beside training. A callback leaves weights, optimizer and random state as it found them.

Those with settings are made by them (training/settings.py, CALLBACKS); the others are there in every run.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

from cngpt.runs import Run
from cngpt.tokens import Tokenizer
from cngpt.training.callbacks.checkpoints import Checkpoints
from cngpt.training.callbacks.metrics import Metrics
from cngpt.training.callbacks.model_directory import ModelDirectory
from cngpt.training.callbacks.progress import Progress
from cngpt.training.throughput import Stopwatch

if TYPE_CHECKING:
    from cngpt.training.settings import Callbacks

__all__ = ["Checkpoints", "Context", "Metrics", "ModelDirectory", "Progress", "build"]


@dataclass(frozen=True)
class Context:
    """What a callback may use."""

    run: Run
    tokenizer: Tokenizer
    generation: dict[str, Any]  # defaults of sampling
    metrics: Metrics
    progress: Progress
    stopwatch: Stopwatch  # pauses while something other than training runs


def build(settings: "Callbacks", context: Context) -> list[pl.Callback]:
    """In the order in which they are called: metrics first, so that a pause of the others does not count."""
    chosen = [made for each in settings.each().values() if (made := each.build(context)) is not None]
    model_directory = ModelDirectory(context.run.model, context.tokenizer, context.generation)
    return [context.metrics, *chosen, context.progress, model_directory]
