"""Checks of a composed configuration, all of them before anything slow starts; each failure is one line."""

import importlib.util
import re
import sys
from pathlib import Path

from hydra import compose
from omegaconf import DictConfig, ListConfig, OmegaConf

from cngpt import files
from cngpt.cli import machine
from cngpt.cli.explain import WHAT
from cngpt.corpus.clean import build
from cngpt.errors import ConfigError, nearest
from cngpt.plan.rules import contradiction
from cngpt.tokens.order import divide

TEXTS = (
    "from",
    "to",
    "path",
    "vocab",
    "config",
    "eos",
    "out",
    "ckpt",
    "init",
    "prompts_file",
    "prepare.out",
    "prepare.texts",
    "prepare.slurm.partition",
    "prepare.slurm.qos",
    "prepare.slurm.setup",
    "data.root",
    "hardware.slice",
    "hardware.zone",
    "callbacks.checkpoint.folder",
    "generation.rerank",
)
NULL = ("trainer.clip_norm",)  # null switches these off
AUTO = ("trainer.devices", "trainer.micro_batch", "prepare.processes")

CHOICES = {
    "model.block": ("preln", "gpt2ml"),
    "trainer.accelerator": ("cpu", "gpu", "mps", "tpu"),
    "trainer.strategy": ("single", "ddp", "fsdp", "deepspeed_zero2", "deepspeed_zero3", "xla"),
    "trainer.precision": ("32-true", "bf16-mixed", "bf16-true"),
    "optim.name": ("adamw", "adafactor", "gpt2ml_adafactor"),
    "schedule.name": ("cosine", "linear", "wsd", "constant", "gpt2ml"),
    "logger.mode": ("auto", "online", "offline"),
    "generation.nucleus": ("usual", "gpt2ml"),
    "generation.stop": ("usual", "gpt2ml"),
    "generation.join": ("usual", "gpt2ml"),
    "tokenizer.manner": ("hf", "gpt2ml"),
    "data.split": ("file", "line", "blank"),
    "prepare.engine": ("local", "datatrove", "datatrove_slurm", "datatrove_ray"),
    "kind": ("wordpiece", "bpe"),
    "bench": ("prepare",),
    "from": ("gpt2ml", "gpt2ml_tfrecord", "huggingface", "checkpoint"),
    "to": ("huggingface",),
    "launch": ("gcloud", "queued", "torchrun", "slurm"),
}

POSITIVE = (
    "tokens_per_step", "max_steps", "model.n_layer", "model.n_head", "model.width", "model.n_ctx", "model.initializer_range",
    "optim.lr", "optim.eps", "trainer.devices", "trainer.num_nodes", "trainer.tensor_parallel", "trainer.micro_batch", "trainer.micro_batch_tokens", "trainer.clip_norm",
    "callbacks.log_every", "callbacks.validation.every", "callbacks.checkpoint.every", "callbacks.samples.new_tokens", "prepare.processes",
    "prepare.shard_mb", "prepare.slurm.tasks", "prepare.slurm.memory_gb", "schedule.total_steps", "generation.max_new_tokens", "generation.repetition_penalty", "n", "vocab_size",
    "repeats", "megabytes", "hardware.devices", "hardware.per_host", "hardware.memory", "hardware.peak_bf16", "hardware.peak_fp32",
    "hardware.interconnect", "hardware.price", "hardware.mfu",
)  # fmt: skip

NOT_NEGATIVE = (
    "seed", "schedule.warmup_steps", "optim.weight_decay", "callbacks.validation.windows", "callbacks.samples.every",
    "trainer.num_workers", "generation.temperature", "generation.top_k", "generation.min_new_tokens", "generation.min_len", "generation.seed",
    "inspect",
)  # fmt: skip

SHARES = {
    "data.valid_fraction": 0.5,
    "valid_fraction": 0.5,
    "model.dropout": 0.99,
    "generation.top_p": 1.0,
    "schedule.final": 1.0,
    "schedule.decay_fraction": 1.0,
}

NEEDS = {
    "deepspeed": ("deepspeed", "pip install -e '.[deepspeed]'"),
    "xla": ("torch_xla", "in an environment of its own: pip install -e '.[tpu]' -c constraints-tpu.txt"),
}

ENGINES_NEED = {  # package: {engine: remedy}
    "datatrove": dict.fromkeys(("datatrove", "datatrove_slurm", "datatrove_ray"), "pip install -e '.[datatrove]'"),
    "ray": {"datatrove_ray": "pip install -e '.[ray]'"},
}


