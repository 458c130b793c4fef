"""Machines: the table of conf/hardware, and the one at hand."""

import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from cngpt.errors import ConfigError
from cngpt.installed import conf_folder
from cngpt.plan import machine
from cngpt.settings import Field, Positive, PositiveNumber, Settings, Text

# TPU types whose name counts cores, two to a device; cores of v2 and v3 are devices, v5litepod and v6e count chips
CORES_PER_DEVICE = {"v4": 2, "v5p": 2}


class Hardware(Settings, group="hardware"):
    """A machine, as conf/hardware describes it. null: not known."""

    name: Text = Field(description="what it is called; auto: this machine")
    accelerator: str | None = Field(None, description="cpu, gpu, mps or tpu")
    gpu: Text | None = Field(None, description="how a GPU of this kind calls itself, a regular expression")
    slice: Text | None = Field(None, description="a TPU's accelerator type, such as v3-512")
    version: Text | None = Field(None, description="a TPU's system image")
    zone: Text | None = Field(None, description="of Google Cloud, where such a slice can be had")
    devices: Positive | None = Field(None, description="of the whole machine or slice; null: counted from the slice")
    per_host: Positive = Field(1, description="devices of one host")
    cores: Positive | None = Field(None, description="of a CPU")
    memory: PositiveNumber | None = Field(None, description="bytes a device")
    peak_bf16: PositiveNumber | None = Field(None, description="dense FLOP/s a device in bfloat16")
    peak_fp32: PositiveNumber | None = Field(None, description="the same in float32")
    memory_bandwidth: PositiveNumber | None = Field(None, description="bytes/s")
    interconnect: PositiveNumber | None = Field(None, description="bytes/s a device, one way")
    price: PositiveNumber | None = Field(None, description="dollars an hour and device")
    mfu: PositiveNumber | None = Field(None, description="share of the peak that a training step reaches")
    mfu_recomputes: bool = Field(False, description="whether activations were computed twice where mfu was seen")
    mfu_source: Text | None = Field(None, description="where mfu comes from")

    def peak(self, precision: str) -> float | None:
        """FLOP/s a device."""
        return self.peak_fp32 if precision == "32-true" else self.peak_bf16

    @property
    def slice_kind(self) -> str:
        return kind_of(self.slice) if self.slice else ""

    def with_slice_counted(self) -> "Hardware":
        """The same, with the devices that its slice has."""
        return self.changed(devices=self.devices or slice_devices(self.slice)) if self.slice else self

    def changed(self, **values) -> "Hardware":
        return Hardware(**{**self.model_dump(), **values})


def kind_of(slice: str) -> str:
    """v5litepod-16: v5litepod."""
    return slice.rpartition("-")[0]


