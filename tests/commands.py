"""Whole commands in a process of their own, as a user types them."""

import os
import subprocess
import sys
import time
from pathlib import Path

from cngpt.cli.compose import composed, register_resolvers, without_auto
from cngpt.cli.main import checked
from cngpt.tasks.command import Command
from tests.zygote import ROOT, Zygote

# Forks where forks are safe; elsewhere every command is a process from the start.
FORKS = sys.platform == "linux"
TASKS = ("bench", "convert", "export", "generate", "plan", "prepare", "tokenizer", "train")
WITHOUT_TORCH = Zygote("cngpt.cli.main", "cngpt.cli.explain", "hydra", *(f"cngpt.tasks.{task}" for task in TASKS))
WITH_TORCH = Zygote(*WITHOUT_TORCH.modules, "cngpt.training.fit", "cngpt.generation.engine", "matplotlib.pyplot")

CODE = """
import sys
sys.path.insert(0, {root!r})
sys.modules["deepspeed"] = sys.modules["torch_xla"] = None
from cngpt.cli import main
code = main()
assert "torch" not in sys.modules, "torch was imported"
sys.exit(code)
"""


def environment(**changes: str) -> dict[str, str]:
    """The environment of a user without a W&B key."""
    hidden = ("WANDB_API_KEY", "CNGPT_DEBUG", "CNGPT_NAME", "LOCAL_RANK")
    # one thread for tiny models, as in conftest.py: a second waits more than it works
    return {k: v for k, v in os.environ.items() if k not in hidden} | {"WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"} | changes


def run(*arguments: str, cwd: Path, input: str = "", check: bool = True, **env: str) -> subprocess.CompletedProcess:
    """`python run.py <arguments>` in `cwd`, its output as text; with `input`, a pipe, it does its imports itself."""
    if FORKS and not input:
        done = WITH_TORCH.run(*arguments, cwd=cwd, env=environment(**env))
    else:
        done = process([str(ROOT / "run.py"), *arguments], cwd, environment(**env), input)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(arguments)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def run_without_torch(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    """The same where deepspeed and torch_xla are not installed; it ends with a traceback if torch was imported."""
    code, env = CODE.format(root=str(ROOT)), environment(**env)
    if FORKS:
        return WITHOUT_TORCH.run(*arguments, cwd=cwd, env=env, code=code)
    return process(["-c", code, *arguments], cwd, env)


def process(words: list[str], cwd: Path, env: dict[str, str], input: str = "") -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *words], cwd=cwd, input=input, capture_output=True, text=True, env=env, timeout=280)


def command(*words: str) -> Command:
    """The same, composed and checked in this process and not run; what its task is given."""
    register_resolvers()
    words = without_auto(list(words))
    cfg, hydra = composed(words)
    return checked(cfg, words, dict(hydra.runtime.choices))[1]


def start(*arguments: str, cwd: Path) -> subprocess.Popen:
    """The same, not waited for; its stderr can be read."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *arguments], cwd=cwd, env=environment(), stderr=subprocess.PIPE, text=True
    )


def wait_for_step(path: Path, step: int) -> None:
    from cngpt.training.tracking import read_metrics

    deadline = time.time() + 120
    while time.time() < deadline:
        if path.exists() and any(r.get("step", 0) >= step for r in read_metrics(path)):
            return
        time.sleep(0.05)
    raise AssertionError(f"step {step} never came")
