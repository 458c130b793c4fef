"""The stages as tasks of datatrove's executors (github.com/huggingface/datatrove): on this machine, on Slurm, on Ray.

Task r of w does the units numbers[r::w]. Which units are left is decided by what is on disk, never by datatrove's own marks of
completion: they are switched off. `run` returns when every unit is there, and so is a barrier between one stage and the next.
datatrove is an extra: this module is imported by engines.py alone, where it is asked for.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
from datatrove.utils.logging import logger

from cngpt.corpus.engines import Engine
from cngpt.corpus.pool import Work
from cngpt.corpus.stages import name_of
from cngpt.errors import UserError

POLL = 1.0  # seconds between two looks at what is done
POLL_SLURM = 10.0
ROUNDS = 4  # tasks a process does, one after another: units differ in length


class Ranks:
    """A step of a datatrove pipeline."""

    def __init__(self, work: Work, numbers: Sequence[int]):
        self.work, self.numbers = work, list(numbers)

    def __call__(self, data, rank: int = 0, world_size: int = 1) -> None:
        for number in left(self.work, self.numbers[rank::world_size]):  # a task that Slurm began again has done some
            self.work(number, lambda _: None)

    def __repr__(self) -> str:  # datatrove logs it
        return f"{type(self.work).__name__} of {len(self.numbers):,} units"


class Local(LocalPipelineExecutor):
    """Its logs go to files only."""

    def _run_for_rank(self, *rank, **named):
        with redirect_stderr(open(os.devnull, "w")):
            return super()._run_for_rank(*rank, **named)


def run(engine: Engine, work: Work, numbers: Sequence[int], progress: Callable[[float], None], share: float, place: Path) -> None:
    """As Engine.run. Raises UserError where units are missing at the end, and where there is no Slurm."""
    folder = (place / type(work).__name__).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    logger.remove()
    with told(work, numbers, progress, share):
        {"datatrove": local, "datatrove_slurm": slurm, "datatrove_ray": ray}[engine.name](engine, work, numbers, folder)
    if missing := left(work, numbers):
        raise UserError(
            f"{len(missing)} of {len(numbers)} units were not done; {folder} says why. The same command goes on where it stopped"
        )


def local(engine: Engine, work: Work, numbers: Sequence[int], folder: Path) -> None:
    tasks = min(len(numbers), ROUNDS * engine.processes)
    executor = Local(
        [Ranks(work, numbers)], tasks, min(tasks, engine.processes), str(folder), skip_completed=False, start_method="spawn"
    )
    executor.run()


def ray(engine: Engine, work: Work, numbers: Sequence[int], folder: Path) -> None:
    """On the cluster of $RAY_ADDRESS; without one, Ray begins its own on this machine."""
    import ray as cluster

    if not cluster.is_initialized():
        cluster.init()
    tasks = min(len(numbers), ROUNDS * engine.processes)
    executor = RayPipelineExecutor(
        [Ranks(work, numbers)], tasks, min(tasks, engine.processes), skip_completed=False, logging_dir=str(folder)
    )
    executor.run()


def slurm(engine: Engine, work: Work, numbers: Sequence[int], folder: Path) -> None:
    """Submits an array of tasks of one core each, and waits for it. What is written is the same where there is no sbatch."""
    settings = engine.slurm
    in_environment = sys.prefix != sys.base_prefix
    executor = SlurmPipelineExecutor(
        [Ranks(work, numbers)],
        tasks=min(len(numbers), settings["tasks"]),
        time=settings["time"],
        partition=settings["partition"],
        qos=settings["qos"],
        mem_per_cpu_gb=settings["memory_gb"],
        job_name=f"cngpt-{type(work).__name__.lower()}",
        env_command=settings["setup"],
        venv_path=f"{sys.prefix}/bin/activate" if in_environment else None,
        logging_dir=str(folder),
        skip_completed=False,
    )
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
    while left(work, numbers):
        ended = not is_queued(str(executor.job_id))
        time.sleep(POLL_SLURM)  # a shared file system may show late what the last task wrote
        if ended:
            break


def is_queued(job: str) -> bool:
    """Whether Slurm still knows the job as waiting or running; when it does not answer, we go on waiting."""
    answer = subprocess.run(["squeue", "--noheader", "--jobs", job], capture_output=True, text=True)
    return bool(answer.stdout.strip()) if answer.returncode == 0 else "Invalid job id" not in answer.stderr


def left(work: Work, numbers: Sequence[int]) -> list[int]:
    """The units whose results are not there."""
    return [n for n in numbers if not (work.folder / name_of(n)).exists()]


@contextmanager
def told(work: Work, numbers: Sequence[int], progress: Callable[[float], None], share: float) -> Iterator[None]:
    """Tells `progress` of the units that appear."""
    ended, seen = threading.Event(), len(numbers) - len(left(work, numbers))

    def watch() -> None:
        nonlocal seen
        while not ended.wait(POLL):
            done = len(numbers) - len(left(work, numbers))
            progress(share * (done - seen))
            seen = done

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
