"""Sources -> clean texts -> shards, and an account of every document.

    texts/                     clean texts without duplicates, as json-lines; another tokenizer needs no second cleaning
    texts/manifest.json        what they were made of and how
    out/train/  out/valid/     shards (see tokens/shards.py)
    out/report.json, .html     what was kept, changed, dropped and skipped, and why

Both folders appear whole, under their names, or not at all. What is half done waits in `<folder>.work`; the same command goes on there,
and ends with the same bytes as if nothing had happened, whatever the number of processes.
"""

import errno
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cngpt import files
from cngpt.corpus import made, units
from cngpt.corpus.clean import BASIC
from cngpt.corpus.dedup.decide import Decisions, decide
from cngpt.corpus.dedup.settings import Dedup
from cngpt.corpus.document import Progress
from cngpt.corpus.engines import Engine
from cngpt.corpus.made import FORMAT, MANIFEST, REPORT
from cngpt.corpus.mixture import MixtureWriter, mixture, names_of
from cngpt.corpus.pool import Stage, not_done, unit_name
from cngpt.corpus.readers import open_source, weight_of
from cngpt.corpus.readers.raw import close_archives
from cngpt.corpus.report import Account, nothing_kept, report_of, show
from cngpt.corpus.report_page import render
from cngpt.corpus.resumable import CannotResume, resumable_folder, sweep, work_folder
from cngpt.corpus.split import Split
from cngpt.corpus.stages import Reading, RemoveDuplicates, Tokenizing
from cngpt.corpus.texts import Texts
from cngpt.errors import ConfigError, UserError
from cngpt.progress import Bar
from cngpt.tokens import Tokenizer
from cngpt.tokens.shards import SHARD_BYTES

POOL_FROM = 64 << 20  # bytes of text; below, starting processes takes longer than the work


def prepare(sources: Sequence[Mapping], out: str | Path, tokenizer: Tokenizer, **options) -> dict:
    """Writes `texts`, unless they are there already, and `out`; returns the report of `out`. options: the other fields of Preparation.

    Raises ConfigError for what the user typed, UserError where nothing is left, the disk is full, a file changed meanwhile, or `out`
    exists (overwrite replaces both folders, but only such as were made here).
    """
    job = Preparation(sources, out, tokenizer, **options)
    with disk_errors(job.out):
        report = job.make_shards(job.make_texts())
    if job.progress:
        show(report)
    return report


def with_name(key: str, folder: str | Path) -> Path:
    """A folder that has a name of its own, which `.` and `..` have not: what is half done lies beside it under that name."""
    path = Path(folder)
    path = path if path.name not in ("", "..") else path.resolve()
    if not path.name:
        raise ConfigError(f"prepare.{key}={folder}: a folder below this one is needed")
    return path


