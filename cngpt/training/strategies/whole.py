"""Whole weights on every device: one device alone, or several that average their gradients (DDP). Both write one file."""

from typing import Self

import torch
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy

from cngpt.plan.settings import Trainer
from cngpt.training.checkpoint import AnyLayout
from cngpt.training.strategies.base import Strategy


class SingleDevice(Strategy, SingleDeviceStrategy):
    @classmethod
    def for_trainer(cls, trainer: Trainer) -> Self:
        devices = {"cpu": torch.device("cpu"), "gpu": torch.device("cuda", 0), "mps": torch.device("mps", 0)}
        return cls(device=devices[trainer.accelerator])

    @staticmethod
    def plugins() -> list:
        return [AnyLayout()]


class DDP(Strategy, DDPStrategy):
    @classmethod
    def for_trainer(cls, trainer: Trainer) -> Self:
        return cls(process_group_backend="gloo" if trainer.accelerator == "cpu" else None)

    @staticmethod
    def plugins() -> list:
        return [AnyLayout()]
