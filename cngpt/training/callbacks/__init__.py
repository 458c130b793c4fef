"""What happens beside training. Each is a guest: weights, optimizer and random state are as it found them."""

from cngpt.training.callbacks.checkpoints import Checkpoints
from cngpt.training.callbacks.metrics import Metrics
from cngpt.training.callbacks.model_directory import ModelDirectory
from cngpt.training.callbacks.progress import Progress
from cngpt.training.callbacks.samples import Samples

__all__ = ["Checkpoints", "Metrics", "ModelDirectory", "Progress", "Samples"]
