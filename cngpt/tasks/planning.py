"""From a configuration to what is planned: the machine, how the model is spread over it, and whether training may begin."""

import os
import re
from dataclasses import fields
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cngpt.errors import ConfigError
from cngpt.plan.advice import TIGHT, TOO_LARGE, advise, needed, verdict
from cngpt.plan.memory import memory
from cngpt.plan.rules import contradiction
from cngpt.plan.setup import Hardware, Setup
from cngpt.tasks import inputs
from cngpt.tasks.inputs import plain
from cngpt.tokens.order import divide

TABLE = Path(__file__).parents[2] / "conf" / "hardware"
VOCABULARIES = {"hanzi": 8704, "bert": 21128, "clue": 8021, "mbert": 119547}  # no file is opened for these
CORES_PER_DEVICE = {
    "v4": 2,
    "v5p": 2,
}  # the slice's name counts cores; v2 and v3 cores are devices, v5litepod and v6e count chips


def hardware_of(cfg: DictConfig) -> Hardware:
    """What hardware=... says; hardware=auto: what is known of this machine."""
    entry = plain(cfg)["hardware"]
    if entry["name"] == "auto":
        entry = here(cfg.trainer.accelerator) | {k: v for k, v in entry.items() if v is not None and k in ("price", "zone")}
    if entry["slice"]:
        devices = slice_devices(entry["slice"])
        own = next((e["slice"] for e in map(listed, names()) if e["name"] == entry["name"] and e["slice"]), entry["slice"])
        if (kind := own.rpartition("-")[0]) != entry["slice"].rpartition("-")[0]:
            raise ConfigError(
                f"hardware.slice={entry['slice']}: {entry['name']} comes in slices called {kind}-<number>, as {own}"
            )
        entry["devices"] = entry["devices"] or devices
    return Hardware(**{f.name: entry[f.name] for f in fields(Hardware)})


def slice_devices(name: str) -> int:
    """v3-256: 256 devices; v4-32: 16."""
    kind, _, count = name.rpartition("-")
    if not kind or not count.isdigit() or int(count) < 1:
        raise ConfigError(f"hardware.slice={name}: an accelerator type such as v3-256, v4-32, v5litepod-16")
    return max(1, int(count) // CORES_PER_DEVICE.get(kind, 1))


def listed(name: str) -> dict:
    """An entry of conf/hardware, with what it inherits."""
    entry = OmegaConf.load(TABLE / f"{name}.yaml")
    parents = [p for p in entry.pop("defaults", []) if p != "_self_"]
    return {k: v for parent in parents for k, v in listed(parent).items()} | OmegaConf.to_container(entry)


def here(accelerator: str) -> dict:
    """The machine at hand, as an entry of conf/hardware; memory None where it cannot be known without starting the device."""
    if accelerator == "gpu":
        import torch

        if torch.cuda.is_available():
            found = torch.cuda.get_device_properties(0)
            devices = torch.cuda.device_count()
            entry = next((e for e in map(listed, names()) if e["gpu"] and re.search(e["gpu"], found.name)), None)
            unknown = listed("h100") | dict.fromkeys(
                ("peak_bf16", "interconnect", "memory_bandwidth", "price", "mfu", "mfu_source")
            )
            return (entry or unknown) | {
                "name": found.name,
                "memory": found.total_memory,
                "devices": devices,
                "per_host": devices,
            }
    elif accelerator == "tpu":
        name = os.environ.get("TPU_ACCELERATOR_TYPE", "")  # set on every TPU VM
        kind = {"v5litepod": "v5e"}.get(name.rpartition("-")[0], name.rpartition("-")[0])
        if kind in names():
            return listed(kind) | {"slice": name}
    elif accelerator == "cpu":
        cpu, cores = listed("cpu"), os.cpu_count() or 1
        peaks = {k: cpu[k] / cpu["cores"] * cores for k in ("peak_bf16", "peak_fp32")}
        source = f"{cpu['mfu_source']}; this CPU's {cores} cores were not timed"
        return cpu | peaks | {"name": f"this CPU, {cores} cores", "memory": main_memory(), "cores": cores, "mfu_source": source}
    unknown = dict.fromkeys(
        ("peak_bf16", "peak_fp32", "interconnect", "memory_bandwidth", "memory", "mfu", "mfu_source", "slice")
    )
    return listed("cpu") | unknown | {"name": f"this machine's {accelerator}", "accelerator": accelerator}


def names() -> list[str]:
    return sorted(p.stem for p in TABLE.glob("*.yaml"))


def main_memory() -> float | None:
    """Bytes of memory and swap that this process may use at most, a container's limit included."""
    limits = []
    try:
        known = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M))
        limits.append(1024 * (int(known["MemTotal"]) + int(known.get("SwapTotal", 0))))
    except (OSError, KeyError):
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return min(limits) if limits else None