@contextmanager
def disk_errors(out: Path) -> Iterator[None]:
    """What the system says of the disk, in one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"no space left on the disk of {out}; with more space the same command goes on where it stopped"
            ) from None
        raise UserError(f"{out} cannot be written: {error.strerror or error}; choose another folder") from error


@dataclass
class Preparation:
    """What is prepared, and how; its two steps."""

    sources: Sequence[Mapping]  # for readers.open_source; a `weight` says how often a source is read in one pass over the shards
    out: str | Path
    tokenizer: Tokenizer
    clean: Mapping[str, Any] = field(default_factory=lambda: BASIC)  # the group conf/clean
    dedup: Dedup | None = None
    texts: str | Path | None = None  # <out>-texts
    # of the documents, chosen by a hash of the clean text, so copies of one text stay together; of two documents or more,
    # one at least is kept aside, and one at least is not
    valid_fraction: float = 0.01
    processes: int = 1  # of ours, 1 works in this one, as do more when there is little to read
    engine: str = "local"  # one of engines.ENGINES
    slurm: Mapping[str, Any] = field(default_factory=dict)  # the keys of prepare.slurm in conf/config.yaml
    memory: int = 8 << 30  # bytes, for the search for duplicates
    shard_bytes: int = SHARD_BYTES
    progress: bool = True  # a bar a stage and a closing table on stderr
    overwrite: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.valid_fraction < 1:
            raise ConfigError(f"data.valid_fraction={self.valid_fraction} is not a share of the documents: 0 ... below 1")
        if self.processes < 1:
            raise ConfigError(f"prepare.processes={self.processes} must be 1 or more")
        if files.is_remote(self.out) or files.is_remote(self.texts or ""):
            raise ConfigError(
                f"prepare.texts={self.texts}, prepare.out={self.out}: work is done on a local disk; the clean texts stay there"
            )
        self.out = with_name("out", self.out)
        self.texts = with_name("texts", self.texts) if self.texts else self.out.with_name(self.out.name + "-texts")
        self.settings = made.settings_of_texts(self.sources, self.clean, self.dedup)
        made.settings_of_shards(self.settings, self.sources, self.valid_fraction)  # raises for a wrong weight
        self._check_folders()
        self.seconds: dict[str, float] = {}  # of each stage
        self.account = Account()
        self.began = time.monotonic()

    def _check_folders(self) -> None:
        """Raises where writing these folders would replace what was not made here."""
        for key, folder, mark, replaced in ("out", self.out, REPORT, self.overwrite), ("texts", self.texts, MANIFEST, True):
            here = folder.resolve()
            for source in self.sources:
                if not files.is_remote(source["root"]) and here in (root := Path(source["root"]).resolve(), *root.parents):
                    raise ConfigError(
                        f"prepare.{key}={folder}: is or holds what is read, {source['root']}; choose another folder"
                    )
            # of the clean texts nothing half made ever has their name: whatever lacks the mark is somebody else's
            if replaced and folder.exists() and not files.is_empty(folder) and not (folder / mark).is_file():
                raise UserError(
                    f"{folder} was not made by task=prepare ({mark} is missing) and is not replaced; choose another folder"
                )
        if self.out.resolve() == self.texts.resolve():
            raise ConfigError(f"prepare.out={self.out} and prepare.texts={self.texts} are the same folder; they need two")
        # beside a folder for work, `out` may be this run's own, killed before that was removed: make_shards looks
        if self.out.exists() and not (self.overwrite or files.is_empty(self.out) or work_folder(self.out).exists()):
            raise UserError(f"{self.out} exists already; overwrite=true replaces it")

    def make_texts(self) -> dict:
        """The manifest of `texts`, which are made where they are missing: a file a unit."""
        if self._texts_are_there():
            manifest = made.texts_made_before(self.texts, self.settings)
            sweep(self.texts)
            return manifest
        readers = [open_source(source) for source in self.settings["sources"]]
        for reader, name in zip(readers, names_of(self.sources), strict=True):
            reader.name = name
        work = units.plan(readers, self.account.skipped)
        close_archives()  # only workers read them from here on, if there are any
        plan = units.digest(work)
        with resumable_folder(self.texts, {"format": FORMAT, **self.settings, "plan": plan}) as folder:
            if self._texts_are_there():  # made by the process that was waited for
                return made.texts_made_before(self.texts, self.settings)
            engine = self._engine_for(sum(unit.content for unit in work))
            done = self._read(work, folder, engine)
            if self.dedup:
                done = self._remove_duplicates(len(work), folder, engine)
            size = sum(unit.size for unit in work)
            manifest = {"format": FORMAT, "settings": self.settings, "size": size, "plan": plan, "seconds": self.seconds}
            manifest |= {"units": [readers.index(unit.reader) for unit in work], "account": self.account.as_dict()}
            files.write_json(done / MANIFEST, manifest)
            files.replace_folder(done, self.texts)
        return made.manifest_of(self.texts)

    def make_shards(self, texts: dict) -> dict:
        """Clean texts, of which `texts` is the manifest, to `out`; the report."""
        settings = made.settings_of_shards({**texts["settings"], "size": texts["size"]}, self.sources, self.valid_fraction)
        purpose = {"texts": texts["plan"], "settings": settings, "tokenizer": self.tokenizer.fingerprint}
        with resumable_folder(self.out, purpose) as folder:
            # made by the process that was waited for, or by one that was killed right after
            if (self.out / REPORT).is_file() and not self.overwrite:
                if made.are_made_with(self.out, settings, self.tokenizer):
                    return files.read_json(self.out / REPORT)
                raise CannotResume(f"{self.out} exists already, made with other settings; overwrite=true replaces it")
            with (
                files.atomic_folder(self.out, self.overwrite) as new,
                Split(new, self.tokenizer, self.valid_fraction, self.shard_bytes) as split,
            ):
                self.seconds, self.account = dict(texts["seconds"]), Account.from_dict(texts["account"])
                engine = self._engine_for(self._text_bytes())
                self._tokenize(texts["units"], folder, engine, split)
                report = self._close(split, settings)
                report |= {"settings": settings, "texts": str(self.texts), "processes": engine.processes, "engine": engine.name}
                report["seconds"] = round(time.monotonic() - self.began, 2)
                report["stages"] = {title: round(seconds, 2) for title, seconds in self.seconds.items()}
                files.write_json(new / REPORT, report)
                files.write_text(new / "report.html", render(report))
                self.tokenizer.save(new / "tokenizer.json")
        return report

    def _texts_are_there(self) -> bool:
        return (self.texts / MANIFEST).is_file() and not self.overwrite

    def _engine_for(self, size: float) -> Engine:
        """One process of ours does, where there is little to read."""
        little = self.engine == "local" and size < POOL_FROM
        return Engine(self.engine, 1 if little else self.processes, self.slurm)

    def _text_bytes(self) -> int:
        """Of the clean texts, about."""
        return 3 * self.account.counts["characters cleaned"]

    def _read(self, work: list[units.Unit], folder: Path, engine: Engine) -> Path:
        """The folder of the cleaned units."""
        stage = Reading(work, self.clean, self.dedup, folder / "read")
        if self.progress and (done := len(work) - len(not_done(stage.folder, range(len(work))))):
            print(f"goes on: {done:,} of {len(work):,} units had been read before", file=sys.stderr)
        self._run("reading and cleaning", stage, len(work), sum(unit.size for unit in work), engine)
        if not self.account.counts["cleaned"]:
            raise nothing_kept(self.sources, report_of(self.account))
        return stage.folder

    def _remove_duplicates(self, count: int, folder: Path, engine: Engine) -> Path:
        """The folder of the units without duplicates."""
        documents = self.account.counts["cleaned"]
        with self._timed("finding duplicates", documents, "documents") as bar:
            # what it reports are shares of the whole
            duplicates = find_duplicates(folder, range(count), self.dedup, self.memory, lambda share: bar(share * documents))
        self.account.duplicates = duplicates
        stage = RemoveDuplicates(folder / "read", folder / "decisions", self.dedup, min_chars_of(self.clean), folder / "texts")
        self._run("removing duplicates", stage, count, self._text_bytes(), engine)
        return stage.folder

    def _tokenize(self, owners: list[int], folder: Path, engine: Engine, split: Split) -> None:
        stage = Tokenizing(self.texts, self.tokenizer, folder / "tokens")
        writer = MixtureWriter(split, stage.folder, self.tokenizer, owners, [weight_of(source) for source in self.sources])
        # the workers tokenize, while this process writes
        beside = writer.add_ready if engine.name == "local" and engine.processes > 1 else None
        self._run("tokenizing", stage, len(owners), self._text_bytes(), engine, beside)
        with self._timed("writing shards", self._text_bytes() + writer.bytes_of_copies()) as bar:
            writer.add_ready(bar)
            writer.add_copies(bar)

    def _run(
        self, title: str, stage: Stage, count: int, size: float, engine: Engine, beside: Callable[[Bar], None] | None = None
    ) -> None:
        """A stage for all units, with what it counts. beside: called now and then, work of as many bytes that goes on meanwhile."""
        with self._timed(title, (2 if beside else 1) * size) as bar:

            def report_progress(more: float) -> None:
                bar(more)
                if beside:
                    beside(bar)

            engine.run(stage, range(count), report_progress, size)
        for n in range(count):
            self.account += Account.from_dict(files.read_json(stage.folder / unit_name(n) / "account.json"))

    def _close(self, split: Split, settings: dict) -> dict:
        """The report, when both folders of the split are whole."""
        report = report_of(self.account)
        if not report["documents"]["kept"]:
            raise nothing_kept(self.sources, report)
        kept_in_manifest = {key: value for key, value in report.items() if key not in ("shown", "duplicates")}
        report |= split.close({"settings": settings, **kept_in_manifest})
        if not report["train"]["documents"]:
            raise CannotResume("data.sources: these weights leave no document to train on; take higher ones")
        report["mixture"] = mixture(self.sources, split.counts)
        return report

    @contextmanager
    def _timed(self, title: str, total: float, counted: str | None = None) -> Iterator[Bar]:
        began = time.monotonic()
        with Bar(int(total), self.progress, title, counted) as bar:
            yield bar
        self.seconds[title] = self.seconds.get(title, 0.0) + time.monotonic() - began


def find_duplicates(folder: Path, numbers: Sequence[int], settings: Dedup, memory: int, progress: Progress) -> dict:
    """Writes folder/decisions, unless they are there; what was found, for the report."""
    if not (folder / "decisions").exists():

        def texts_of(documents: list[tuple[int, int]]) -> list[str]:
            """The texts at (unit, position), of one unit, ascending."""
            return Texts(folder / "read" / unit_name(documents[0][0]) / "texts").at([position for _, position in documents])

        fingerprints = [folder / "read" / unit_name(n) / "fingerprints" for n in numbers]
        decide(fingerprints, settings, texts_of, memory, folder / "scratch", progress).save(folder / "decisions")
        shutil.rmtree(folder / "scratch", ignore_errors=True)
    decisions = Decisions.load(folder / "decisions")
    return {**decisions.counts, **{f"bytes a document, {where}": size for where, size in decisions.bytes_per_document.items()}}


def min_chars_of(clean: Mapping) -> int:
    value = clean.get("min_chars")
    return value if isinstance(value, int) and not isinstance(value, bool) else 1
