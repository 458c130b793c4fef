"""From settings to what is planned or trained: which devices there are, and how a model is spread over them."""

import importlib.util
from collections.abc import Callable

from cngpt.errors import ConfigError
from cngpt.model.shape import Shape, Sizes
from cngpt.plan import machine
from cngpt.plan.advice import TIGHT, TOO_LARGE, advise, needed, verdict
from cngpt.plan.hardware import Hardware, Table
from cngpt.plan.memory import memory
from cngpt.plan.settings import Trainer
from cngpt.plan.setup import Setup
from cngpt.plan.strategies import STRATEGIES, Spread, refusal

Divide = Callable[[int], tuple[int, int]]  # devices that read windows of their own -> micro-batch, accumulation


def check_installed(strategy: str) -> None:
    """ConfigError where a strategy needs a package that is not here."""
    package = STRATEGIES[strategy].package
    if package and importlib.util.find_spec(package.name) is None:
        raise ConfigError(f"trainer.strategy={strategy} needs {package.name}, which is not installed: {package.remedy}")


def check_possible(trainer: Trainer, devices: int | None, optimizer: str, sizes: Sizes) -> None:
    """ConfigError where a run would break a rule of its strategy. `devices` over all hosts; None: not known yet."""
    mlp_width = sizes.layout.mlp_width(sizes)
    spread = Spread(trainer.accelerator, devices, optimizer, mlp_width, trainer.offload, trainer.tensor_parallel, trainer.compile)
    if why := refusal(trainer.strategy, spread):
        raise ConfigError(why)


def readers_here(trainer: Trainer, optimizer: str, sizes: Sizes) -> int | None:
    """How many devices of this machine will read windows of their own; None where only the started run can know.

    ConfigError where the devices or libraries that are asked for are not there, or the strategy cannot use them so.
    """
    check_installed(trainer.strategy)
    {"gpu": _check_gpus, "mps": _check_mps, "tpu": _check_tpu, "cpu": lambda _: None}[trainer.accelerator](trainer)
    count = trainer.devices if trainer.devices != "auto" else machine.devices(trainer.accelerator)
    world = None if count is None else count * trainer.num_nodes
    check_possible(trainer, world, optimizer, sizes)
    return None if world is None else world // trainer.tensor_parallel


def _check_gpus(trainer: Trainer) -> None:
    if trainer.num_nodes > 1:
        return
    there = machine.gpus()
    if not there:
        raise ConfigError(
            "trainer.accelerator=gpu: torch sees no GPU here; use trainer=cpu, or a torch build for your GPU's driver"
        )
    if trainer.devices != "auto" and trainer.devices > there:
        raise ConfigError(
            f"trainer.devices={trainer.devices}: this machine has {there} GPU{'s' * (there > 1)}; take as many, or trainer.devices=auto"
        )


def _check_mps(trainer: Trainer) -> None:
    if not machine.apple_gpu():
        raise ConfigError("trainer.accelerator=mps: this is no Mac with Apple silicon; use trainer=cpu or trainer=gpu")
    if trainer.devices not in ("auto", 1):
        raise ConfigError(f"trainer.devices={trainer.devices}: trainer.accelerator=mps is one device")


def _check_tpu(trainer: Trainer) -> None:
    there = machine.tpu_devices()
    if not there:
        raise ConfigError(
            "trainer.accelerator=tpu: no TPU here; on a CPU it can be tried as PJRT_DEVICE=CPU CPU_NUM_DEVICES=4 python run.py ..."
        )
    if trainer.devices not in ("auto", 1, there):
        raise ConfigError(
            f"trainer.devices={trainer.devices}: {there} TPU device(s) here; auto takes all of the slice, 1 a single one"
        )


def setup_of(trainer: Trainer, shape: Shape, optimizer: str, hardware: Hardware, divide: Divide) -> Setup:
    """How `trainer` spreads the model over a machine. ConfigError where the batch does not divide, or `train` would refuse it there."""
    if trainer.accelerator != hardware.accelerator:
        suits = {"tpu": "trainer=tpu_pod", "gpu": "trainer=gpu, ddp or fsdp", "cpu": "trainer=cpu", "mps": "trainer=mps"}
        raise ConfigError(
            f"trainer.accelerator={trainer.accelerator}: {hardware.name} is a {hardware.accelerator};"
            f" take {suits.get(hardware.accelerator, 'another')}"
        )
    asked = _asked_devices(trainer, hardware)
    machines = 1 if hardware.slice else trainer.num_nodes
    devices = asked * trainer.num_nodes if asked else hardware.devices * machines
    # trainer.devices=auto of a single device means all: the started run would be DDP
    strategy = "ddp" if trainer.strategy == "single" and devices > 1 and not asked else trainer.strategy
    check_possible(trainer.model_copy(update={"strategy": strategy}), devices, optimizer, shape)
    micro, accumulate = divide(devices // trainer.tensor_parallel)
    return Setup(
        shape=shape,
        accelerator=trainer.accelerator,
        strategy=strategy,
        precision=trainer.precision,
        optimizer=optimizer,
        micro=micro,
        accumulate=accumulate,
        devices=devices,
        hosts=1 if trainer.accelerator == "cpu" else max(trainer.num_nodes, -(-devices // hardware.per_host)),
        activation_checkpointing=trainer.activation_checkpointing,
        offload=trainer.offload,
        tensor_parallel=trainer.tensor_parallel,
    )


def _asked_devices(trainer: Trainer, hardware: Hardware) -> int | None:
    """Devices of a host that were asked for by number; None: all of the machine or slice."""
    asked = trainer.devices if trainer.devices != "auto" else None
    if not hardware.slice or asked in (None, 1):
        return asked
    if asked not in (hardware.per_host, hardware.devices):
        raise ConfigError(
            f"trainer.devices={asked}: of {hardware.slice} auto takes all {hardware.devices} devices, 1 a single one"
        )
    return None  # of each host: all of the slice


def check_fits(trainer: Trainer, shape: Shape, optimizer: str, tokens_per_step: int, divide: Divide) -> None:
    """ConfigError where training surely does not fit the device at hand, with what to change."""
    hardware = Table().here(trainer.accelerator).with_slice_counted()
    if hardware.memory is None:
        return
    setup = setup_of(trainer, shape, optimizer, hardware, divide)
    m = memory(setup)
    if verdict(setup, m, hardware.memory) != TOO_LARGE:
        return
    ask = (setup, hardware, hardware.memory, tokens_per_step, hardware.devices)
    sure, perhaps = advise(*ask), advise(*ask, enough=TIGHT)
    what = "add " + " or ".join(" ".join(overrides) for overrides in sure) if sure else "take a smaller model="
    if not sure and perhaps:
        what = "it may fit with " + " or ".join(" ".join(overrides) for overrides in perhaps)
    raise ConfigError(
        f"plan.enforce: this run needs {needed(setup, m) / 1e9:,.1f} GB, {hardware.name} has {hardware.memory / 1e9:,.1f};"
        f" {what}; python run.py task=plan says why, plan.enforce=false tries it all the same"
    )
