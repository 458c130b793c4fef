"""How fast training goes: a stopwatch that leaves out what is not training, and the peak of known devices."""

import contextlib
import time

# Dense bfloat16 FLOP/s of one device by a part of its name, from the makers' data sheets; an unknown device gets no MFU.
PEAK_BF16 = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "A10G": 70e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L4": 121e12,
    "V100": 125e12,  # float16
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "TPU v2": 45e12,
    "TPU v3": 123e12,
    "TPU v4": 275e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v6e": 918e12,
}


def peak_flops(device_name: str) -> float | None:
    """Peak bfloat16 FLOP/s of a device known by name, else None."""
    return next((peak for name, peak in PEAK_BF16.items() if name in device_name), None)


class Stopwatch:
    """Seconds of training since `lap` was last called, without what ran inside `pause`."""

    def __init__(self):
        self._start, self._paused = time.perf_counter(), 0.0

    @contextlib.contextmanager
    def pause(self):
        start = time.perf_counter()
        yield
        self._paused += time.perf_counter() - start

    def lap(self) -> float:
        now = time.perf_counter()
        seconds = now - self._start - self._paused
        self._start, self._paused = now, 0.0
        return seconds
