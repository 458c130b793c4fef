"""A process that has made the imports and forks for each command: milliseconds, where `python run.py` imports for seconds.

A fork is a process like any other: arguments, folder, environment, streams, exit code, and whatever it starts are its own.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
STREAMS = ("stdin", "stdout", "stderr")


class Zygote:
    """Starts with its first command and ends with this process."""

    def __init__(self, *modules: str):
        """modules: what is imported before it forks."""
        self.modules = modules
        self.process: subprocess.Popen | None = None

    def run(self, *arguments: str, cwd: Path, env: dict[str, str], code: str | None = None) -> subprocess.CompletedProcess:
        """What subprocess.run gives for `python run.py <arguments>`, or `python -c <code> <arguments>`, without standard input."""
        if self.process is None or self.process.poll() is not None:
            command = [sys.executable, __file__, *self.modules]
            self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        with tempfile.TemporaryDirectory() as folder:
            paths = {name: Path(folder) / name for name in STREAMS}
            paths["stdin"].touch()
            request = {"arguments": arguments, "cwd": str(cwd), "env": env, "code": code}
            request["streams"] = [str(path) for path in paths.values()]
            print(json.dumps(request), file=self.process.stdin, flush=True)
            fork = self.answer()
            try:
                status = self.answer()
            except BaseException:  # a test that takes too long
                with contextlib.suppress(ProcessLookupError):
                    os.kill(fork, signal.SIGKILL)
                self.process.stdout.readline()
                raise
            out, err = (paths[name].read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess(["run.py", *arguments], status, out, err)

    def answer(self) -> int:
        line = self.process.stdout.readline()
        if not line:
            raise ChildProcessError(f"the process that forks has ended with {self.process.wait()}")
        return int(line)


def serve() -> dict:
    """Forks for each request on standard input and prints the process's id, then its exit code. Returns in the fork alone: its request."""
    for line in sys.stdin:
        fork = os.fork()
        if fork == 0:
            return json.loads(line)
        print(fork, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]), flush=True)
    sys.exit()


def become(request: dict) -> None:
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for number, path in enumerate(request["streams"]):
        os.dup2(os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    sys.argv = ["-c", *request["arguments"]]
    if request["code"]:
        exec(request["code"], {"__name__": "__main__"})
    else:
        runpy.run_path(str(ROOT / "run.py"), run_name="__main__")


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    for module in sys.argv[1:]:
        importlib.import_module(module)
    gc.freeze()  # a collection would copy the pages that forks share
    become(serve())
