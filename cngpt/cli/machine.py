"""What this machine has, for trainer=auto and for checks; torch is imported only where there is something to ask it."""

import functools
import importlib.util
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


def apple_gpu() -> bool:
    return platform.system() == "Darwin" and platform.machine() == "arm64"


def fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32."""
    try:
        return re.search(r"\b(avx512_bf16|amx_bf16)\b", Path("/proc/cpuinfo").read_text()) is not None
    except OSError:
        return False


def best(key: str):
    """trainer=auto: the value of one key of the preset that suits this machine."""
    choice = {
        "accelerator": "cpu",
        "devices": 1,
        "strategy": "single",
        "precision": "32-true",
        "micro_batch_tokens": 2048,
        "compile": False,
    }
    if tpus():
        choice |= {
            "accelerator": "tpu",
            "devices": "auto",
            "strategy": "xla",
            "precision": "bf16-true",
            "micro_batch_tokens": 8192,
        }
    elif n := gpus():
        choice |= {"accelerator": "gpu", "devices": n, "precision": "bf16-mixed", "micro_batch_tokens": 16384, "compile": True}
        choice["strategy"] = "ddp" if n > 1 else "single"
    elif apple_gpu():
        choice |= {"accelerator": "mps", "micro_batch_tokens": 8192}
    elif fast_bfloat16():
        choice["precision"] = "bf16-mixed"
    return choice[key]


def devices(accelerator: str, asked) -> int | None:
    """How many devices `trainer.devices` means here; None where only the started run can know."""
    if isinstance(asked, int):
        return asked
    return {"cpu": 1, "mps": 1, "gpu": gpus() or None}.get(accelerator)
