"""Which process this is, in Lightning's words: told by the environment before training starts, by the strategy afterwards."""

import functools
import os
import re
import sys
from pathlib import Path

_global_rank: int | None = None  # as the strategy knows it


def set_global_rank(rank: int | None) -> None:
    """From here on `is_global_zero` follows the strategy; with None the environment again."""
    global _global_rank
    _global_rank = rank


def is_local_zero() -> bool:
    """Whether this is the process of its host that prepares, writes and logs."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0))) == 0


def is_global_zero() -> bool:
    """Whether this is the one process of all hosts that may remove something."""
    if _global_rank is not None:
        return _global_rank == 0
    ranks = (os.environ.get(key) for key in ("RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK"))
    return is_local_zero() and int(next((rank for rank in ranks if rank), tpu_worker())) == 0


def is_launched() -> bool:
    """Whether a launcher started several processes, whose clocks may differ."""
    return any(key in os.environ for key in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE")) or int(os.environ.get("SLURM_NTASKS", 1)) > 1


@functools.cache
def tpu_worker() -> int:
    """The number of this host in a TPU slice, 0 elsewhere; read from the machine's metadata, as the TPU runtime does."""
    devices = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev").glob("vfio/[0-9]*")]
    if os.environ.get("PJRT_DEVICE") == "CPU" or not devices:
        return 0
    if os.environ.get("TPU_SKIP_MDS_QUERY"):  # Kubernetes
        return int(os.environ.get("CLOUD_TPU_TASK_ID") or os.environ.get("TPU_WORKER_ID") or 0)
    import urllib.request

    address = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/tpu-env"
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers={"Metadata-Flavor": "Google"}), timeout=5) as answer:
            return worker_in(answer.read().decode())
    except OSError:  # another accelerator behind /dev/vfio
        return 0


def worker_in(tpu_env: str) -> int:
    """WORKER_ID: '3' of the lines that a TPU's metadata holds."""
    match = re.search(r"^WORKER_ID: *'?(\d+)", tpu_env, re.MULTILINE)
    return int(match[1]) if match else 0


def log(text: str) -> None:
    """A line on stderr for the person at the terminal, once a host; results alone go to stdout."""
    if is_local_zero():
        print(text, file=sys.stderr, flush=True)
