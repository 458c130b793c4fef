"""Whole commands in a process of their own, as a user types them."""

import os
import subprocess
import sys
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
