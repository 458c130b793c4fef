"""Whole commands in a process of their own, as a user types them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(*arguments: str, cwd: Path, input: str = "", check: bool = False, **env: str) -> subprocess.CompletedProcess:
    """`python run.py <arguments>` in `cwd`, its output as text."""
    environ = (
        {k: v for k, v in os.environ.items() if k not in ("WANDB_API_KEY", "CNGPT_DEBUG", "CNGPT_NAME")}
        | {"WANDB_MODE": "offline"}
        | env
    )
    command = [sys.executable, str(ROOT / "run.py"), *arguments]
    done = subprocess.run(command, cwd=cwd, input=input, capture_output=True, text=True, env=environ, timeout=280)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(arguments)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done
