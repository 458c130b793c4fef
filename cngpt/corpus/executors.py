"""The stages as tasks of datatrove's executors (github.com/huggingface/datatrove): on this machine, on Slurm, on Ray.

Task r of w does the units numbers[r::w]. Which units are left is decided by what is on disk, never by datatrove's own marks of
completion: they are switched off. `run` returns when every unit is there, and so is a barrier between one stage and the next.
datatrove is an extra: this module is imported by engines.py alone, where it is asked for.
"""

import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
from datatrove.utils.logging import logger

from cngpt import plugins
from cngpt.corpus.pool import Stage, not_done
from cngpt.errors import UserError

POLL = 1.0  # seconds between two looks at what is done
POLL_SLURM = 10.0
ROUNDS = 4  # tasks a process does, one after another: units differ in length


class Ranks:
    """A step of a datatrove pipeline. The stage travels pickled: where it arrives, the user's plugins are loaded before it is opened."""

    def __init__(self, stage: Stage, numbers: Sequence[int]):
        self.name, self.stage, self.numbers = type(stage).__name__, pickle.dumps(stage), list(numbers)

    def __call__(self, data, rank: int = 0, world_size: int = 1) -> None:
        plugins.load_from_environment()
        stage = pickle.loads(self.stage)
        # a task that Slurm began again has done some of its units before
        for number in not_done(stage.folder, self.numbers[rank::world_size]):
            stage(number, lambda _: None)

    def __repr__(self) -> str:  # datatrove logs it
        return f"{self.name} of {len(self.numbers):,} units"


class Local(LocalPipelineExecutor):
    """Its logs go to files only."""

    def _run_for_rank(self, *rank, **named):
        with redirect_stderr(open(os.devnull, "w")):
            return super()._run_for_rank(*rank, **named)


def run(
    name: str, processes: int, settings: Mapping, stage: Stage, numbers: Sequence[int], progress: Callable[[int], None]
) -> None:
    """As Engine.run, but that `progress` counts units. `settings`: of Slurm. Raises UserError where units are missing at the end, and
    where there is no Slurm."""
    folder = (stage.folder.parent / "engine" / type(stage).__name__).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    logger.remove()
    step, tasks = [Ranks(stage, numbers)], min(len(numbers), ROUNDS * processes)
    workers = min(tasks, processes)
    with reported(stage, numbers, progress):
        if name == "datatrove":
            Local(step, tasks, workers, str(folder), skip_completed=False, start_method="spawn").run()
        elif name == "datatrove_ray":
            begin_ray()
            RayPipelineExecutor(step, tasks, workers, skip_completed=False, logging_dir=str(folder)).run()
        elif name == "datatrove_slurm":
            slurm(step, settings, stage, numbers, folder)
        else:
            raise ValueError(f"no engine is called {name}")
    if missing := not_done(stage.folder, numbers):
        raise UserError(
            f"{len(missing)} of {len(numbers)} units were not done; {folder} says why. The same command goes on where it stopped"
        )


def begin_ray() -> None:
    """Takes the cluster of $RAY_ADDRESS; without one, Ray begins its own on this machine."""
    import ray

    if not ray.is_initialized():
        ray.init()


def slurm(step: list[Ranks], settings: Mapping, stage: Stage, numbers: Sequence[int], folder: Path) -> None:
    """Submits an array of tasks of one core each, and waits for it. What is written is the same where there is no sbatch."""
    in_environment = sys.prefix != sys.base_prefix
    executor = SlurmPipelineExecutor(
        step, tasks=min(len(numbers), settings["tasks"]), mem_per_cpu_gb=settings["memory_gb"], env_command=settings["setup"],
        **{key: settings[key] for key in ("time", "partition", "qos")}, job_name=f"cngpt-{type(stage).__name__.lower()}",
        venv_path=f"{sys.prefix}/bin/activate" if in_environment else None, logging_dir=str(folder), skip_completed=False,
    )  # fmt: skip
    try:
        executor.run()
    except FileNotFoundError as error:
        if error.filename != "sbatch":
            raise
        raise UserError(
            f"prepare.engine=datatrove_slurm: there is no sbatch here; it would submit {folder / 'launch_script.slurm'}."
            " Run the same command where Slurm is, in a folder that all its machines see"
        ) from None
    except subprocess.CalledProcessError as error:
        raise UserError(f"prepare.engine=datatrove_slurm: sbatch refused {folder / 'launch_script.slurm'} ({error})") from None
    while not_done(stage.folder, numbers):
        ended = not is_queued(str(executor.job_id))
        time.sleep(POLL_SLURM)  # a shared file system may show late what the last task wrote
        if ended:
            break


def is_queued(job: str) -> bool:
    """Whether Slurm still knows the job as waiting or running; when it does not answer, we go on waiting."""
    answer = subprocess.run(["squeue", "--noheader", "--jobs", job], capture_output=True, text=True)
    return bool(answer.stdout.strip()) if answer.returncode == 0 else "Invalid job id" not in answer.stderr


@contextmanager
def reported(stage: Stage, numbers: Sequence[int], progress: Callable[[int], None]) -> Iterator[None]:
    """Reports the units that appear to `progress`."""
    ended, before = threading.Event(), len(not_done(stage.folder, numbers))

    def watch() -> None:
        nonlocal before
        while not ended.wait(POLL):
            now = len(not_done(stage.folder, numbers))
            progress(before - now)
            before = now

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