def shorten_warmup(cfg: DictConfig, typed: set[str]) -> None:
    """A recipe's warmup that does not fit into few steps becomes a tenth of them, unless it was asked for by name."""
    total = cfg.schedule.get("total_steps")
    fits = not isinstance(total, int) or total < 1 or cfg.schedule.warmup_steps < total
    if cfg.task == "train" and not fits and "schedule.warmup_steps" not in typed:
        print(
            f"note: schedule.warmup_steps={total // 10}, for {cfg.schedule.warmup_steps} do not fit into {total} steps",
            file=sys.stderr,
        )
        cfg.schedule.warmup_steps = total // 10


def check(cfg: DictConfig, overrides: list[str], choices: dict[str, str], sweep: bool) -> None:
    """Raises ConfigError for the first thing that is wrong. `overrides` as typed; `choices` the group chosen for each."""
    for key in ("init", "ckpt", "data.root", "from", "path"):
        OmegaConf.select(cfg, key)  # raises where it is needed and not given
    for o in overrides:
        if o.startswith("+") and o[1:].partition("=")[0] not in choices:
            raise ConfigError(f"{o}: nothing reads a key that conf/ does not have; python run.py --help lists them")
    texts(cfg)
    if cfg.task != "plan" and (typed := next((o for o in overrides if re.match(r"hardware\b", o)), None)):
        raise ConfigError(f"{typed}: is for task=plan; the other tasks take the machine that they run on")
    if cfg.data.name == "sample" and any(o.startswith("data.root=") for o in overrides):
        raise ConfigError(
            f"data.root={cfg.data.root}: data=sample has texts of its own; yours need data=files (or thucnews, ...)"
        )
    for key in ("ckpt", "init"):
        if cfg[key] is not None and "://" not in str(cfg[key]) and not Path(str(cfg[key])).exists():
            raise ConfigError(f"{key}={cfg[key]}: there is nothing of this name; a run directory, model directory or checkpoint")
    values = [o for o in overrides if not o.startswith("~") and o.partition("=")[0].lstrip("+").partition("@")[0] not in choices]
    if cfg.task in ("train", "prepare", "tokenizer", "bench"):
        sources(cfg)
        build(OmegaConf.to_container(cfg.clean, resolve=True))
    types(cfg, [o for o in overrides if o not in values], [v.partition("=")[0].lstrip("+") for v in values])
    ranges(cfg)
    model(cfg)
    if files.is_remote(OmegaConf.select(cfg, "out") or ""):
        raise ConfigError(f"out={cfg.out}: is remote, and this is written to a local disk; copy it there afterwards")
    if cfg.task == "convert":
        conversion(cfg)
    if cfg.task in ("train", "prepare"):
        engine(cfg)
        if "://" in str(cfg.prepare.texts):
            raise ConfigError(
                f"prepare.texts={cfg.prepare.texts}: the clean texts stay on a local disk; prepare.out may be remote"
            )
    if cfg.task == "train":
        folder, strategy = cfg.callbacks.checkpoint.folder, cfg.trainer.strategy
        if folder and (strategy != "xla" or not files.is_remote(folder)):
            raise ConfigError(
                f"callbacks.checkpoint.folder={folder}: is for a bucket (gs://...) with trainer=tpu or tpu_pod; others write to the"
                " run's own folder, paths.runs=..."
            )
        if sweep and (cfg.trainer.strategy != "single" or cfg.trainer.num_nodes > 1):
            raise ConfigError(
                f"trainer.strategy={cfg.trainer.strategy} with -m: a sweep runs on single devices; use trainer=cpu or trainer=gpu"
            )
        if cfg.data.name == "shards" and cfg.prepare.out:
            raise ConfigError(
                f"prepare.out={cfg.prepare.out}: data=shards reads data.root={cfg.data.root} as it is; leave prepare.out out"
            )
        if folder:  # it is looked into before the run is announced
            libraries(strategy)
        warmup, total = cfg.schedule.warmup_steps, cfg.schedule.get("total_steps")
        if total is not None and warmup >= total:
            raise ConfigError(
                f"schedule.warmup_steps={warmup}: must be below schedule.total_steps={total}, else the peak is never reached"
            )


def sources(cfg: DictConfig) -> None:
    """That data.sources is a list of mappings, each with its reader and root."""
    form = "a list of mappings, as [{reader: files, root: my_texts}]"
    listed = OmegaConf.to_container(cfg.data.sources, resolve=True) if OmegaConf.is_list(cfg.data.sources) else None
    if not listed:
        raise ConfigError(f"data.sources={show(cfg.data.sources)}: {form} is needed")
    for source in listed:
        if not isinstance(source, dict) or not all(isinstance(source.get(key), str) for key in ("reader", "root")):
            raise ConfigError(f"data.sources: {show(source)} is no mapping with the texts reader and root; {form} is needed")


