"""How a model is spread over devices: a name of the preset's `strategy` to the class that does it; each asks for its library late."""

from collections.abc import Callable

from cngpt.errors import ConfigError
from cngpt.plan.settings import Trainer
from cngpt.training.strategies.base import Strategy


def single(trainer: Trainer) -> Strategy:
    from cngpt.training.strategies.whole import SingleDevice

    return SingleDevice.for_trainer(trainer)


def ddp(trainer: Trainer) -> Strategy:
    from cngpt.training.strategies.whole import DDP

    return DDP.for_trainer(trainer)


def fsdp(trainer: Trainer) -> Strategy:
    from cngpt.training.strategies.fsdp import FSDP

    return FSDP.for_trainer(trainer)


def deepspeed(stage: int) -> Callable[[Trainer], Strategy]:
    def build(trainer: Trainer) -> Strategy:
        from cngpt.training.strategies.deepspeed import ZeRO

        return ZeRO.for_trainer(trainer, stage)

    return build


def spmd(trainer: Trainer) -> Strategy:
    from cngpt.training.strategies.xla import SPMD

    return SPMD.for_trainer(trainer)


# the names of plan.strategies.STRATEGIES, which says what each of them needs and refuses
STRATEGIES: dict[str, Callable[[Trainer], Strategy]] = {
    "single": single,
    "ddp": ddp,
    "fsdp": fsdp,
    "deepspeed_zero2": deepspeed(2),
    "deepspeed_zero3": deepspeed(3),
    "xla": spmd,
}


def build(trainer: Trainer) -> Strategy:
    """The strategy object of `trainer`, which Lightning's Trainer takes. ConfigError where torch was built for other devices."""
    import torch

    if trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError(
            "trainer.accelerator=gpu: torch sees no GPU here; use trainer=cpu, or a torch build for your GPU's driver"
        )
    return STRATEGIES[trainer.strategy](trainer)
