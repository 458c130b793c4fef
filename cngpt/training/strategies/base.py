"""What the rest of training asks of a strategy, beside what Lightning asks: declared here, implemented by each."""

from typing import Any, Self

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer as TorchOptimizer

from cngpt.model.gpt import GPT
from cngpt.plan.settings import Trainer
from cngpt.training import optim
from cngpt.training.settings import Optimizer


class Strategy:
    """To be named before Lightning's class among the bases. As it stands: whole weights on one device a process."""

    @classmethod
    def for_trainer(cls, trainer: Trainer) -> Self:
        """The strategy for these settings."""
        raise NotImplementedError

    @staticmethod
    def trainer_arguments(trainer: Trainer) -> dict[str, Any]:
        """What else Lightning's Trainer is told of the machine."""
        return {
            "accelerator": trainer.accelerator,
            "devices": trainer.devices,
            "num_nodes": trainer.num_nodes,
            "precision": trainer.precision,
        }

    @staticmethod
    def plugins() -> list:
        """Of Lightning's Trainer."""
        return []

    # ── who reads what

    @property
    def data_rank(self) -> int:
        """Which of the `data_world_size` parts of a batch this process reads; those that compute parts of one matrix read the same."""
        return self.global_rank

    @property
    def data_world_size(self) -> int:
        return self.world_size

    @property
    def devices_per_process(self) -> int:
        """Devices for which one process reads."""
        return 1

    @property
    def dropout_rank(self) -> int:
        """What makes the dropout of one process another than that of the next."""
        return self.data_rank

    def seed(self, number: int) -> None:
        """Sets the random state from which dropout is drawn on the devices."""
        torch.manual_seed(number)

    # ── the model and its optimizer

    def shard(self, module: pl.LightningModule) -> None:
        """Cuts the model's weights over the devices, from `configure_model`; called once."""

    def build_optimizer(self, gpt: GPT, settings: Optimizer) -> TorchOptimizer:
        return optim.build(gpt, settings)

    def clip_gradients(self, module: pl.LightningModule, limit: float | None) -> Tensor | None:
        """Clips the gradients of all weights to the global norm `limit` (None: not at all); () the norm before that.

        Here and not by Lightning's gradient_clip_val, which FSDP2 refuses. None where the strategy knows the norm after its step only.
        """
        return torch.nn.utils.clip_grad_norm_(module.gpt.parameters(), float("inf") if limit is None else limit)

    def whole_weights(self, gpt: GPT) -> dict[str, Tensor]:
        """All weights on the CPU of the first process; every process must call it."""
        return {name: tensor.detach().cpu() for name, tensor in gpt.state_dict().items()} if self.is_global_zero else {}

    # ── numbers

    @property
    def sum_dtype(self) -> torch.dtype:
        """In which validation losses are summed: the widest type that the device has."""
        return torch.float32 if self.root_device.type == "mps" else torch.float64

    def device_name(self) -> str:
        """What the device calls itself, for its peak; empty where it has no name."""
        return torch.cuda.get_device_name(self.root_device) if self.root_device.type == "cuda" else ""
