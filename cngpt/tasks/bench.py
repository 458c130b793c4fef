"""task=bench: how fast this machine does a part of the work, beside other people's tools."""

import datetime
from pathlib import Path
from typing import Literal

from cngpt import files, hosts
from cngpt.errors import ConfigError
from cngpt.settings import Field, Positive, PositiveNumber, Text
from cngpt.tasks.command import Command, Common

READS = ("overwrite", "tokenizer", "data", "clean", "dedup", "prepare.memory", "paths.runs", "plugins")
HANDLES_SIGNALS = False


class Keys(Common):
    bench: Literal["prepare"] = Field("prepare", description="what is measured")
    repeats: Positive = Field(5, description="after one that warms up; ours and the others' take turns, the median counts")
    megabytes: PositiveNumber = Field(
        30.0, description="of the texts, an equal share of each file; from 68 on, two processes are measured too"
    )
    out: Text | None = Field(None, description="JSON with all results; null: <paths.runs>/bench-prepare-<date>.json")


def run(command: Command) -> None:
    s = command.settings
    if s.data.name == "shards":
        raise ConfigError("data=shards: these hold ids, and texts are measured: data=files data.root=<folder of texts>")
    out = command.new_file() or Path(s.paths.runs) / f"bench-{s.bench}-{datetime.datetime.now():%Y%m%d-%H%M%S}.json"

    from cngpt.bench import prepare as measured
    from cngpt.tokens.load import from_settings

    tokenizer = from_settings(s.tokenizer)

    results = measured.measure(
        s.data.sources, tokenizer, clean=command.plain["clean"], dedup=s.dedup if s.dedup.is_on else None, memory=s.prepare.bytes,
        megabytes=s.megabytes, repeats=s.repeats, log=hosts.log,
    )  # fmt: skip
    measured.show(results)
    with files.writing(out):
        files.write_json(out, results)
    hosts.log(f"results  {out}")
