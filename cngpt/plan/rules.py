"""What does not go together: asked by `train` before it starts, by the planner before it reckons, and of everything that it advises."""


def contradiction(
    strategy: str,
    devices: int | None,
    optimizer: str,
    width: int,
    *,
    offload: bool = False,
    tensor_parallel: int = 1,
    compile: bool = False,
) -> str | None:
    """The first rule that a run would break, in one line, if any. `devices` over all hosts; None where that is not known yet."""
    zero = strategy.startswith("deepspeed")
    if strategy == "single" and (devices or 1) > 1:
        return f"trainer.strategy=single with {devices} devices: use trainer=ddp or trainer=fsdp"
    if strategy == "fsdp" and devices == 1:
        return "trainer.strategy=fsdp on one device has nothing to share out: use trainer=gpu, or trainer.devices=2 and more"
    if zero and devices == 1 and not offload:
        return (
            f"trainer.strategy={strategy} on one device has nothing to share out: use trainer.offload=true to keep the"
            " optimizer's state in the host's memory, or trainer.devices=2 and more, or trainer=gpu"
        )
    if offload and not zero:
        return f"trainer.offload=true goes with trainer=deepspeed_zero2 and deepspeed_zero3, not with {strategy}"
    if tensor_parallel > 1 and strategy != "fsdp":
        return f"trainer.tensor_parallel={tensor_parallel} goes with trainer=fsdp, not with {strategy}"
    if tensor_parallel > 1 and ((devices or 0) % tensor_parallel or 4 * width % tensor_parallel):
        return f"trainer.tensor_parallel={tensor_parallel} must divide the number of devices ({devices}) and 4 x model.width ({4 * width})"
    if zero and compile:
        return f"trainer.compile=true does not go with trainer.strategy={strategy}; trainer=fsdp can be compiled"
    if (zero or strategy == "fsdp") and optimizer != "adamw":
        return (
            f"optim={optimizer} needs whole matrices, and trainer.strategy={strategy} cuts them: use trainer=ddp or optim=adamw"
        )
    return None
