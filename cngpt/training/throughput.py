"""How fast training goes: a stopwatch that leaves out what is not training, and the peak of known devices."""

import contextlib
import re
import time

# Dense bfloat16 FLOP/s of one device, from the makers' data sheets; of several names that fit, the first counts.
PEAK_BF16 = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H800": 989e12,
    "H20": 148e12,
    "A100": 312e12,
    "A800": 312e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "TPU v2": 22.5e12,  # v2 and v3: one core, half a chip
    "TPU v3": 61.5e12,
    "TPU v4": 275e12,
    "TPU v5litepod": 197e12,  # v5e
    "TPU v5p": 459e12,
    "TPU v6e": 918e12,
}


def peak_flops(device_name: str) -> float | None:
    """Peak bfloat16 FLOP/s of a device known by name, else None."""
    return next((peak for name, peak in PEAK_BF16.items() if re.search(rf"\b{name}\b", device_name)), None)


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
