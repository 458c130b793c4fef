"""What a folder says it was made of, against what is asked for now."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cngpt import files
from cngpt.corpus.clean import build, fingerprint, name_of
from cngpt.corpus.dedup.settings import Dedup
from cngpt.corpus.readers import open_source, weight_of, without_weight
from cngpt.errors import ConfigError, UserError
from cngpt.tokens.shards import Shards

REPORT, MANIFEST = "report.json", "manifest.json"  # of shards, of clean texts
FORMAT = 2  # of a folder of clean texts
ANEW = "task=prepare overwrite=true with the same data=... makes it anew"


def settings_of_texts(sources: Sequence[Mapping], clean: Mapping[str, Any], dedup: Dedup | None) -> dict:
    """What decides the clean texts, as their manifest and the report of the shards keep it."""
    return {
        "sources": [without_weight(source) for source in sources],
        "rules": [name_of(rule) for rule in build(clean)],
        "clean": dict(clean),
        "decided by": fingerprint(clean),
        "dedup": dedup.model_dump() if dedup else None,
    }


def settings_of_shards(texts: dict, sources: Sequence[Mapping], valid_fraction: float) -> dict:
    """The same for the shards. `texts`: settings_of_texts, with the size of the raw files."""
    return {**texts, "valid_fraction": valid_fraction, "weights": [weight_of(source) for source in sources]}


def manifest_of(folder: Path) -> dict:
    """What a folder of clean texts says of itself."""
    return files.read_object(folder / MANIFEST, f"overwrite=true makes {folder} anew")


def texts_made_before(folder: Path, settings: dict) -> dict:
    """The manifest of clean texts that are there. ConfigError where they were made otherwise, or of other files."""
    manifest = manifest_of(folder)
    if manifest.get("format") != FORMAT or manifest.get("settings") != _as_json(settings):
        raise ConfigError(
            f"{folder} holds texts that were cleaned otherwise; overwrite=true makes them anew, prepare.texts=... elsewhere"
        )
    check_size(settings["sources"], manifest["size"], folder, "prepare.texts=... another")
    return manifest


def check_size(sources: Sequence[Mapping], size: int, folder: Path, other: str) -> None:
    """ConfigError where the raw files have another size than when `folder` was made of them; files that are gone do not matter."""
    if not all(files.exists(source["root"]) for source in sources):
        return
    now = sum(open_source(without_weight(source)).size() for source in sources)
    if now != size:
        raise ConfigError(
            f"data.root: the texts have changed since {folder} was made of them ({size:,} -> {now:,} bytes); {ANEW}, {other}"
        )


def are_made_with(out: Path, settings: dict, tokenizer) -> bool:
    """Whether a whole folder of shards was made with these settings and this tokenizer."""
    try:
        report = files.read_json(out / REPORT)
        fingerprints = {Shards(out / part).fingerprint for part in ("train", "valid")}
    except (UserError, OSError, ValueError, KeyError):
        return False
    return report.get("settings") == _as_json(settings) and fingerprints == {tokenizer.fingerprint}


def check_shards(out: Path, settings: dict, tokenizer, named: bool) -> None:
    """ConfigError where shards that are there were made of files that have changed since. `named`: the name of the folder does
    not tell how it was made, so its settings and tokenizer are compared too. settings: settings_of_shards, roots made absolute."""
    report = files.read_object(out / REPORT, ANEW) if (out / REPORT).exists() else {}  # none where task=convert wrote them
    then = report.get("settings", {})
    if "size" in then:
        check_size(settings["sources"], then["size"], out, "prepare.out=... makes another")
    if not named:
        return
    keys = {"decided by": "clean", "dedup": "dedup", "weights": "data.weights", "valid_fraction": "data.valid_fraction"}
    different = [key for name, key in keys.items() if report and then.get(name) != settings[name]]
    roots = [(absolute(a["root"]), b["root"]) for a, b in zip(then.get("sources", []), settings["sources"], strict=False)]
    different += ["data.root" for before, now in roots if before != now and files.exists(before)]
    different += ["tokenizer"] if Shards(out / "train").fingerprint != tokenizer.fingerprint else []
    if different:
        raise ConfigError(
            f"prepare.out={out}: was made with another {', '.join(dict.fromkeys(different))}; {ANEW},"
            " another prepare.out=... makes another"
        )


def absolute(path: str) -> str:
    """The same folder by the same name, from wherever the command is run."""
    return path if files.is_remote(path) else str(Path(path).resolve())


def _as_json(value: Any) -> Any:
    """As it comes back from a file of JSON."""
    return json.loads(json.dumps(value))