def engine(cfg: DictConfig) -> None:
    """That what prepare.engine runs on is installed, and told what it must know."""
    name = cfg.prepare.engine
    for package, users in ENGINES_NEED.items():
        if name in users and importlib.util.find_spec(package) is None:
            raise ConfigError(f"prepare.engine={name} needs {package}, which is not installed: {users[name]}")
    if name == "datatrove_slurm" and not cfg.prepare.slurm.partition:
        raise ConfigError("prepare.slurm.partition=... is needed: the part of the cluster where the tasks run (sinfo lists them)")


def hardware(cfg: DictConfig) -> None:
    """That the devices asked for are there, with the libraries they need, and divide the batch."""
    t = cfg.trainer
    libraries(t.strategy)
    if t.accelerator == "gpu" and t.num_nodes == 1:
        there = machine.gpus()
        if not there:
            raise ConfigError(
                "trainer.accelerator=gpu: torch sees no GPU here; use trainer=cpu, or a torch build for your GPU's driver"
            )
        if isinstance(t.devices, int) and t.devices > there:
            raise ConfigError(
                f"trainer.devices={t.devices}: this machine has {there} GPU{'s' * (there > 1)}; take as many, or trainer.devices=auto"
            )
    if t.accelerator == "mps":
        if not machine.apple_gpu():
            raise ConfigError("trainer.accelerator=mps: this is no Mac with Apple silicon; use trainer=cpu or trainer=gpu")
        if t.strategy != "single" or t.devices not in ("auto", 1):
            raise ConfigError(f"trainer.accelerator=mps: is one device, with trainer.strategy=single, not {t.strategy}")
    if t.strategy == "xla":
        xla(t)
    count = machine.devices(t.accelerator, t.devices)
    world = None if count is None else count * t.num_nodes
    how = {"offload": t.offload, "tensor_parallel": t.tensor_parallel, "compile": t.compile}
    if wrong := contradiction(t.strategy, world, cfg.optim.name, cfg.model.width, **how):
        raise ConfigError(wrong)
    if count is not None and "n_ctx" in cfg.model:
        readers = world // t.tensor_parallel
        divide(cfg.tokens_per_step, cfg.model.n_ctx, readers, t.micro_batch, t.micro_batch_tokens)


def libraries(strategy: str) -> None:
    for part, (package, remedy) in NEEDS.items():
        if strategy.startswith(part) and importlib.util.find_spec(package) is None:
            raise ConfigError(f"trainer.strategy={strategy} needs {package}, which is not installed: {remedy}")


def xla(t: DictConfig) -> None:
    """That there is what torch_xla is to drive, and that it is asked for what it can."""
    there = machine.xla_devices()
    if t.accelerator != "tpu":
        raise ConfigError(f"trainer.strategy=xla is for trainer.accelerator=tpu, not {t.accelerator}: use trainer=tpu")
    if not there:
        raise ConfigError(
            "trainer.accelerator=tpu: no TPU here; on a CPU it can be tried as PJRT_DEVICE=CPU CPU_NUM_DEVICES=4 python run.py ..."
        )
    if t.devices not in ("auto", 1, there):
        raise ConfigError(f"trainer.devices={t.devices}: {there} TPU device(s) here; auto takes all of the slice, 1 a single one")
    if t.compile:
        raise ConfigError("trainer.compile=true: torch_xla compiles by itself; leave it out")


def texts(cfg: DictConfig) -> None:
    """Keys that hold a text are made one where a number was typed; a list is what Hydra makes of [SEP] without quotes."""
    for key in TEXTS:
        value = OmegaConf.select(cfg, key)
        if OmegaConf.is_config(value):
            raise ConfigError(f"{key}={show(value)}: a text is needed; brackets want quotes within quotes: '{key}=\"[SEP]\"'")
        if value is not None and not isinstance(value, str):
            OmegaConf.update(cfg, key, show(value))


def conversion(cfg: DictConfig) -> None:
    """That the keys of task=convert go with what it converts from."""
    for key in ("from", "path"):
        if cfg[key] is None:
            raise ConfigError(f"{key}=null: {WHAT[key]} is needed")
    if cfg["from"] == "checkpoint" and not Path(cfg.path).exists():  # the others know better what may have been meant
        raise ConfigError(f"path={cfg.path}: there is nothing of this name")
    others = ("gpt2ml", "gpt2ml_tfrecord", "huggingface")
    of = {"config": ("gpt2ml",), "optimizer": ("gpt2ml",), "vocab": others, "eos": others}
    for key, sources in of.items():
        if cfg[key] and cfg["from"] not in sources:
            raise ConfigError(f"{key}={show(cfg[key])}: goes with from={' and from='.join(sources)}, not with from={cfg['from']}")


