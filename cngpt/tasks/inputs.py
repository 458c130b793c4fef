"""What a configuration means: which checkpoint, tokenizer, shape, shards and prompts a task works with."""

import functools
import hashlib
import json
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cngpt.bar import Bar
from cngpt.errors import ConfigError, UserError


def first_process() -> bool:
    """Whether this is the process of its host that prepares, writes and speaks."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", 0))) == 0


def first_of_all() -> bool:
    """Whether this is the one process of all hosts that may remove something."""
    ranks = (os.environ.get(key) for key in ("RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK"))
    return first_process() and int(next((rank for rank in ranks if rank), tpu_worker())) == 0


@functools.cache
def tpu_worker() -> int:
    """The number of this host in a TPU slice, 0 elsewhere: as torch_xla finds it, whose import takes seconds."""
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
    found = re.search(r"^WORKER_ID: *'?(\d+)", tpu_env, re.MULTILINE)
    return int(found[1]) if found else 0


def say(text: str) -> None:
    """To the person at the terminal, once a host; results alone go to stdout."""
    if first_process():
        print(text, file=sys.stderr, flush=True)


def plain(cfg: DictConfig) -> dict:
    """Resolved plain values: what lower floors, checkpoints and W&B may see."""
    return OmegaConf.to_container(cfg, resolve=True)


@dataclass(frozen=True)
class Start:
    """What a training run begins with: nothing, the weights of `path`, or (`resume`) everything in the checkpoint `path`."""

    path: Path | None = None
    resume: bool = False
    head: dict | None = None  # as store.header gives it


def start_of(cfg: DictConfig, typed: set[str]) -> Start:
    """From ckpt=, init= and what the run's own folder holds. Sets cfg.model to the shape that the checkpoint has.

    Raises ConfigError where they contradict each other or the configuration.
    """
    from cngpt import store

    if cfg.ckpt and cfg.init:
        raise ConfigError(
            "ckpt and init are both given: ckpt goes on with the optimizer's state, init begins afresh with the weights"
        )
    folder = run_folder(cfg)
    if cfg.overwrite:
        for key in ("ckpt", "init"):
            if cfg[key] and Path(cfg[key]).resolve().is_relative_to(folder.resolve()):
                raise ConfigError(f"{key}={cfg[key]}: overwrite=true would remove it with {folder}; take another name=...")
    if (bucket := cfg.callbacks.checkpoint.folder) and not cfg.overwrite and first_process():
        from cngpt.training import remote

        remote.fetch_newest(bucket, folder / "checkpoints")
    own = [] if cfg.overwrite else checkpoints(folder)
    asked = checkpoint_of(Path(cfg.ckpt)) if cfg.ckpt else None
    if asked and (not own or asked.parent.resolve() == own[-1].parent.resolve()):
        start = Start(asked, True, store.header(asked))
    elif own:
        start = Start(own[-1], True, store.header(own[-1]))
    elif cfg.init:
        start = Start(Path(cfg.init), False, store.header(cfg.init))
        if not any(key == "experiment" or key.startswith("optim") for key in typed):
            raise ConfigError(f"init={cfg.init}: a rate is needed too: optim.lr=..., or experiment=finetune")
    else:
        return Start()
    shape = shape_of(cfg, typed, start.head, start.path)
    if start.resume:
        for key, then in (start.head.get("training") or {}).items():
            if (now := OmegaConf.select(cfg, key)) != then:
                raise ConfigError(
                    f"{key}={now}: {start.path} was trained with {key}={then}, and goes on with it only; init={start.path} begins afresh"
                )
    if start.resume and own:
        same_data(cfg, folder)
    cfg.model = {**cfg.model, **shape}
    return start


def same_data(cfg: DictConfig, folder: Path) -> None:
    """ConfigError where a run of this name has read other texts: mixing them needs a name of its own."""
    path = folder / "config.yaml"
    before = OmegaConf.load(path).data.sources if path.exists() else None
    if before is not None and OmegaConf.to_container(before) != plain(cfg)["data"]["sources"]:
        raise ConfigError(
            f"data={cfg.data.name}: {folder} was trained on {', '.join(s.root for s in before)}; to go on with other texts take"
            f" another name=... with ckpt={folder} or init={folder}"
        )


def run_folder(cfg: DictConfig) -> Path:
    return Path(cfg.paths.runs) / cfg.name


def checkpoints(folder: Path) -> list[Path]:
    """The whole training checkpoints of a run, oldest first."""
    return sorted((folder / "checkpoints").glob("step_*.ckpt"))


def checkpoint_of(path: Path) -> Path:
    """What ckpt= means for training: a checkpoint, or the newest one of a run directory."""
    if (path / "config.json").exists():
        raise ConfigError(
            f"ckpt={path}: a model directory has no optimizer state to go on from; begin with its weights: init={path}"
        )
    if checkpoints(path):
        return checkpoints(path)[-1]
    if path.is_dir() and path.suffix != ".ckpt":
        raise ConfigError(f"ckpt={path}: holds no checkpoints/step_*.ckpt")
    return path


def set_aside_later(start: Start) -> None:
    """Going back to an earlier checkpoint of the same run: the later ones keep their bytes under another name."""
    for path in sorted(start.path.parent.glob("step_*.ckpt")):
        if path.name > start.path.name:
            path.rename(path.with_name(path.name + ".set_aside"))


def tokenizer_of(cfg: DictConfig, typed: set[str], head: dict | None, path: Path | None):
    """The tokenizer of the configuration, or of the checkpoint, where there is one; they must not contradict each other."""
    from cngpt.tokens import load_tokenizer

    own = head["tokenizer"] if head else None
    beside = (fetched(cfg) if cfg.data.name == "shards" else Path()) / "tokenizer.json"
    if (
        own is None
        and cfg.data.name == "shards"
        and beside.is_file()
        and not any(key.split(".")[0] == "tokenizer" for key in typed)
    ):
        return load_tokenizer(beside)  # as convert leaves it beside the shards
    if own and not any(key.split(".")[0] == "tokenizer" for key in typed):
        return own
    options = {k: v for k, v in plain(cfg)["tokenizer"].items() if k not in ("name", "path")}
    name = cfg.tokenizer.name
    if "path" in cfg.tokenizer:
        if not cfg.tokenizer.path:
            raise ConfigError(
                "tokenizer.path=... is needed: the folder that task=tokenizer wrote, or with tokenizer=wordpiece a vocab.txt"
            )
        name = cfg.tokenizer.path
    made = load_tokenizer(name, **options)
    if own and own.fingerprint != made.fingerprint:
        raise ConfigError(
            f"tokenizer={cfg.tokenizer.name}: {path} was trained with another vocabulary ({own.name}); leave tokenizer= out, or train afresh"
        )
    return made


def shape_of(cfg: DictConfig, typed: set[str], head: dict | None, path: Path | None) -> dict:
    """What `Shape` takes, the vocabulary left out where no checkpoint decides it. A contradicting model= is a ConfigError;
    dropout may be chosen anew."""
    wanted = {k: v for k, v in plain(cfg)["model"].items() if k != "recipe"}
    if head is None:
        return wanted
    own = dict(head["shape"])
    if "model.dropout" in typed:
        own["dropout"] = wanted["dropout"]
    if any(key.split(".")[0] == "model" for key in typed):
        for key in ("block", "n_ctx", "n_layer", "n_head", "width"):
            if own[key] != wanted[key]:
                raise ConfigError(
                    f"model.{key}={wanted[key]}: {path} has {key}={own[key]}; leave model= out, the shape comes from the checkpoint"
                )
    return own


def prepared(cfg: DictConfig, tokenizer, again: bool = False) -> Path:
    """The folder of shards for this data, cleaning and tokenizer; made now if it is missing."""
    from cngpt import files
    from cngpt.corpus.clean import fingerprint
    from cngpt.tokens.shards import Shards

    data, clean, options = (plain(cfg)[group] for group in ("data", "clean", "prepare"))
    if data["name"] == "shards":
        return ready_made(fetched(cfg), tokenizer)
    dedup = dedup_of(cfg)
    sources = [{k: v for k, v in s.items() if k != "weight"} | {"root": absolute(s["root"])} for s in data["sources"]]
    weights = [s.get("weight", 1) for s in data["sources"]]
    decides = [sources, fingerprint(clean), vars(dedup) if dedup else None]
    remote = options["out"] if files.is_remote(options["out"] or "") else None
    if options["out"] and not remote:
        out = Path(options["out"])
    else:
        out = (
            Path(cfg.paths.data)
            / f"{data['name']}-{tokenizer.name}-{short_hash([*decides, *weights, data['valid_fraction'], tokenizer.fingerprint])}"
        )
    whole = (out / "train" / "manifest.json").exists() and (out / "valid" / "manifest.json").exists()
    if remote and not again and files.exists(files.join(remote, MARK)) and not (whole and same_shards(remote, out)):
        raise ConfigError(
            f"prepare.out={remote}: other shards are there; train on them with data=shards data.root={remote}, or overwrite=true"
        )
    if remote and (others := files.strangers(remote, SENT)):
        raise ConfigError(f"prepare.out={remote}: holds other files, {others[0]} for one; give a folder of its own")
    if not first_process():
        wait_for(out)
    elif again or not whole:
        from cngpt.corpus.prepare import prepare

        texts = options["texts"] or Path(cfg.paths.data) / f"{data['name']}-texts-{short_hash(decides)}"
        processes = options["processes"] if options["processes"] != "auto" else min(16, os.cpu_count() or 1)
        report = prepare(
            data["sources"], out, tokenizer, clean=clean, dedup=dedup, texts=texts, valid_fraction=data["valid_fraction"],
            processes=processes, engine=options["engine"], slurm=options["slurm"], memory=memory_of(options["memory"]), shard_bytes=options["shard_mb"] << 20, overwrite=again,
        )  # fmt: skip
        say(f"report   {out / 'report.html'}")
        counts = report["documents"]
        if counts["skipped"] > 0.1 * (counts["skipped"] + counts["read"]):
            reason, what = next(iter(report["skipped"].items()))
            say(
                f"warning: {counts['skipped']:,} of {counts['skipped'] + counts['read']:,} records were not read, most of them for: {reason}"
                f" ({(what['examples'] or [''])[0]})"
                + ("; data.text=<field> names the field" if reason == "missing field" else "")
            )
        if report["unknown"]["share"] > 0.01:
            say(
                f"warning: {report['unknown']['share']:.0%} of the tokens are [UNK]: {tokenizer.name} does not know these characters"
                " (hanzi has simplified ones only); see tokenizer=bert, or task=tokenizer for one of your own"
            )
    else:
        check_unchanged(data["sources"], out)
        if options["out"] and not remote:
            made = {"decided by": fingerprint(clean), "dedup": vars(dedup) if dedup else None, "weights": weights}
            check_made_with(out, {**made, "valid_fraction": data["valid_fraction"]}, [s["root"] for s in sources])
        say(f"reading {out}, made before; task=prepare overwrite=true with the same data=... makes it anew")
    shards = Shards(out / "train")
    if shards.fingerprint != tokenizer.fingerprint:
        raise UserError(
            f"{out} was made with another tokenizer than {tokenizer.name}: take another prepare.out=..., or task=prepare overwrite=true with the same data=..."
        )
    made_of = [s.get("root") for s in shards.manifest["report"].get("sources", []) if isinstance(s, dict)]
    wanted = [s["root"] for s in data["sources"]]
    if options["out"] and not remote and made_of and [Path(r).name for r in made_of] != [Path(r).name for r in wanted]:
        raise ConfigError(f"prepare.out={out}: was made of {', '.join(made_of)}, not of {', '.join(wanted)}; take another folder")
    if remote and first_of_all() and not same_shards(remote, out):
        with Bar(files.size_of(out), title="sending") as bar:
            files.send_folder(out, remote, "manifest.json", bar)
        say(f"sent to {remote}; data=shards data.root={remote} trains on it anywhere")
    return out


PARTS = [f"{part}/{name}" for part in ("train", "valid") for name in ("manifest.json", "00000.bin", "00000.idx")]
REMEDY = "task=prepare overwrite=true with the same data=... makes it anew"
SENT = [*PARTS, "report.json", "report.html", "tokenizer.json"]  # what a folder of shards holds
MARK = "train/manifest.json"  # holds the checksums of all that is trained on, and is sent last


def same_shards(remote: str, folder: Path) -> bool:
    """Whether both manifests say the same; a remote folder that was sent half has none."""
    from cngpt import files

    try:
        return all(
            files.read_json(files.join(remote, part, "manifest.json")) == files.read_json(folder / part / "manifest.json")
            for part in ("train", "valid")
        )
    except FileNotFoundError:
        return False


def fetched(cfg: DictConfig) -> Path:
    """data=shards: data.root, or the copy of a remote one on this machine's disk, made where it is missing or another by now."""
    from cngpt import files
    from cngpt.tokens.shards import Shards

    root = str(cfg.data.root)
    if not files.is_remote(root):
        return Path(root)
    for part in ("train", "valid"):
        if not files.exists(files.join(root, part, "manifest.json")):
            raise ConfigError(f"data.root={root}: holds no {part}/manifest.json; it is no folder of shards, or was sent half")
    folder = Path(cfg.paths.data) / "fetched" / f"{root.rstrip('/').rpartition('/')[2]}-{short_hash([root])}"
    if not first_process():
        while not same_shards(root, folder):
            time.sleep(1)
    elif not same_shards(root, folder):
        with Bar(files.size_of(root), title=f"fetching {root}") as bar:
            files.local_copy(root, folder, lambda new: [Shards(new / part).verify() for part in ("train", "valid")], bar)
    return folder


