"""The shards of a run: found where they were made before, made where they are missing, copied from where they are remote."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cngpt import files
from cngpt.corpus.clean import fingerprint
from cngpt.corpus.dedup.settings import Dedup
from cngpt.corpus.made import MANIFEST, absolute, check_shards, settings_of_shards, settings_of_texts
from cngpt.corpus.prepare import prepare as make_shards
from cngpt.corpus.prepare import with_name
from cngpt.corpus.readers import weight_of, without_weight
from cngpt.corpus.resumable import locked
from cngpt.corpus.settings import Data, Prepare
from cngpt.errors import ConfigError, UserError
from cngpt.files.lock import Lock
from cngpt.hosts import is_global_zero, is_local_zero, log
from cngpt.progress import Bar
from cngpt.tokens.shards import Shards

PARTS = ("train", "valid")
# what a folder of shards holds, as far as names are known before it is made
CONTENT = [f"{part}/{name}" for part in PARTS for name in (MANIFEST, "00000.bin", "00000.idx")]
CONTENT += ["report.json", "report.html", "tokenizer.json"]
POLL = 1.0  # seconds between two looks of a process that waits
BEGIN_WITHIN = 1800  # seconds in which the first process of a host must have begun: imports from a slow disk take minutes


def prepared(
    data: Data, tokenizer, *, clean: Mapping[str, Any], dedup: Dedup, prepare: Prepare, folder: Path, overwrite: bool = False
) -> Path:
    """The folder of shards for this data, cleaning and tokenizer; made now if it is missing.

    clean: the group conf/clean. folder: paths.data, where shards lie that have no prepare.out of their own. overwrite: they are made
    anew. The first process of each host makes them, the others wait for it.
    """
    if data.name == "shards":
        return check_ready_made(local_shards(data, folder), tokenizer)
    compared = dedup if dedup.is_on else None
    sources = [without_weight(source) | {"root": absolute(source["root"])} for source in data.sources]
    decides = [sources, fingerprint(clean), compared and compared.model_dump()]
    mixed = [*(weight_of(source) for source in data.sources), data.valid_fraction, tokenizer.fingerprint]
    remote = prepare.out if files.is_remote(prepare.out or "") else None
    if prepare.out and not remote:
        out = with_name("out", prepare.out)
    else:
        out = Path(folder) / f"{data.name}-{tokenizer.name}-{short_hash([*decides, *mixed])}"
    if remote:
        check_remote(remote, out, overwrite)

    def make() -> None:
        prepare.check_engine()
        texts = prepare.texts or Path(folder) / f"{data.name}-texts-{short_hash(decides)}"
        report = make_shards(
            data.sources, out, tokenizer, clean=clean, dedup=compared, texts=texts, valid_fraction=data.valid_fraction,
            processes=prepare.worker_count, engine=prepare.engine, slurm=prepare.slurm.model_dump(), memory=prepare.bytes,
            shard_bytes=prepare.shard_mb << 20, overwrite=overwrite,
        )  # fmt: skip
        log(f"report   {out / 'report.html'}")
        warn_of(report, tokenizer)

    if not make_once(out, lambda: is_whole(out), make, overwrite):
        settings = settings_of_shards(settings_of_texts(sources, clean, compared), data.sources, data.valid_fraction)
        check_shards(out, settings, tokenizer, named=bool(prepare.out) and not remote)
        log(f"reading {out}, made before; task=prepare overwrite=true with the same data=... makes it anew")
    if remote and is_global_zero() and not same_shards(remote, out):
        with Bar(files.size_of(out), title="sending") as bar:
            files.send_folder(out, remote, MANIFEST, bar)
        log(f"sent to {remote}; data=shards data.root={remote} trains on it anywhere")
    return out


def local_shards(data: Data, folder: Path) -> Path:
    """data=shards: data.root, or the copy of a remote one on this machine's disk, made where it is missing or another by now."""
    root = str(data.root)
    if not files.is_remote(root):
        return Path(root)
    for part in PARTS:
        if not files.exists(files.join(root, part, MANIFEST)):
            raise ConfigError(f"data.root={root}: holds no {part}/{MANIFEST}; it is no folder of shards, or was sent half")
    copy = Path(folder) / "fetched" / f"{root.rstrip('/').rpartition('/')[2]}-{short_hash([root])}"

    def fetch() -> None:
        with Bar(files.size_of(root), title=f"fetching {root}") as bar:
            files.local_copy(root, copy, lambda new: [Shards(new / part).verify() for part in PARTS], bar)

    make_once(copy, lambda: same_shards(root, copy), fetch)
    return copy