def types(cfg: DictConfig, group_overrides: list[str], keys: list[str]) -> None:
    """That each value typed is of the kind that its default is."""
    if not keys:
        return
    defaults = compose("config", [o for o in group_overrides if not o.startswith("hydra")])
    for key in keys:
        if key.startswith(("hydra", "clean")):  # clean: its rules know their thresholds, see cngpt/corpus/clean
            continue
        before, now = OmegaConf.select(defaults, key, throw_on_resolution_failure=False), OmegaConf.select(cfg, key)
        if (
            before is None
            or (now is None and key in NULL)
            or (now == "auto" and key in AUTO)
            or (before == "auto" and isinstance(now, int))
        ):
            continue
        if not same_kind(before, now):
            raise ConfigError(f"{key}={show(now)}: {kind(before)} is needed, as its default {show(before)}")


def same_kind(before, now) -> bool:
    if isinstance(before, bool) or isinstance(now, bool):
        return isinstance(before, bool) and isinstance(now, bool)
    if isinstance(before, float):
        return isinstance(now, int | float)
    if isinstance(before, str):
        return isinstance(now, str | int | float)  # name=2024 is a name
    return isinstance(now, type(before))


def kind(value) -> str:
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        ListConfig: "a list [a,b]",
        DictConfig: "a group of keys",
    }
    return names.get(type(value), type(value).__name__)


def show(value) -> str:
    value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return {True: "true", False: "false", None: "null"}.get(value, str(value)) if isinstance(value, bool | None) else str(value)


def ranges(cfg: DictConfig) -> None:
    for key, allowed in CHOICES.items():
        value = OmegaConf.select(cfg, key)
        if value is not None and value not in allowed:
            raise ConfigError(f"{key}={show(value)}: one of {', '.join(allowed)}.{nearest(str(value), allowed)}")
    for key in AUTO:
        value = OmegaConf.select(cfg, key)
        if value != "auto" and (isinstance(value, bool) or not isinstance(value, int)):
            raise ConfigError(f"{key}={show(value)}: a whole number above 0, or auto")
    for key in POSITIVE:
        value = OmegaConf.select(cfg, key)
        if isinstance(value, int | float) and not value > 0:
            raise ConfigError(f"{key}={show(value)}: must be above 0")
    for key in NOT_NEGATIVE:
        value = OmegaConf.select(cfg, key)
        if isinstance(value, int | float) and not value >= 0:
            raise ConfigError(f"{key}={show(value)}: must be 0 or more")
    for key, top in SHARES.items():
        value = OmegaConf.select(cfg, key, throw_on_missing=False)
        if isinstance(value, int | float) and not 0 <= value <= top:
            raise ConfigError(f"{key}={show(value)}: must be from 0 to {top:g}")
    for source, weight in (cfg.data.get("weights") or {}).items():
        if not 0 < weight <= 100:
            raise ConfigError(
                f"data.weights.{source}={show(weight)}: how often it is read in one pass, above 0 and at most 100;"
                f" to leave it out, take the other corpus alone: data=..."
            )
    if cfg.name is not None and not re.fullmatch(r"[^/\\\s.][^/\\]*", str(cfg.name)):
        raise ConfigError(f"name={cfg.name}: a folder's name, without / and not beginning with a dot")


def model(cfg: DictConfig) -> None:
    m = cfg.model
    if m.width % m.n_head:
        near = [h for h in range(1, m.width + 1) if m.width % h == 0]
        best = sorted(near, key=lambda h: abs(h - m.n_head))[:2]
        raise ConfigError(
            f"model.width={m.width} does not divide into model.n_head={m.n_head} heads; nearest n_head: {', '.join(map(str, sorted(best)))}"
        )


def announcement(cfg: DictConfig, choices: dict[str, str], begins_with: Path | None) -> str:
    """What `train` is going to do, in one line, before it looks at the machine."""
    m = cfg.model
    if cfg.data.name == "sample":
        source = "the bundled sample, 190 thousand characters (data=... for a real corpus)"
    else:
        source = OmegaConf.select(cfg, "data.root")
    return (
        f"{cfg.name}: {f'model from {begins_with}' if begins_with else 'model=' + choices['model']} ({m.n_layer} layers x {m.width}) on data={choices['data']}: {source};"
        f" {cfg.max_steps:,} steps of {cfg.tokens_per_step:,} tokens"
    )
