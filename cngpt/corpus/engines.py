"""Where the stages run: in processes of this machine (pool.py), or as tasks of datatrove's executors (executors.py).
What is left to do is read off the disk, whichever engine was at work before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cngpt.corpus import pool
from cngpt.corpus.document import Progress

DATATROVE = {"datatrove": "pip install -e '.[datatrove]'"}
ENGINES = {  # name: {package that it needs: how to install it}
    "local": {},
    "datatrove": DATATROVE,
    "datatrove_slurm": DATATROVE,
    "datatrove_ray": {**DATATROVE, "ray": "pip install -e '.[ray]'"},
}


@dataclass(frozen=True)
class Engine:
    """How many processes there are, and whose. slurm: the keys of conf's prepare.slurm."""

    name: str = "local"
    processes: int = 1
    slurm: Mapping[str, Any] = field(default_factory=dict)

    def run(self, stage: pool.Stage, numbers: Sequence[int], progress: Progress, size: float) -> None:
        """Calls `stage` for each number that has no result yet; returns when all have one, and raises UserError where some have not.
        size: what all numbers together count for `progress`."""
        share = size / max(1, len(numbers))
        numbers = pool.not_done(stage.folder, numbers)
        if self.name == "local":
            pool.run(stage, numbers, self.processes, progress)
        elif numbers:
            from cngpt.corpus import executors

            executors.run(self.name, self.processes, self.slurm, stage, numbers, lambda units: progress(share * units))
