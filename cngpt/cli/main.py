"""One command: compose, check, name, run the task."""

import contextlib
import datetime
import hashlib
import os
import signal
import sys
import warnings
from pathlib import Path

CONF = Path(__file__).parents[2] / "conf"
HYDRAS = (
    "--cfg", "--config-dir", "--config-name", "--config-path", "--experimental-rerun", "--hydra-help", "--info", "--multirun", "--package",
    "--resolve", "--run", "--shell-completion", "--version",
)  # fmt: skip
PACKAGE = Path(__file__).parents[1]


def main() -> int:
    """Runs the command in sys.argv; returns the exit code: 0, 2 for what the user can mend, 130 after ctrl-C
    (143 after SIGTERM)."""
    if any(a in ("-h", "--help") for a in sys.argv[1:]):
        from cngpt.cli import help

        print(help.page(CONF))
        return 0
    if dashed := next((a for a in sys.argv[1:] if a.startswith("--") and a.split("=")[0] not in HYDRAS), None):
        word = dashed.strip("-").split("=")[0].replace("-", "_")
        print(
            f"error: {dashed}: an option is written key=value, here {word}=... (python run.py --help lists them)", file=sys.stderr
        )
        return 2
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")  # a C locale must not stop a Chinese story
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions come here instead of being printed
    import hydra

    register_resolvers()
    warnings.formatwarning = lambda message, *place, **more: f"warning: {message}\n"
    failed: list[str] = []

    def job(cfg) -> None:
        # caught here, below Hydra, which would print a line of its own; the other jobs of a sweep go on
        with one_line_errors(failed):
            run(cfg)

    try:
        with one_line_errors(failed):
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()
    except KeyboardInterrupt:
        if any(a in ("task=prepare", "task=convert") for a in sys.argv[1:]):
            goes_on = "; the same command goes on where it was" if "task=prepare" in sys.argv[1:] else ", nothing was written"
            print(f"stopped{goes_on}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 2 if failed else 0


@contextlib.contextmanager
def one_line_errors(failed: list[str]):
    """Prints what the user can mend as one line and notes it in `failed`; CNGPT_DEBUG=1 shows the traceback instead."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from cngpt.cli.explain import explain
    from cngpt.errors import UserError

    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException) as error:
        if "CNGPT_DEBUG" in os.environ:
            raise
        failed.append(str(error) if isinstance(error, UserError) else explain(error, CONF))
        print("error: " + failed[-1], file=sys.stderr)
    except ValueError as error:  # how Hydra says that a group was given as null
        if "CNGPT_DEBUG" in os.environ or "Config group override" not in str(error):
            raise
        failed.append(
            f"{', '.join(a for a in sys.argv[1:] if a.endswith('=null'))}: a group takes the name of a choice, not null"
        )
        print("error: " + failed[-1], file=sys.stderr)


def register_resolvers() -> None:
    """`${machine:key}`: what trainer=auto found here. `${bundled:path}`: a file of the package. `${needed:key}`: no default."""
    from omegaconf import OmegaConf

    from cngpt.cli import machine
    from cngpt.cli.explain import needed

    OmegaConf.register_new_resolver("machine", machine.best, replace=True)
    OmegaConf.register_new_resolver("needed", needed, replace=True)
    OmegaConf.register_new_resolver("bundled", lambda path: str(PACKAGE / path), replace=True)


def run(cfg) -> None:
    """The composed configuration to its task."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import open_dict

    from cngpt import tasks
    from cngpt.cli import check
    from cngpt.tasks import inputs

    hydra = HydraConfig.get()
    overrides, choices = list(hydra.overrides.task), dict(hydra.runtime.choices)
    sweep = hydra.mode == RunMode.MULTIRUN
    typed = {o.partition("=")[0].lstrip("+~") for o in overrides}
    check.shorten_warmup(cfg, typed)
    check.check(cfg, overrides, choices, sweep)
    with open_dict(cfg):
        if cfg.name is None:
            cfg.name = run_name(cfg, choices, hydra.job.num if sweep else None)
        elif sweep and "name" in typed:
            cfg.name = f"{cfg.name}-{hydra.job.num}"
    if cfg.task == "train":
        start = inputs.start_of(cfg, typed)  # the shape of a checkpoint goes before that of the configuration
        inputs.say(check.announcement(cfg, choices, start.path))
        check.hardware(cfg)
    else:
        signal.signal(signal.SIGTERM, stop)  # as ctrl-C: what is half written goes; training has a way out of its own
    tasks.TASKS[cfg.task](cfg, typed)


def stop(number: int, frame) -> None:
    raise SystemExit(128 + number)


def run_name(cfg, choices: dict[str, str], job: int | None) -> str:
    """Experiment or model, date and time; where several processes were started by a launcher, whose clocks may differ, a
    hash of the configuration instead of the time. So on a TPU, whose hosts do not tell each other before torch_xla runs."""
    from omegaconf import OmegaConf

    from cngpt.tasks.inputs import first_process

    if not first_process() and "CNGPT_NAME" in os.environ:
        return os.environ["CNGPT_NAME"]  # started by Lightning, beside the process that chose it
    base = choices.get("experiment") or choices["model"]
    launched = (
        any(key in os.environ for key in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE")) or int(os.environ.get("SLURM_NTASKS", 1)) > 1
    )
    if launched or cfg.trainer.num_nodes > 1 or cfg.trainer.strategy == "xla":
        name = f"{base}-{hashlib.sha256(OmegaConf.to_yaml(cfg, sort_keys=True).encode()).hexdigest()[:8]}"
    else:
        name = f"{base}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    if job is not None:
        name += f"-{job}"
    os.environ["CNGPT_NAME"] = name
    return name
