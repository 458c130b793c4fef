"""What a user may say of the texts and of their preparation: the groups `data` and `prepare`."""

import importlib.util
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator

from cngpt import files
from cngpt.corpus.clean.rules import AS_WRITTEN
from cngpt.corpus.engines import ENGINES
from cngpt.corpus.readers import HIGHEST_WEIGHT, is_weight
from cngpt.errors import ConfigError
from cngpt.settings import Field, Hints, OneOf, Positive, PositiveOrAuto, Settings, Text, show

LEAST_MEMORY = 100_000_000  # bytes


def _check_sources(sources: Any) -> Any:
    form = "a list of mappings, as [{reader: files, root: my_texts}]"
    if not isinstance(sources, list) or not sources:
        raise ConfigError(f"data.sources={show(sources)}: {form} is needed")
    for source in sources:
        if not isinstance(source, Mapping) or not all(isinstance(source.get(key), str) for key in ("reader", "root")):
            raise ConfigError(f"data.sources: {show(source)} is no mapping with the texts reader and root; {form} is needed")
    return sources


def _check_weights(weights: Any) -> Any:
    for source, weight in weights.items() if isinstance(weights, Mapping) else ():
        if not is_weight(weight):
            raise ConfigError(
                f"data.weights.{source}={show(weight)}: how often it is read in one pass, above 0 and at most {HIGHEST_WEIGHT};"
                " to leave it out, take the other corpus alone: data=..."
            )
    return weights


class Data(Settings, group="data"):
    """The texts to train on."""

    name: Text = Field(description="what folders of clean texts and shards are called after")
    root: Annotated[Text | None, Hints("path", "folder", "dir", "file")] = Field(
        None, description="where the texts lie: a file or a folder, gs:// and s3:// too"
    )
    valid_fraction: Annotated[float, AS_WRITTEN, Hints("valid", "validation", "val_fraction", "valid_split")] = Field(
        0.001, ge=0, le=0.5, description="of the documents, by a hash of their text, kept aside for validation"
    )
    sources: Annotated[list[Any], BeforeValidator(_check_sources)] = Field(
        description="what is read: of each source its reader, its root, the reader's options, and its weight"
    )
    weights: Annotated[dict[str, Any] | None, BeforeValidator(_check_weights)] = Field(
        None, description="how often each source is read in one pass over the shards: 2 reads it twice, 0.5 half of it"
    )
    text: Annotated[Text, Hints("field", "text_field", "column")] = Field(
        "auto", description="field of a json record that holds the text; auto: text, content, ..."
    )
    title: Annotated[Text, Hints("title_field")] = Field("auto", description="field of a json record that holds the title")
    split: Literal["file", "line", "blank"] = Field(
        "file", description="what one document is in a .txt: the file, a line, or a block between blank lines"
    )


def bytes_of(amount: str | int) -> int:
    """8GB, 500MB or a number of bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", str(amount).strip().lower())
    number = int(float(match[1]) * 1000 ** " kmgt".index(match[2] or " ")) if match else 0
    if number < LEAST_MEMORY:
        raise ValueError(f"an amount such as 8GB, {LEAST_MEMORY // 10**6}MB at least")
    return number


def _check_local(folder: str | None) -> str | None:
    if files.is_remote(folder or ""):
        raise ValueError("the clean texts stay on a local disk; prepare.out may be remote")
    return folder


class Slurm(Settings, group="prepare.slurm"):
    """With prepare.engine=datatrove_slurm: how the tasks are submitted."""

    partition: Text | None = Field(None, description="needed: the part of the cluster where the tasks run (sinfo lists them)")
    tasks: Positive = Field(64, description="at most, of one core each")
    memory_gb: Positive = Field(4, description="of a task")
    time: Text = Field("24:00:00", description="limit of a task")
    qos: Text | None = Field(None, description="quality of service, where the cluster wants one")
    setup: Text | None = Field(
        None, description="a shell command before each task; by default the environment of this command is entered"
    )


class Prepare(Settings, group="prepare"):
    """How raw texts become shards: task=prepare, and train where shards are missing."""

    processes: Annotated[PositiveOrAuto, Hints("workers", "num_workers", "cores")] = Field(
        "auto", description="auto: one a core, at most 16"
    )
    engine: Annotated[str, OneOf(ENGINES)] = Field(
        "local", description="whose processes; of datatrove's see experiments/preparation/slurm"
    )
    memory: Annotated[Text, AfterValidator(lambda amount: (bytes_of(amount), amount)[1]), Hints("ram")] = Field(
        "8GB", description="for the search for duplicates; what does not fit waits on disk"
    )
    shard_mb: Annotated[Positive, Hints("shard_size", "shard_bytes")] = Field(256, description="megabytes in one shard file")
    texts: Annotated[Text | None, AfterValidator(_check_local)] = Field(
        None, description="folder of the clean texts, which other tokenizers use again; by default data/<data>-texts-<hash>"
    )
    out: Annotated[Text | None, Hints("output", "folder")] = Field(
        None, description="folder of the shards, gs:// and s3:// too; by default data/<data>-<tokenizer>-<hash of these settings>"
    )
    slurm: Annotated[Slurm, BeforeValidator(lambda value: Slurm(**value) if isinstance(value, Mapping) else value)] = Slurm()

    @property
    def bytes(self) -> int:
        return bytes_of(self.memory)

    @property
    def worker_count(self) -> int:
        return min(16, os.cpu_count() or 1) if self.processes == "auto" else self.processes

    def check_engine(self) -> None:
        """ConfigError where what `engine` runs on is not installed, or not told what it must know."""
        for package, remedy in ENGINES[self.engine].items():
            if importlib.util.find_spec(package) is None:
                raise ConfigError(f"prepare.engine={self.engine} needs {package}, which is not installed: {remedy}")
        if self.engine == "datatrove_slurm" and not self.slurm.partition:
            raise ConfigError(
                f"prepare.slurm.partition=... is needed: {Slurm.field('partition').description.removeprefix('needed: ')}"
            )
