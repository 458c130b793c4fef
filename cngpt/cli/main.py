"""One command: compose, check, name, run the task."""

import contextlib
import datetime
import hashlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from cngpt.cli.compose import composed, register_resolvers, without_auto
from cngpt.errors import ConfigError
from cngpt.installed import conf_folder

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from cngpt.tasks.command import Command

TAKE_A_VALUE = (
    "--cfg", "-c", "--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p", "--info", "-i",
)  # fmt: skip
HYDRAS = (
    "--cfg", "--config-dir", "--config-name", "--config-path", "--experimental-rerun", "--hydra-help", "--info", "--multirun", "--package",
    "--resolve", "--run", "--shell-completion",
)  # fmt: skip


def main() -> int:
    """Runs the command in sys.argv; returns the exit code: 0, 2 for what the user can mend, 130 after ctrl-C
    (143 after SIGTERM)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")  # a C locale must not stop a Chinese story
    words, failed = sys.argv[1:], []
    try:
        with one_line_errors(failed):
            dispatch(words, failed)
    except KeyboardInterrupt:
        from cngpt import tasks

        print(f"stopped{tasks.interrupted(words)}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 2 if failed else 0


def dispatch(words: list[str], failed: list[str]) -> None:
    """Version, help, or the command itself; errors of a sweep's jobs are noted in `failed`."""
    if "--version" in words:
        from cngpt import __version__

        print(f"cngpt {__version__}")
        return
    if any(word in ("-h", "--help") for word in words):
        from cngpt.cli import help

        if asked := [word for word in words if word not in ("-h", "--help")]:
            register_resolvers()
        print(help.keys(without_auto(asked)) if asked else help.overview())
        return
    if dashed := next((word for word in words if word.startswith("--") and word.split("=")[0] not in HYDRAS), None):
        key = dashed.strip("-").split("=")[0].replace("-", "_")
        raise ConfigError(f"{dashed}: an option is written key=value, here {key}=... (python run.py --help lists them)")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions come here instead of being printed
    sys.argv[1:] = words = without_auto(words)
    register_resolvers()
    warnings.formatwarning = lambda message, *context, **more: f"warning: {message}\n"
    if any(word.startswith(("-", "hydra.mode=")) for word in words):
        through_hydra(failed)
    else:
        run(*composed(words))


def through_hydra(failed: list[str]) -> None:
    """A sweep, a folder of configuration files, or a question that Hydra answers. It composes twice, so other commands go without."""
    import hydra
    from hydra.core.hydra_config import HydraConfig

    def job(cfg) -> None:
        # caught here, below Hydra, which would print a line of its own; the other jobs of a sweep go on
        with one_line_errors(failed):
            run(cfg, HydraConfig.get())

    sys.argv[1:] = flags_first(sys.argv[1:])
    hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")(job)()


def flags_first(words: list[str]) -> list[str]:
    """Hydra's parser takes no flag between two overrides."""
    flags, overrides, waiting = [], [], iter(words)
    for word in waiting:
        if not word.startswith("-"):
            overrides.append(word)
            continue
        flags.append(word)
        if word in TAKE_A_VALUE:
            flags += [value for value in [next(waiting, None)] if value is not None]
    return flags + overrides


@contextlib.contextmanager
def one_line_errors(failed: list[str]) -> Iterator[None]:
    """Prints what the user can mend as one line and notes it in `failed`; CNGPT_DEBUG=1 shows the traceback instead."""
    try:
        yield
    except Exception as error:
        from cngpt.cli.explain import explain

        line = explain(error)
        if line is None or "CNGPT_DEBUG" in os.environ:
            raise
        failed.append(line)
        print("error: " + line, file=sys.stderr)


def run(cfg: "DictConfig", hydra: "DictConfig") -> None:
    """The composed configuration to its task."""
    from hydra.types import RunMode

    job = hydra.job.num if hydra.mode == RunMode.MULTIRUN else None
    task, command = checked(cfg, list(hydra.overrides.task), dict(hydra.runtime.choices), job)
    if not task.HANDLES_SIGNALS:
        signal.signal(signal.SIGTERM, stop)  # as ctrl-C: what is half written goes
    task.run(command)


def checked(cfg: "DictConfig", words: list[str], choices: dict[str, str], job: int | None = None) -> "tuple[Any, Command]":
    """(task, what it is given) of a composed configuration; ConfigError for the first thing that is wrong.

    words: as typed. choices: of each group. job: the number in a sweep.
    """
    from omegaconf import OmegaConf

    from cngpt import hosts, tasks
    from cngpt.tasks.command import Command, Overridden

    task = tasks.task_of(OmegaConf.to_container(cfg, resolve=False))
    plain = OmegaConf.to_container(cfg, resolve=True)
    tasks.check_complete(task, plain)
    settings = task.Keys(**plain)
    digest = hashlib.sha256(OmegaConf.to_yaml(cfg, sort_keys=True).encode()).hexdigest()[:8]
    name = run_name(settings.name, choices, digest if hosts.is_launched() or settings.trainer.spans_hosts else None, job)
    overridden = Overridden(word.partition("=")[0].lstrip("+~").partition("@")[0] for word in words)
    named = settings.model_copy(update={"name": name})
    return task, Command(named, {**plain, "name": name}, overridden, choices, words, job is not None)


def stop(number: int, frame) -> None:
    raise SystemExit(128 + number)


def run_name(name: str | None, choices: dict[str, str], digest: str | None, job: int | None) -> str:
    """name=..., or experiment or model with date and time; where several processes may run, whose clocks may differ, with `digest` of
    the configuration instead of the time. `job`: its number in a sweep."""
    from cngpt import hosts

    if name is None and not hosts.is_local_zero() and "CNGPT_NAME" in os.environ:
        return os.environ["CNGPT_NAME"]  # started by Lightning, beside the process that chose it
    suffix = "" if job is None else f"-{job}"
    if name is not None:
        return name + suffix
    now = f"{datetime.datetime.now():%Y%m%d-%H%M%S}"
    name = f"{choices.get('experiment') or choices['model']}-{digest or now}{suffix}"
    os.environ["CNGPT_NAME"] = name
    return name
