"""A stage of the work for each of many numbers, in this process or in many, with progress; what it makes, it leaves on disk."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from pathlib import Path

from cngpt import plugins
from cngpt.corpus.document import Progress
from cngpt.errors import UserError

Stage = Callable[..., None]  # (number, progress in bytes[, stage.of(number)])
POLL = 0.2  # seconds


def unit_name(number: int) -> str:
    return f"{number:05d}"


def not_done(folder: Path, numbers: Sequence[int]) -> list[int]:
    """The numbers that have no result in a stage's folder."""
    return [n for n in numbers if not (folder / unit_name(n)).exists()]


def run(stage: Stage, numbers: Sequence[int], processes: int, progress: Progress) -> None:
    """Calls stage(number, progress) for each number, in no order that anyone may rely on. `stage` must pickle.

    The first exception ends it; a worker that the system killed is a UserError.
    """
    if processes == 1 or len(numbers) < 2:
        for number in numbers:
            stage(number, progress)
        return
    context = context_of_workers()
    done, reported = context.Value("d", 0.0), 0.0
    # what a task needs besides its number travels with it: Reading's units are too many for every worker to have them all
    shared = pickle.dumps(stage.shared() if hasattr(stage, "shared") else stage)
    tasks = ((number, stage.of(number)) if hasattr(stage, "of") else (number,) for number in numbers)
    pool = ProcessPoolExecutor(
        min(processes, len(numbers)), context, initializer=_begin, initargs=(os.environ.get(plugins.VARIABLE, ""), shared, done)
    )
    try:
        waiting = {pool.submit(_run, *task) for task in tasks}
        while waiting:
            finished, waiting = wait_for(waiting, timeout=POLL, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()
            progress(done.value - reported)
            reported = done.value
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, most likely for want of memory; try prepare.processes=1. The same command goes on where it stopped"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def context_of_workers() -> BaseContext:
    """A fork of this process, which runs threads (torch, tokenizers), could hang; a server that has imported the stages and nothing
    else forks workers at once, where each that is spawned imports for most of a second, in every stage."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cngpt.corpus.stages"])
    return context


def _begin(loaded: str, stage: bytes, done) -> None:
    global _stage, _done
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # the server that forks workers may have begun before the plugins were loaded, and knows nothing of them;
    # what is unpickled may be of a class that one defines
    os.environ[plugins.VARIABLE] = loaded
    plugins.load_from_environment()
    _stage, _done = pickle.loads(stage), done


def _end_with_parent() -> None:
    """A parent that was killed cannot tell its workers to stop."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _run(number: int, *more) -> None:
    _stage(number, _report_progress, *more)


def _report_progress(more: float) -> None:
    with _done.get_lock():
        _done.value += more
