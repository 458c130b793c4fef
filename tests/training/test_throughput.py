"""Peaks are of the device that is there, or none; the stopwatch leaves out what is not training."""

import time

import pytest

from cngpt.plan.hardware import peak_flops
from cngpt.training.throughput import Stopwatch


@pytest.mark.parametrize("name, peak", [
    ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4-40GB", 312e12), ("NVIDIA L40S", 362e12),
    ("NVIDIA GeForce RTX 4090", 165e12), ("v4-32", 275e12), ("v5litepod-16", 197e12), ("v3-256", 61.5e12),
    ("NVIDIA RTX A1000", None), ("", None), ("AMD Radeon", None),
])  # fmt: skip
def test_a_peak_is_of_the_very_device_or_none(name, peak):
    assert peak_flops(name) == peak


def test_paused_time_does_not_count(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    watch = Stopwatch()
    now[0] = 3.0
    with watch.pause():
        now[0] = 10.0
    now[0] = 12.0
    assert watch.lap() == 5.0
    now[0] = 13.0
    assert watch.lap() == 1.0
