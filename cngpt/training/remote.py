"""Checkpoints in a bucket: every host writes its pieces straight there, and fetches all of them when the run goes on.

A folder `step_<n>.ckpt` is whole when its index is there, which is written last and removed first.
"""

import re
from pathlib import Path

from cngpt import files, pieces

NAME = re.compile(r"(step_\d{8}\.ckpt)/" + re.escape(pieces.INDEX) + "$")


def listed(url: str) -> list[str]:
    """The names of the whole checkpoints in a folder, oldest first."""
    fs, inside = files.filesystem(url)
    fs.invalidate_cache()
    return sorted(found[1] for path in fs.glob(f"{inside}/step_*.ckpt/{pieces.INDEX}") if (found := NAME.search(path)))


def remove(url: str, name: str) -> None:
    fs, inside = files.filesystem(files.join(url, name))
    if fs.exists(index := f"{inside}/{pieces.INDEX}"):
        fs.rm_file(index)
    if fs.exists(inside):
        fs.rm(inside, recursive=True)


def fetch_newest(url: str, folder: Path) -> None:
    """Puts the newest checkpoint beside the run's own, unless it is there."""
    names = listed(url)
    if not names or (folder / names[-1]).exists():
        return
    there = files.join(url, names[-1])

    def complete(new: Path) -> None:
        fs, inside = files.filesystem(there)
        fs.get_file(f"{inside}/{pieces.INDEX}", str(new / pieces.INDEX))  # its name begins with a dot: no file for local_copy
        pieces.verify(new)

    folder.mkdir(parents=True, exist_ok=True)
    files.local_copy(there, folder / names[-1], complete)


def remove_later(url: str, than: str) -> None:
    """Those after a step to which the run goes back: they would be taken for the newest."""
    for name in listed(url):
        if name > than:
            remove(url, name)
