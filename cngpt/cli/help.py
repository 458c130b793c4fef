"""The help page, made from the files in conf/ so that it cannot go stale."""

from pathlib import Path

HIDDEN = ("task", "hydra", "paths")

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


def page(conf: Path) -> str:
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
    lines += ["--cfg job prints the whole configuration of a command without running it; --hydra-help is Hydra's own help."]
    return "\n".join(lines)