def absolute(path: str) -> str:
    """The same folder by the same name, from wherever the command is run."""
    from cngpt import files

    return path if files.is_remote(path) else str(Path(path).resolve())


def dedup_of(cfg: DictConfig):
    """The settings of the group `dedup`; None where nothing is compared."""
    from cngpt.corpus.dedup import Dedup

    settings = Dedup(**plain(cfg)["dedup"])
    return settings if settings.exact or settings.near or settings.lines else None


def memory_of(value: str | int) -> int:
    """prepare.memory in bytes: 8GB, 500MB or a number of bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", str(value).strip().lower())
    number = int(float(match[1]) * 1000 ** " kmgt".index(match[2] or " ")) if match else 0
    if number < 100_000_000:
        raise ConfigError(f"prepare.memory={value}: an amount such as 8GB, 100MB at least")
    return number


def short_hash(decides: list) -> str:
    return hashlib.sha256(json.dumps(decides, ensure_ascii=False).encode()).hexdigest()[:8]


def ready_made(folder: Path, tokenizer) -> Path:
    """data=shards: a folder that holds shards for this tokenizer, or ConfigError."""
    from cngpt.tokens.shards import Shards

    for part in ("train", "valid"):
        if not (folder / part / "manifest.json").exists():
            raise ConfigError(
                f"data.root={folder}: holds no {part}/manifest.json; give the folder that task=prepare or task=convert wrote"
            )
        if Shards(folder / part).fingerprint != tokenizer.fingerprint:
            raise ConfigError(
                f"data.root={folder}: was made with another tokenizer than {tokenizer.name};"
                " tokenizer= must be the one it was made with, or the texts be prepared again"
            )
    return folder


def generation_of(cfg: DictConfig, typed: set[str], head: dict | None) -> dict:
    """The keys of Sampling: as typed, else of the group that was typed, else as the model of `head` has them, else the defaults.

    A limit that nobody typed gives way to one that was.
    """
    chosen = plain(cfg)["generation"]
    chosen.pop("rerank", None)  # a model says how it is sampled, and knows no folder of this machine
    if head and "generation" not in typed:
        chosen |= {k: v for k, v in head["generation"].items() if f"generation.{k}" not in typed and k in chosen}
    if "generation.min_new_tokens" not in typed and isinstance(chosen["max_new_tokens"], int):
        chosen["min_new_tokens"] = min(chosen["min_new_tokens"], chosen["max_new_tokens"])
    if "generation.min_len" not in typed and chosen["stop"] != "gpt2ml":
        chosen["min_len"] = 0
    return chosen


def name_for(path: Path) -> str:
    """What a thing to convert is called, by its path: model.ckpt-100000 of any of its files."""
    path = path.resolve()
    if re.fullmatch(r"step_\d{8}\.ckpt", path.name):  # of a run
        return f"{path.parents[1].name}-{path.stem}"
    name = path.parent.name if path.name == "checkpoint" else path.name
    return name.removesuffix(".index").removesuffix(".meta").partition(".data-")[0]


def typed_as(key: str, value: object) -> str:
    """key=value as a shell and Hydra understand it."""
    plain_value = re.fullmatch(r"[A-Za-z0-9_./+-]+", str(value))
    return f"{key}={value}" if plain_value else f"""'{key}="{value}"'"""


def place_for(cfg: DictConfig, parent: str, name: str) -> Path:
    """out=..., or a folder of this name in one of paths.*; ConfigError where there is something and overwrite=true was not said."""
    from cngpt import files

    out = Path(cfg.out) if cfg.out else Path(cfg.paths[parent]) / name
    if out.exists() and not files.is_empty(out) and not cfg.overwrite:
        raise ConfigError(f"out={out}: exists already; take another folder, or overwrite=true")
    return out


def file_for(cfg: DictConfig) -> Path | None:
    """out=... of a task that writes one file; ConfigError, before anything slow, where it cannot or may not be written."""
    if not cfg.out:
        return None
    out = Path(cfg.out)
    if out.is_dir():
        raise ConfigError(f"out={out}: is a folder; give the name of a file")
    if out.exists() and not cfg.overwrite:
        raise ConfigError(f"out={out}: exists already; take another file, or overwrite=true")
    above = next(folder for folder in out.resolve().parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise ConfigError(f"out={out}: {above} is no folder that this user may write into")
    return out


def check_unchanged(sources: list[dict], out: Path) -> None:
    """ConfigError where the texts have another size than when `out` was made of them; texts that are gone do not matter."""
    from cngpt import files
    from cngpt.corpus.readers import open_source

    report = files.read_object(out / "report.json", REMEDY) if (out / "report.json").exists() else {}
    then = report.get("settings", {}).get("size")
    if then is None or not all(files.exists(s["root"]) for s in sources):
        return
    now = sum(open_source({k: v for k, v in s.items() if k != "weight"}).size() for s in sources)
    if now != then:
        raise ConfigError(
            f"data.root: the texts have changed since {out} was made of them ({then:,} -> {now:,} bytes);"
            " task=prepare overwrite=true with the same data=... makes it anew, prepare.out=... makes another"
        )


def check_made_with(out: Path, settings: dict, roots: list[str]) -> None:
    """ConfigError where the shards of prepare.out=... were made with other settings than these, or of other folders that are there still."""
    from cngpt import files

    if not (out / "report.json").exists():  # of task=convert
        return
    then = files.read_object(out / "report.json", REMEDY).get("settings", {})
    keys = {"decided by": "clean", "dedup": "dedup", "weights": "data.weights", "valid_fraction": "data.valid_fraction"}
    other = [key for name, key in keys.items() if then.get(name) != settings[name]]
    for before, now in zip((absolute(s["root"]) for s in then.get("sources", [])), roots, strict=False):
        other += ["data.root"] if before != now and files.exists(before) else []
    if other:
        raise ConfigError(
            f"prepare.out={out}: was made with another {', '.join(dict.fromkeys(other))}; task=prepare overwrite=true with the same data=... makes it anew,"
            " another prepare.out=... makes another"
        )


def wait_for(out: Path) -> None:
    """The first process of this host prepares; the others wait until both folders are whole."""
    while not ((out / "train" / "manifest.json").exists() and (out / "valid" / "manifest.json").exists()):
        time.sleep(1)


def prompts_of(cfg: DictConfig) -> list[str] | None:
    """The prompts given, one by one; None where a person will type them."""
    if cfg.prompt is not None and cfg.prompts_file is not None:
        raise ConfigError("prompt and prompts_file are both given: one of them is enough")
    if cfg.prompt is not None:
        return [str(cfg.prompt)]
    if cfg.prompts_file is None and sys.stdin.isatty():
        return None
    if cfg.prompts_file in (None, "-"):
        text = sys.stdin.read()
    else:
        path = Path(cfg.prompts_file)
        if not path.is_file():
            raise ConfigError(f"prompts_file={path}: there is no such file")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            text = path.read_text(encoding="gb18030", errors="replace")
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise ConfigError("""prompts_file: no prompt in it; one a line, or 'prompt="双十一"'""")
    return prompts