def slice_devices(slice: str) -> int:
    """v3-256: 256 devices; v4-32: 16."""
    kind, _, count = slice.rpartition("-")
    if not kind or not count.isdigit() or int(count) < 1:
        raise ConfigError(f"hardware.slice={slice}: an accelerator type such as v3-256, v4-32, v5litepod-16")
    return max(1, int(count) // CORES_PER_DEVICE.get(kind, 1))


class Table:
    """The machines that are known by name."""

    def __init__(self, folders: Sequence[Path] = ()):
        """`folders`: of configuration files; the first that has a machine describes it."""
        self.folders = [folder / "hardware" for folder in folders or [conf_folder()]]

    @cached_property
    def entries(self) -> dict[str, Hardware]:
        names = sorted({path.stem for folder in self.folders for path in folder.glob("*.yaml")})
        return {name: self.entry(name) for name in names if name != "auto"}

    def path(self, name: str) -> Path | None:
        return next((path for folder in self.folders if (path := folder / f"{name}.yaml").is_file()), None)

    def entry(self, name: str) -> Hardware:
        return Hardware(**self._values(name))

    def _values(self, name: str) -> dict[str, Any]:
        """The keys of a file, with those that it inherits."""
        with open(self.path(name), encoding="utf-8") as file:
            values = yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # the former is ten times as fast
        parents = [parent for parent in values.pop("defaults", []) if parent != "_self_"]
        return {key: value for parent in parents for key, value in self._values(parent).items()} | values

    def gpu(self, device_name: str) -> Hardware | None:
        """The entry of a GPU, by what its driver calls it."""
        return next((e for e in self.entries.values() if e.gpu and re.search(e.gpu, device_name)), None)

    def tpu(self, slice: str) -> Hardware | None:
        """The entry of a TPU, by its accelerator type."""
        return next((e for e in self.entries.values() if e.slice and e.slice_kind == kind_of(slice)), None)

    def named(self, hardware: Hardware) -> Hardware | None:
        """The entry from which a machine was made."""
        return next((e for e in self.entries.values() if e.name == hardware.name), None)

    def here(self, accelerator: str) -> Hardware:
        """The machine at hand; memory None where it cannot be known without starting the device."""
        cpu = self.entries["cpu"]
        if accelerator == "gpu" and (gpu := machine.first_gpu()):
            name, memory = gpu
            detected = {"name": name, "memory": memory, "devices": machine.gpus(), "per_host": max(1, machine.gpus())}
            unknown = cpu.changed(**dict.fromkeys(_UNKNOWN), accelerator="gpu", cores=None)
            return (self.gpu(name) or unknown).changed(**detected)
        if accelerator == "tpu" and (entry := self.tpu(machine.tpu_slice())):
            return entry.changed(slice=machine.tpu_slice(), devices=None)
        if accelerator == "cpu":
            cores = os.cpu_count() or 1
            peaks = {key: getattr(cpu, key) / cpu.cores * cores for key in ("peak_bf16", "peak_fp32")}
            source = f"{cpu.mfu_source}; this CPU's {cores} cores were not timed"
            memory = machine.main_memory()
            return cpu.changed(**peaks, name=f"this CPU, {cores} cores", memory=memory, cores=cores, mfu_source=source)
        return cpu.changed(**dict.fromkeys(_UNKNOWN), name=f"this machine's {accelerator}", accelerator=accelerator)


_UNKNOWN = ("peak_bf16", "peak_fp32", "interconnect", "memory_bandwidth", "memory", "price", "mfu", "mfu_source", "slice")


def peak_flops(device_name: str) -> float | None:
    """Peak bfloat16 FLOP/s of a device by the name that it has itself, a GPU's or a TPU slice's, else None."""
    table = Table()
    entry = table.tpu(device_name) or table.gpu(device_name)
    return entry.peak_bf16 if entry else None


def resolve(hardware: Hardware, accelerator: str, table: Table | None = None) -> Hardware:
    """What hardware=... means: hardware=auto is the machine at hand, and a slice has its devices counted."""
    table = table or Table()
    if hardware.name == "auto":
        typed = {key: value for key in ("price", "zone") if (value := getattr(hardware, key)) is not None}
        return table.here(accelerator).changed(**typed).with_slice_counted()
    counted = hardware.with_slice_counted()
    own = table.named(hardware)
    if hardware.slice and own and own.slice and own.slice_kind != hardware.slice_kind:
        raise ConfigError(
            f"hardware.slice={hardware.slice}: {hardware.name} comes in slices called {own.slice_kind}-<number>, as {own.slice}"
        )
    return counted


def best_trainer(choice: str | None, words: Sequence[str], folders: Sequence[Path]) -> str:
    """trainer=auto: the choice of `trainer` for the machine that hardware=<choice> and hardware.devices= in a command describe."""
    typed = {key: value for key, _, value in (word.partition("=") for word in words)}
    choice, table = choice or typed.get("hardware", "auto"), Table(folders)
    if choice == "auto" or table.path(choice) is None:
        return machine.best_preset()
    entry = table.entry(choice)
    devices = typed.get("hardware.devices", "")
    return machine.best_preset(entry.accelerator, int(devices) if devices.isdigit() else entry.devices)
