"""What a configuration means: which checkpoint, tokenizer, shape, shards and prompts a task works with."""

import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cngpt.errors import ConfigError, UserError


def first_process() -> bool:
    """Whether this is the process of its host that prepares, writes and speaks."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0


def say(text: str) -> None:
    """To the person at the terminal, once a host; results alone go to stdout."""
    if first_process():
        print(text, file=sys.stderr, flush=True)


def plain(cfg: DictConfig) -> dict:
    """Resolved plain values: what lower floors, checkpoints and W&B may see."""
    return OmegaConf.to_container(cfg, resolve=True)


def find_resume(cfg: DictConfig, typed: set[str], folder: Path) -> Path | None:
    """The training checkpoint to go on from: ckpt=, or the newest under the same name."""
    if cfg.ckpt and cfg.init:
        raise ConfigError(
            "ckpt and init are both given: ckpt goes on with the optimizer's state, init begins afresh with the weights"
        )
    if cfg.ckpt:
        path = Path(cfg.ckpt)
        if (path / "config.json").exists():
            raise ConfigError(
                f"ckpt={path}: a model directory has no optimizer state to go on from; begin with its weights: init={path}"
            )
    if not folder.exists():
        return Path(cfg.ckpt) if cfg.ckpt else None
    if cfg.overwrite:
        if first_process():
            shutil.rmtree(folder)
        return Path(cfg.ckpt) if cfg.ckpt else None
    found = sorted((folder / "checkpoints").glob("step_*.ckpt"))
    if found and cfg.ckpt:
        raise ConfigError(f"ckpt={cfg.ckpt}: {folder} has checkpoints of its own; take another name=..., or overwrite=true")
    return found[-1] if found else (Path(cfg.ckpt) if cfg.ckpt else None)


def tokenizer_of(cfg: DictConfig, typed: set[str], head: dict | None, path: Path | None):
    """The tokenizer of the configuration, or of the checkpoint, where there is one; they must not contradict each other."""
    from cngpt.tokens import load_tokenizer

    own = head["tokenizer"] if head else None
    if own and not any(key.split(".")[0] == "tokenizer" for key in typed):
        return own
    options = {k: v for k, v in plain(cfg)["tokenizer"].items() if k not in ("name", "path")}
    name = cfg.tokenizer.name
    if "path" in cfg.tokenizer:
        if not cfg.tokenizer.path:
            raise ConfigError("tokenizer.path=... is needed: the folder that task=tokenizer wrote")
        name = cfg.tokenizer.path
    made = load_tokenizer(name, **options)
    if own and own.fingerprint != made.fingerprint:
        raise ConfigError(
            f"tokenizer={cfg.tokenizer.name}: {path} was trained with another vocabulary ({own.name}); leave tokenizer= out, or train afresh"
        )
    return made


def shape_of(cfg: DictConfig, typed: set[str], head: dict | None, path: Path | None) -> dict:
    """What `Shape` takes besides the vocabulary: of the checkpoint, where there is one; a contradicting model= is an error."""
    wanted = {k: v for k, v in plain(cfg)["model"].items() if k != "recipe"}
    if head is None:
        return wanted
    own = {k: v for k, v in head["shape"].items() if k != "vocab_size"}
    if any(key.split(".")[0] == "model" for key in typed):
        for key, value in own.items():
            if value != wanted[key] and (key in ("block", "n_ctx", "n_layer", "n_head", "width") or f"model.{key}" in typed):
                raise ConfigError(
                    f"model.{key}={wanted[key]}: {path} has {key}={value}; leave model= out, the shape comes from the checkpoint"
                )
    cfg.model = {**cfg.model, **own}
    return own


def prepared(cfg: DictConfig, tokenizer, again: bool = False) -> Path:
    """The folder of shards for this data, cleaning and tokenizer; made now if it is missing."""
    from cngpt.tokens.shards import Shards

    data, options = plain(cfg)["data"], plain(cfg)["prepare"]
    if options["out"]:
        out = Path(options["out"])
    else:
        sources = [{**s, "root": str(Path(s["root"]).resolve())} for s in data["sources"]]
        key = json.dumps([sources, data["valid_fraction"], options["min_chars"], tokenizer.fingerprint], ensure_ascii=False)
        out = Path(cfg.paths.data) / f"{data['name']}-{tokenizer.name}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    whole = (out / "train" / "manifest.json").exists() and (out / "valid" / "manifest.json").exists()
    if not first_process():
        wait_for(out)
    elif again or not whole:
        from cngpt.corpus.prepare import prepare

        processes = options["processes"] if options["processes"] != "auto" else min(16, os.cpu_count() or 1)
        prepare(
            data["sources"], out, tokenizer, valid_fraction=data["valid_fraction"], min_chars=options["min_chars"],
            processes=processes, shard_bytes=options["shard_mb"] << 20, overwrite=again,
        )  # fmt: skip
    found = Shards(out / "train").fingerprint
    if found != tokenizer.fingerprint:
        raise UserError(
            f"{out} was made with another tokenizer than {tokenizer.name}: take another prepare.out=..., or task=prepare overwrite=true"
        )
    return out


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
        lines = sys.stdin.read().splitlines()
    else:
        path = Path(cfg.prompts_file)
        if not path.is_file():
            raise ConfigError(f"prompts_file={path}: there is no such file")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise ConfigError("""prompts_file: no prompt in it; one a line, or 'prompt="双十一"'""")
    return prompts
