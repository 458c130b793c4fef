"""Whole commands in a process of their own, as a user types them."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def environment(**changes: str) -> dict[str, str]:
    """The environment of a user without a W&B key."""
    hidden = ("WANDB_API_KEY", "CNGPT_DEBUG", "CNGPT_NAME", "LOCAL_RANK")
    return {k: v for k, v in os.environ.items() if k not in hidden} | {"WANDB_MODE": "offline"} | changes


def run(*arguments: str, cwd: Path, input: str = "", check: bool = True, **env: str) -> subprocess.CompletedProcess:
    """`python run.py <arguments>` in `cwd`, its output as text."""
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    done = subprocess.run(command, cwd=cwd, input=input, capture_output=True, text=True, env=environment(**env), timeout=280)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(arguments)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


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
