"""task=tokenizer: a tokenizer trained on the texts of data=..."""

from pathlib import Path
from typing import Literal

from cngpt import hosts
from cngpt.errors import ConfigError
from cngpt.settings import Field, Positive, Text
from cngpt.tasks.command import Command, Common, refuse_remote

READS = ("overwrite", "data", "clean", "plugins")
HANDLES_SIGNALS = False


class Keys(Common):
    kind: Literal["wordpiece", "bpe"] = Field("wordpiece", description="of tokenizer")
    vocab_size: Positive = Field(21128, description="entries, control tokens included")
    lowercase: bool = Field(False, description="wordpiece: fold upper case")
    out: Text | None = Field(None, description="folder to write tokenizer.json into; then tokenizer=bpe tokenizer.path=<out>")


def run(command: Command) -> None:
    s = command.settings
    if s.data.name == "shards":
        raise ConfigError(
            "data=shards: these hold ids, and a tokenizer is trained on texts: data=files data.root=<folder of texts>"
        )
    if not s.out:
        raise ConfigError("out=... is needed: the folder to write tokenizer.json into")
    refuse_remote(s.out)
    out = Path(s.out)
    if (out / "tokenizer.json").exists() and not s.overwrite:
        raise ConfigError(f"out={out}: holds a tokenizer.json already; take another folder, or overwrite=true")

    from cngpt.corpus.streams import clean_texts
    from cngpt.tokens.train import TRAINERS

    documents = clean_texts(s.data.sources, command.plain["clean"])
    made = TRAINERS[s.kind](documents, s.vocab_size, s.lowercase)
    out.mkdir(parents=True, exist_ok=True)
    made.save(out / "tokenizer.json")
    hosts.log(f"{out / 'tokenizer.json'}: {made.vocab_size:,} entries; train with it: tokenizer=bpe tokenizer.path={out}")
