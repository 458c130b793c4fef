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
        from pytorch_lightning.strategies import ModelParallelStrategy

        devices = settings["devices"] if settings["devices"] != "auto" else torch.accelerator.device_count()
        world = devices * settings["num_nodes"]  # Lightning's "auto" would cut each host's weights over the number of hosts
        return ModelParallelStrategy(data_parallel_size=world, tensor_parallel_size=1, process_group_backend=backend)
    if name.startswith("deepspeed_zero"):
        from pytorch_lightning.strategies import DeepSpeedStrategy

        offload = bool(settings.get("offload"))
        return DeepSpeedStrategy(
            stage=int(name[-1]),
            offload_optimizer=offload,
            offload_parameters=offload and name[-1] == "3",
            logging_batch_size_per_gpu=1,  # else it looks for a batch sampler, which our loader has not
        )
    if name == "xla":
        return "auto" if settings["devices"] == 1 else "xla"
    raise ConfigError(f"trainer.strategy={name}: one of {', '.join(NAMES)}")


def shard(module: pl.LightningModule) -> None:
    """Cuts the model's weights over the strategy's device mesh, block by block (FSDP2), from `configure_model`."""
    from torch.distributed.fsdp import fully_shard

    mesh = module.device_mesh["data_parallel"]
    for block in module.gpt.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(module.gpt, mesh=mesh)
