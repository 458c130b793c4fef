"""Where the stages run: in processes of this machine (pool.py), or as tasks of datatrove's executors (executors.py).

A stage is a function of a unit's number that leaves a whole folder `stage.folder/<number>` behind, so what is left to do is read off
the disk, whichever engine was at work before.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cngpt.corpus import pool

ENGINES = ("local", "datatrove", "datatrove_slurm", "datatrove_ray")


@dataclass(frozen=True)
class Engine:
    """How many processes there are, and whose. slurm: the keys of conf's prepare.slurm."""

    name: str = "local"
    processes: int = 1
    slurm: Mapping[str, Any] = field(default_factory=dict)

    def run(self, work: pool.Work, numbers: Sequence[int], progress: Callable[[float], None], share: float, place: Path) -> None:
        """Calls `work` for each number and returns when all of it is on disk; UserError where some of it is not.

        share: of the work, what one number counts for `progress`, where the engine tells no more. place: for logs.
        """
        if self.name == "local":
            pool.run(work, numbers, self.processes, progress)
        elif numbers:
            from cngpt.corpus import executors

            executors.run(self, work, numbers, progress, share, place)
