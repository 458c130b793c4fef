"""What this machine has, asked without torch, whose import takes seconds: devices, main memory, bfloat16."""

import functools
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path


@functools.cache
def gpus() -> int:
    """NVIDIA or AMD GPUs that this process may use."""
    there = len(nvidia_gpus()) or len(list(Path("/dev").glob("nvidia[0-9]*"))) or len(amd_gpus())
    return there if visible() is None else min(there, len(visible()))


def visible() -> list[str] | None:
    """The devices to which the environment restricts this process, by number or name; None: no restriction."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", os.environ.get("HIP_VISIBLE_DEVICES"))
    if listed is None:
        return None
    return [device.strip() for device in listed.split(",") if device.strip() not in ("", "-1", "NoDevFiles")]


def first_gpu() -> tuple[str, float] | None:
    """(name, bytes of memory) of the first NVIDIA GPU that this process may use."""
    listed, only = nvidia_gpus(), visible()
    number = int(only[0]) if only and only[0].isdigit() else 0
    return listed[number] if number < len(listed) else None


@functools.cache
def nvidia_gpus() -> list[tuple[str, float]]:
    """(name, bytes of memory) of each, as the driver's nvidia-smi lists them."""
    devices = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")
    if not (any(map(os.path.exists, devices)) or platform.system() == "Windows") or shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = (line.rpartition(",") for line in answer.splitlines())
    return [
        (name.strip(), float(mebibytes) * 2**20) for name, _, mebibytes in rows if mebibytes.strip().replace(".", "").isdigit()
    ]


@functools.cache
def amd_gpus() -> list[Path]:
    """Nodes of the compute driver that have a GPU: a CPU has no SIMD units."""
    nodes = Path("/sys/class/kfd/kfd/topology/nodes").glob("*/properties")
    return [node for node in nodes if re.search(r"^simd_count [1-9]", node.read_text(), re.M)]


@functools.cache
def tpus() -> int:
    """TPU chips of this host that torch_xla can use; /dev/vfio alone may be any device that was passed through."""
    if importlib.util.find_spec("torch_xla") is None:
        return 0
    return len(list(Path("/dev").glob("accel[0-9]*"))) or len([p for p in Path("/dev").glob("vfio/*") if p.name.isdigit()])


def tpu_devices() -> int:
    """Devices of this host that torch_xla will drive; asked here, as its runtime would start too early for SPMD.

    TPU v2 and v3 show two devices a chip. PJRT_DEVICE=CPU CPU_NUM_DEVICES=4 makes the CPU four devices.
    """
    if os.environ.get("PJRT_DEVICE") == "CPU":
        return int(os.environ.get("CPU_NUM_DEVICES", "1"))
    # as torch_xla knows v2 and v3
    old = any(path.read_text().strip() == "0x0027" for path in Path("/sys/bus/pci/devices").glob("*/device"))
    return tpus() * (2 if old else 1)


def tpu_slice() -> str:
    """v3-256: what a TPU VM says of its slice; empty elsewhere."""
    return os.environ.get("TPU_ACCELERATOR_TYPE", "")


def apple_gpu() -> bool:
    return platform.system() == "Darwin" and platform.machine() == "arm64"


def fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32."""
    try:
        return re.search(r"\b(avx512_bf16|amx_bf16)\b", Path("/proc/cpuinfo").read_text()) is not None
    except OSError:
        return False


def main_memory() -> float | None:
    """Bytes of memory and swap that this process may use at most, a container's limit included."""
    limits = []
    try:
        known = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M))
        limits.append(1024 * (int(known["MemTotal"]) + int(known.get("SwapTotal", 0))))
    except (OSError, KeyError):
        if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
            limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return min(limits) if limits else None


def devices(accelerator: str) -> int | None:
    """How many devices trainer.devices=auto means here; None where only the started run can know."""
    return {"cpu": 1, "mps": 1, "gpu": gpus() or None, "tpu": tpu_devices() or None}[accelerator]


def precision(accelerator: str) -> str:
    """What trainer.precision=auto means here: bfloat16 products where they are fast."""
    fast = {"cpu": fast_bfloat16(), "mps": False, "gpu": True, "tpu": True}[accelerator]
    return "bf16-mixed" if fast else "32-true"


def best_preset(accelerator: str | None = None, count: int | None = None) -> str:
    """The choice of the group `trainer` for this machine, or for `count` devices of such an accelerator."""
    if accelerator == "tpu" or (accelerator is None and tpus()):
        return "tpu"
    number = gpus() if accelerator is None else (count or 1) * (accelerator == "gpu")
    if number:
        return "ddp" if number > 1 else "gpu"
    return "mps" if accelerator is None and apple_gpu() else "cpu"
