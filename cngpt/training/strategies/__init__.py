"""How a model is spread over devices: the preset's `strategy` to Lightning's object, and what the module does for it."""

import pytorch_lightning as pl
import torch

from cngpt.errors import ConfigError

NAMES = ("single", "ddp", "fsdp", "deepspeed_zero2", "deepspeed_zero3", "xla")


def build(settings: dict):
    """trainer.* settings -> what `Trainer(strategy=)` takes."""
    name, backend = settings["strategy"], "gloo" if settings["accelerator"] == "cpu" else None
    if name == "single":
        return "auto"
    if name == "ddp":
        from pytorch_lightning.strategies import DDPStrategy

        return DDPStrategy(process_group_backend=backend)
    if name == "fsdp":
        from cngpt.training.strategies.fsdp import FSDP

        devices = settings["devices"] if settings["devices"] != "auto" else torch.accelerator.device_count()
        world, cut = devices * settings["num_nodes"], settings["tensor_parallel"]
        # said, as Lightning's "auto" would cut each host's weights over the number of hosts
        return FSDP(data_parallel_size=world // cut, tensor_parallel_size=cut, process_group_backend=backend)
    if name.startswith("deepspeed_zero"):
        from cngpt.training.strategies.deepspeed import ZeRO

        return ZeRO(int(name[-1]), settings["offload"], settings["clip_norm"], cpu=settings["accelerator"] == "cpu")
    if name == "xla":
        from cngpt.training.strategies.xla import SPMD

        return SPMD(settings["devices"])
    raise ConfigError(f"trainer.strategy={name}: one of {', '.join(NAMES)}")


def place(settings: dict) -> dict:
    """trainer.* settings -> what else Lightning's Trainer is told about the machine."""
    if settings["strategy"] == "xla":
        from cngpt.training.strategies.xla import PJRT

        # one process drives all devices of a host; tensors of inference mode are not for torch_xla
        return {"accelerator": PJRT(), "devices": 1, "num_nodes": 1, "precision": settings["precision"], "inference_mode": False}
    return {key: settings[key] for key in ("accelerator", "devices", "num_nodes", "precision")}


def plugins(settings: dict) -> list:
    """Strategies that keep whole weights on each device write one file, and read what any strategy wrote."""
    from cngpt.training.checkpoint import AnyLayout

    return [AnyLayout()] if settings["strategy"] in ("single", "ddp") else []


def shard(module: pl.LightningModule) -> None:
    """Cuts the model's weights over the strategy's device mesh, from `configure_model`."""
    from cngpt.training.strategies import fsdp

    fsdp.shard(module)
