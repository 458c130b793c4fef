"""task=prepare: raw texts to shards, with a report; inspect=N shows documents before and after instead."""

import shlex
from pathlib import Path

from cngpt import hosts
from cngpt.errors import ConfigError
from cngpt.plan import launch
from cngpt.settings import Field
from cngpt.tasks.command import Command, Common

READS = ("seed", "overwrite", "prepare", "tokenizer", "data", "clean", "dedup", "paths.data", "plugins")
HANDLES_SIGNALS = False
INTERRUPTED = "; the same command goes on where it was"
CHARACTERS = 600  # of a document, as much as a person looks at


class Keys(Common):
    inspect: int = Field(0, ge=0, description="N: print N random documents before and after cleaning, write nothing")


def run(command: Command) -> None:
    s = command.settings
    if s.data.name == "shards":
        raise ConfigError(
            "data=shards: these are prepared already; train with them, or take data=files data.root=<folder of texts>"
        )

    from cngpt.corpus.prepared import prepared
    from cngpt.tokens.load import from_settings

    tokenizer = from_settings(s.tokenizer)
    if s.inspect:
        show_documents(command)
        return
    options = {"clean": command.plain["clean"], "dedup": s.dedup, "prepare": s.prepare}
    shards = prepared(s.data, tokenizer, **options, folder=Path(s.paths.data), overwrite=s.overwrite)
    hosts.log(f"train on it: {shlex.join(['python', 'run.py', *launch.data_words(command.words)])} model=mini")
    print(shards)


def show_documents(command: Command) -> None:
    from cngpt.corpus.streams import inspect

    s = command.settings
    for raw, text, dropped in inspect(s.data.sources, s.inspect, command.plain["clean"], s.seed):
        after = beginning(text) if text is not None else f"(dropped: {dropped})"
        print(f"──── {raw.source} {raw.id}\n{raw.title}\n{beginning(raw.text)}\n──── becomes\n{after}\n")


def beginning(text: str) -> str:
    more = len(text) - CHARACTERS
    return text if more <= 0 else f"{text[:CHARACTERS]}\n… {more:,} more characters"
