"""Help pages, made from the files in conf/ and the rooms' settings, so that they cannot go stale."""

import unicodedata
from pathlib import Path
from typing import Any

from cngpt.installed import conf_folder

HIDDEN = ("task", "hydra", "paths")
WIDTH = 80
COLUMN = 34  # where the text beside a key begins

EXAMPLES = """\
  python run.py                                             trains `tiny` on the bundled sample
  python run.py 'prompt="双十一"' task=generate              a text from the newest model in runs/
  python run.py model=mini data=files data.root=my_texts    your own texts (.txt .jsonl .json .gz .zst .zip)
  python run.py name=first max_steps=2000                   the same name again goes on where it stopped
  python run.py -m model=tiny,mini optim.lr=1e-4,3e-4       a sweep, one run after another
"""


def first_comment(path: Path) -> str:
    """What a configuration file says of itself: its first comment that is no package directive."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ").strip()
    return ""


def choices(group: Path) -> list[Path]:
    return sorted(p for p in group.glob("*.yaml"))


def overview() -> str:
    """Tasks, groups and their choices, the keys of conf/config.yaml, examples."""
    conf = conf_folder()
    lines = ["cngpt: raw Chinese text in; trained GPT-2 models, stories and checkpoints out.", ""]
    lines += ["usage: python run.py [task=...] [group=choice ...] [key=value ...]", "", "Tasks"]
    lines += [f"  task={p.stem:<14} {first_comment(p)}" for p in choices(conf / "task")]
    lines += ["", "Groups (the first line of conf/<group>/<choice>.yaml)"]
    for group in sorted(p for p in conf.iterdir() if p.is_dir() and p.name not in HIDDEN):
        lines += [f"  {group.name}="] + [f"    {p.stem:<18} {first_comment(p)}" for p in choices(group)]
    lines += ["", "Keys of conf/config.yaml"]
    for line in (conf / "config.yaml").read_text(encoding="utf-8").splitlines():
        if ":" in line and not line.startswith(("#", " ", "defaults")):
            key, _, comment = line.partition("#")
            name, _, default = key.strip().partition(":")
            lines.append(f"  {name + '=' + default.strip():<58} {comment.strip()}".rstrip())
    lines += ["", "Five examples", EXAMPLES]
    lines += [
        "python run.py task=generate --help lists the keys of a task, model= --help those of a group.",
        "--cfg job prints the whole configuration of a command without running it; --hydra-help is Hydra's own help.",
    ]
    return "\n".join(lines)


def keys(words: list[str]) -> str:
    """The keys of a task or group with what they are for, what they take and what they are in this command."""
    from cngpt import tasks
    from cngpt.settings import allowed, keys_of, show

    asked = [word.partition("=")[0] for word in words]
    groups = [key for key in asked if (conf_folder() / key).is_dir() and key != "task"]
    composed = compose([word for word in words if word.partition("=")[2]])
    task = tasks.task_of(composed)
    rows = [(key, field) for key, _, field in keys_of(task.Keys, composed)]
    lines = []
    if groups and "task" not in asked:
        for group in groups:
            lines += [f"{group}=", *(described(path.stem, first_comment(path), 4) for path in choices(conf_folder() / group)), ""]
        rows = [row for row in rows if row[0].partition(".")[0] in groups]
    else:
        name = composed["task"]
        lines += [*wrapped(f"task={name}: {first_comment(conf_folder() / 'task' / f'{name}.yaml')}", WIDTH), ""]
        own = task.Keys.own_keys()
        rows = [row for row in rows if row[0] in own] + [row for row in rows if reads(task.READS, row[0])]
    for key, field in rows:
        text = f"{field.description or ''} ({allowed(field)})".strip()
        lines.append(described(f"{key}={shortened(show(value_of(composed, key)))}", text, 2))
    return "\n".join(lines)


def reads(wanted: tuple[str, ...], key: str) -> bool:
    """Whether a task that reads these groups and keys reads this one."""
    return key in wanted or ("." in key and key.partition(".")[0] in wanted)


def shortened(value: str) -> str:
    return value if len(value) <= 40 else "..."


def described(head: str, text: str, indent: int) -> str:
    """`head`, and `text` beside it or below, in WIDTH columns."""
    body = wrapped(text, WIDTH - COLUMN)
    first = " " * indent + head
    lines = [f"{first:<{COLUMN}}{body[0]}".rstrip()] if len(first) < COLUMN else [first, " " * COLUMN + body[0]]
    return "\n".join([*lines, *(" " * COLUMN + line for line in body[1:])])


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, of which a Chinese character takes two; a longer word is not broken."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if columns(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return [line for line in lines if line] or [""]


def columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def compose(words: list[str]) -> dict[str, Any]:
    """What a command is made of, interpolations resolved where that is possible."""
    from omegaconf import OmegaConf

    from cngpt.cli.compose import composed

    cfg, _ = composed(words)
    return _resolved(cfg, OmegaConf.to_container(cfg, resolve=False), "")


def _resolved(cfg, plain: dict, prefix: str) -> dict[str, Any]:
    """Key by key, as a missing one must not hide the others."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    resolved = {}
    for key, value in plain.items():
        if isinstance(value, dict):
            resolved[key] = _resolved(cfg, value, f"{prefix}{key}.")
            continue
        try:
            selected = OmegaConf.select(cfg, prefix + str(key))
            value = OmegaConf.to_container(selected, resolve=True) if OmegaConf.is_config(selected) else selected
            resolved[key] = "..." if selected is None and isinstance(plain[key], str) else value
        except OmegaConfBaseException:
            resolved[key] = value
    return resolved


def value_of(composed: dict, key: str) -> Any:
    """What stands at optim.lr, say; None where nothing does."""
    for part in key.split("."):
        composed = composed.get(part) if isinstance(composed, dict) else None
    return composed
