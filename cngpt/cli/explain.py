"""Hydra's and OmegaConf's exceptions as one line that names the key and the remedy."""

import re
import sys
from pathlib import Path

from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from cngpt.errors import ConfigError, nearest

WHAT = {
    "data.root": "the folder, zip or file with the texts",
    "init": "a model directory or checkpoint to begin with",
    "ckpt": "the training checkpoint to go on from, or the folder that holds it",
    "from": "gpt2ml, gpt2ml_tfrecord, huggingface or checkpoint",
    "path": "what to convert",
}


def needed(key: str):
    """The value of a key that the user must give."""
    raise ConfigError(f"{key}=... is needed: {WHAT[key]}")


def explain(error: Exception, conf: Path) -> str:
    """One line for a configuration that cannot be composed."""
    if isinstance(error, OverrideParseException):
        return unparsable(error.override, conf)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        options = list(error.options or [])
        if group == "clean" and not any(a.startswith("clean=") for a in sys.argv[1:]):
            return f"data={choice}: conf/clean/{choice}.yaml, the rules for it, is missing; write it, or choose some: clean=basic"
        return f"{group}={choice}: no such choice; one of {', '.join(options)}.{nearest(choice, options)}"
    text = " ".join(str(error).split())
    if isinstance(error, ConfigCompositionException):
        if found := re.search(r"Could not override '([^']+)'\. No match in the defaults list", text):
            return unknown(found[1], conf)
        if found := re.search(r"Could not override '([^']+)'", text):
            return unknown(found[1], conf)
        if found := re.search(r"Multiple values for ([^ .]+)\.", text):
            return f"{found[1]}: given more than once; a list of values needs -m (a sweep)"
    if found := re.search(r"ConfigError raised while resolving interpolation: (.*?)(?: full_key: .*)?$", text):
        return found[1]
    if isinstance(error, OmegaConfBaseException) and getattr(error, "full_key", None):
        return f"{error.full_key}: {text.split(' full_key:')[0]}"
    return text


def unparsable(override: str, conf: Path) -> str:
    key, equals, value = override.partition("=")
    if not equals and (conf / "task" / f"{override}.yaml").is_file():
        return f"{override}: write task={override} (python run.py --help lists the tasks)"
    if not equals:
        return f"{override}: an option is written key=value (python run.py --help lists them)"
    kinder = "; or put it into a file: prompts_file=..., or give neither and type it" if key == "prompt" else ""
    return f"""{override}: text beyond plain ASCII words needs quotes inside quotes: '{key}="{value.strip(chr(34) + chr(39))}"'{kinder}"""


def unknown(key: str, conf: Path) -> str:
    """A group or key that nothing in conf/ has."""
    groups = [p.name for p in conf.iterdir() if p.is_dir()]
    known = set(groups)
    for path in [conf / "config.yaml", *conf.glob("*/*.yaml")]:
        prefix: list[str] = [] if path.parent.name in (conf.name, "task", "experiment") else [path.parent.name]
        indents = [(-1, prefix)]
        for line in path.read_text(encoding="utf-8").splitlines():
            if found := re.match(r"( *)(\w+):", line):
                while indents[-1][0] >= len(found[1]):
                    indents.pop()
                place = [*indents[-1][1], found[2]]
                known.add(".".join(place))
                indents.append((len(found[1]), place))
    for task in conf.glob("task/*.yaml"):
        if re.search(rf"^{re.escape(key)}:", task.read_text(encoding="utf-8"), re.M):
            return f"{key}: belongs to task={task.stem}; write task={task.stem} {key}=..."
    rule, _, threshold = key.rpartition(".")
    if rule.startswith("clean.") and rule in known:
        return f"{key}: {rule} has no thresholds in this choice of clean; '{rule}={{{threshold}: ...}}' turns it on with this one"
    hint = nearest(key, sorted(known)) or nearest(key.rpartition(".")[2], sorted(k for k in known))
    return f"{key}: no such group or key.{hint} python run.py --help lists them"
