"""What training asks of the process that it runs in: memory that is kept, libraries that keep quiet."""

import contextlib
import ctypes
import logging
import warnings


def keep_freed_memory() -> None:
    """Lets glibc keep large blocks that were freed. By default it hands each back to the system and gets it again, zeroed
    page by page, many times a step: on 2 CPU cores `tiny` went from 15.8 to 20.0 thousand tokens/s in bf16."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block is a mapping of its own
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: the heap's end is never given back


def quiet() -> None:
    """Lightning's tips and banners are for people who wrote the Trainer call."""
    for name in ("pytorch_lightning", "lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in (
        ".*does not have many workers.*",
        ".*LeafSpec.*",
        ".*IterableDataset.*__len__.*",
        ".*Checkpoint directory.*",
        ".*torch.distributed.*_tensor. is deprecated.*",  # by DeepSpeed, twice a step
        ".*returned a view tensor.*",  # FSDP2, of our logits without their padding columns; nothing changes them in place
    ):
        warnings.filterwarnings("ignore", message=text)