def check_ready_made(folder: Path, tokenizer) -> Path:
    """data=shards: a folder that holds shards for this tokenizer, or ConfigError."""
    for part in PARTS:
        if not (folder / part / MANIFEST).exists():
            raise ConfigError(
                f"data.root={folder}: holds no {part}/{MANIFEST}; give the folder that task=prepare or task=convert wrote"
            )
        if Shards(folder / part).fingerprint != tokenizer.fingerprint:
            raise ConfigError(
                f"data.root={folder}: was made with another tokenizer than {tokenizer.name};"
                " tokenizer= must be the one it was made with, or the texts be prepared again"
            )
    return folder


def check_remote(remote: str, out: Path, overwrite: bool) -> None:
    """ConfigError where sending `out` to prepare.out=<remote> would replace what is there."""
    if not overwrite and files.exists(files.join(remote, "train", MANIFEST)) and not (is_whole(out) and same_shards(remote, out)):
        raise ConfigError(
            f"prepare.out={remote}: other shards are there; train on them with data=shards data.root={remote}, or overwrite=true"
        )
    if others := files.unrelated_files(remote, CONTENT):
        raise ConfigError(f"prepare.out={remote}: holds other files, {others[0]} for one; give a folder of its own")


def make_once(path: Path, is_there: Callable[[], bool], make: Callable[[], None], anew: bool = False) -> bool:
    """Whether this process made `path`, which the first process of each host does where it is missing; the others wait for it."""
    lock = path.with_name(f".{path.name}.lock")
    if not is_local_zero():
        wait_until(is_there, path, Lock(lock))
        return False
    if is_there() and not anew:
        return False
    with locked(lock, path):
        try:
            missing = anew or not is_there()  # another command may have made it meanwhile
            if missing:
                make()
        finally:
            lock.unlink(missing_ok=True)
    return missing


def wait_until(is_there: Callable[[], bool], path: Path, lock: Lock) -> None:
    """Returns when the first process of this host has made `path`; UserError when it ended without."""
    began, has_begun = time.monotonic(), False
    while not is_there():
        if lock.is_held():
            has_begun = True
        elif has_begun and not is_there():
            raise UserError(f"{path}: the process of this host that was making it has ended; what it wrote last says why")
        elif time.monotonic() - began > BEGIN_WITHIN:
            raise UserError(f"{path}: no process of this host has begun to make it within {BEGIN_WITHIN} s")
        time.sleep(POLL)


def is_whole(folder: Path) -> bool:
    return all((folder / part / MANIFEST).exists() for part in PARTS)


def same_shards(remote: str, folder: Path) -> bool:
    """Whether the manifests, which hold the checksums of all that is trained on, say the same in both; a remote folder that was
    sent half has none."""
    manifests = [(files.join(remote, part, MANIFEST), folder / part / MANIFEST) for part in PARTS]
    try:
        return all(files.read_json(there) == files.read_json(here) for there, here in manifests)
    except FileNotFoundError:
        return False


def warn_of(report: dict, tokenizer) -> None:
    """Says what was most likely not meant: many records that were not read, many unknown characters."""
    read, skipped = report["documents"]["read"], report["documents"]["skipped"]
    if skipped > 0.1 * (skipped + read):
        reason, counted = next(iter(report["skipped"].items()))
        log(
            f"warning: {skipped:,} of {skipped + read:,} records were not read, most of them for: {reason}"
            f" ({(counted['examples'] or [''])[0]})"
            + ("; data.text=<field> names the field" if reason == "missing field" else "")
        )
    if report["unknown"]["share"] > 0.01:
        log(
            f"warning: {report['unknown']['share']:.0%} of the tokens are [UNK]: {tokenizer.name} does not know these characters"
            " (hanzi has simplified ones only); see tokenizer=bert, or task=tokenizer for one of your own"
        )


def short_hash(decides: list) -> str:
    return hashlib.sha256(json.dumps(decides, ensure_ascii=False).encode()).hexdigest()[:8]