def setup_of(cfg: DictConfig, model: dict, hardware: Hardware) -> Setup:
    """How trainer.* spreads the model over the machine. ConfigError where the batch does not divide, or `train` would refuse it there."""
    t = cfg.trainer
    if t.accelerator != hardware.accelerator:
        suits = {"tpu": "trainer=tpu_pod", "gpu": "trainer=gpu, ddp or fsdp", "cpu": "trainer=cpu"}.get(
            hardware.accelerator, "another"
        )
        raise ConfigError(f"trainer.accelerator={t.accelerator}: {hardware.name} is a {hardware.accelerator}; take {suits}")
    asked = t.devices if isinstance(t.devices, int) else None
    if hardware.slice and asked and asked > 1:
        if asked not in (hardware.per_host, hardware.devices):
            raise ConfigError(
                f"trainer.devices={asked}: of {hardware.slice} auto takes all {hardware.devices} devices, 1 a single one"
            )
        asked = None  # of each host: all of the slice
    devices = asked * t.num_nodes if asked else hardware.devices * (t.num_nodes if not hardware.slice else 1)
    parallel = t.get("tensor_parallel", 1) or 1
    strategy = "ddp" if t.strategy == "single" and devices > 1 and not asked else t.strategy
    how = {"offload": bool(t.get("offload", False)), "tensor_parallel": parallel, "compile": bool(t.get("compile", False))}
    if wrong := contradiction(strategy, devices, cfg.optim.name, model["width"], **how):
        raise ConfigError(wrong)
    b = divide(cfg.tokens_per_step, model["n_ctx"], devices // parallel, t.micro_batch, t.micro_batch_tokens)
    return Setup(
        model={k: model[k] for k in ("block", "vocab_size", "n_ctx", "n_layer", "n_head", "width", "dropout")},
        accelerator=t.accelerator,
        strategy=strategy,
        precision=t.precision,
        optimizer=cfg.optim.name,
        micro=b.micro,
        accumulate=b.accumulate,
        devices=devices,
        hosts=max(t.num_nodes, -(-devices // hardware.per_host) if t.accelerator != "cpu" else 1),
        activation_checkpointing=t.activation_checkpointing,
        offload=bool(t.get("offload", False)),
        tensor_parallel=parallel,
    )


def enforce(cfg: DictConfig, model: dict) -> None:
    """ConfigError where training `model` surely does not fit the device at hand (plan.enforce=true), with what to change."""
    if not cfg.plan.enforce:
        return
    hardware = here_of(cfg)
    if hardware.memory is None:
        return
    setup = setup_of(cfg, model, hardware)
    m = memory(setup)
    if verdict(setup, m, hardware.memory) != TOO_LARGE:
        return
    ask = (setup, hardware, hardware.memory, cfg.tokens_per_step, hardware.devices)
    sure, perhaps = advise(*ask), advise(*ask, enough=TIGHT)
    what = "add " + " or ".join(" ".join(way) for way in sure) if sure else "take a smaller model="
    if not sure and perhaps:
        what = "it may fit with " + " or ".join(" ".join(way) for way in perhaps)
    raise ConfigError(
        f"plan.enforce: this run needs {needed(setup, m) / 1e9:,.1f} GB, {hardware.name} has {hardware.memory / 1e9:,.1f};"
        f" {what}; python run.py task=plan says why, plan.enforce=false tries it all the same"
    )


def here_of(cfg: DictConfig) -> Hardware:
    entry = here(cfg.trainer.accelerator)
    if entry["slice"]:
        entry["devices"] = slice_devices(entry["slice"])
    return Hardware(**{f.name: entry[f.name] for f in fields(Hardware)})


def planned_model(cfg: DictConfig, typed: set[str]) -> dict:
    """What `Shape` takes, from the configuration or from the checkpoint that it begins with; no tokenizer is opened if its size is known."""
    head, path = None, None
    if cfg.ckpt or cfg.init:
        start = inputs.start_of(cfg, typed)
        head, path = start.head, start.path
    model = inputs.shape_of(cfg, typed, head, path)
    if "vocab_size" in model:
        return model
    size = VOCABULARIES.get(cfg.tokenizer.name) if "path" not in cfg.tokenizer else None
    return {"vocab_size": size or inputs.tokenizer_of(cfg, typed, head, path).vocab_size, **model}


def data_tokens(cfg: DictConfig) -> int | None:
    """Training tokens of the shards that are there for this data and tokenizer, the newest; None before they are prepared."""
    from cngpt.tokens.shards import Shards

    if cfg.data.name == "sample":  # whoever plans for weeks reads something else
        return None
    if cfg.data.name == "shards":
        folders = [Path(str(cfg.data.root))]
    elif cfg.prepare.out:
        folders = [Path(str(cfg.prepare.out))]
    else:
        folders = sorted(Path(cfg.paths.data).glob(f"{cfg.data.name}-{cfg.tokenizer.name}-*"), key=lambda p: p.stat().st_mtime)
    whole = [f for f in folders if (f / "train" / "manifest.json").exists()]
    return Shards(whole[-1] / "train").tokens if whole else None


def words_of(typed: set[str]) -> list[str]:
    """The command as it was typed, without what is for task=plan alone."""
    from hydra.core.hydra_config import HydraConfig

    words = HydraConfig.get().overrides.task
    return [w for w in words if not re.match(r"(task|launch|out|hardware|overwrite|name)\b", w)]
