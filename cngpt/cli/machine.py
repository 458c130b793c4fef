"""What this machine has, for trainer=auto and for checks; torch is imported only where there is something to ask it."""

import functools
import importlib.util
import os
import platform
import re
from pathlib import Path


@functools.cache
def gpus() -> int:
    """NVIDIA or AMD GPUs that torch can use here."""
    if (
        not any(Path(p).exists() for p in ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))
        and platform.system() != "Windows"
    ):
        return 0
    import torch

    return torch.cuda.device_count()


@functools.cache
def tpus() -> int:
    """TPU chips of this host that torch_xla can use; /dev/vfio alone may be any device that was passed through."""
    if importlib.util.find_spec("torch_xla") is None:
        return 0
    return len(list(Path("/dev").glob("accel[0-9]*"))) or len([p for p in Path("/dev").glob("vfio/*") if p.name.isdigit()])


def xla_devices() -> int:
    """Devices of this host that torch_xla will drive; asked here, its runtime would start too early for SPMD.

    TPU v2 and v3 show two devices a chip. PJRT_DEVICE=CPU CPU_NUM_DEVICES=4 makes the CPU four devices.
    """
    if os.environ.get("PJRT_DEVICE") == "CPU":
        return int(os.environ.get("CPU_NUM_DEVICES", "1"))
    old = any(
        path.read_text().strip() == "0x0027" for path in Path("/sys/bus/pci/devices").glob("*/device")
    )  # as torch_xla knows v2 and v3
    return tpus() * (2 if old else 1)


def apple_gpu() -> bool:
    return platform.system() == "Darwin" and platform.machine() == "arm64"


def fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32."""
    try:
        return re.search(r"\b(avx512_bf16|amx_bf16)\b", Path("/proc/cpuinfo").read_text()) is not None
    except OSError:
        return False


def best(key: str, accelerator: str | None = None, devices: int | None = None):
    """trainer=auto: the value of one key of the preset that suits this machine, or the one that hardware=... describes."""
    choice = {
        "accelerator": "cpu",
        "devices": 1,
        "strategy": "single",
        "precision": "32-true",
        "micro_batch_tokens": 2048,
        "compile": False,
    }
    if accelerator == "tpu" or (accelerator is None and tpus()):
        choice |= {
            "accelerator": "tpu",
            "devices": "auto",
            "strategy": "xla",
            "precision": "bf16-mixed",
            "micro_batch_tokens": 8192,
        }
    elif n := (gpus() if accelerator is None else (devices or 1) * (accelerator == "gpu")):
        choice |= {"accelerator": "gpu", "devices": n, "precision": "bf16-mixed", "micro_batch_tokens": 16384, "compile": True}
        choice["strategy"] = "ddp" if n > 1 else "single"
    elif accelerator is None and apple_gpu():
        choice |= {"accelerator": "mps", "micro_batch_tokens": 8192}
    elif accelerator or fast_bfloat16():
        choice["precision"] = "bf16-mixed"
    return choice[key]


def devices(accelerator: str, asked) -> int | None:
    """How many devices `trainer.devices` means here; None where only the started run can know."""
    if isinstance(asked, int):
        return asked
    return {"cpu": 1, "mps": 1, "gpu": gpus() or None, "tpu": xla_devices() or None}.get(accelerator)
