"""A function over numbered pieces of work, in this process or in many, with progress; what it makes, it leaves on disk."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext

from cngpt.errors import UserError

Work = Callable[..., None]  # (number, progress in bytes[, work.of(number)])
POLL = 0.2  # seconds


def run(work: Work, numbers: Sequence[int], processes: int, progress: Callable[[float], None]) -> None:
    """Calls work(number, progress) for each number, in no order that anyone may rely on. `work` must pickle.

    The first exception ends it; a worker that the system killed is a UserError.
    """
    if processes == 1 or len(numbers) < 2:
        for number in numbers:
            work(number, progress)
        return
    context = context_of_workers()
    done, told = context.Value("d", 0.0), 0.0
    # what a task needs besides its number travels with it: Reading's units are too many for every worker to have them all
    shared = work.shared() if hasattr(work, "shared") else work
    tasks = ((number, work.of(number)) if hasattr(work, "of") else (number,) for number in numbers)
    pool = ProcessPoolExecutor(min(processes, len(numbers)), context, initializer=_begin, initargs=(shared, done))
    try:
        waiting = {pool.submit(_run, *task) for task in tasks}
        while waiting:
            finished, waiting = wait_for(waiting, timeout=POLL, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()
            progress(done.value - told)
            told = done.value
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


def _begin(work: Work, done) -> None:
    global _work, _done
    _work, _done = work, done
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot tell its workers to stop."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _run(number: int, *more) -> None:
    _work(number, _tell, *more)


def _tell(more: float) -> None:
    with _done.get_lock():
        _done.value += more
