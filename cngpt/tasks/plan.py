"""task=plan: what a run needs and costs on hardware=..., and with launch=... the commands that start it there."""

import json
import re
from pathlib import Path
from typing import Literal

from cngpt import files, hosts
from cngpt.model.shape import Shape
from cngpt.plan import hardware, launch, report, spread
from cngpt.plan.setup import Setup
from cngpt.settings import Field, Text
from cngpt.tasks.command import Command, Common

READS = ("name", "ckpt", "init", "tokens_per_step", "max_steps", "model", "tokenizer", "optim", "trainer", "hardware", "plugins")
HANDLES_SIGNALS = False


class Keys(Common):
    HARDWARE = True

    launch: Literal["gcloud", "queued", "torchrun", "slurm"] | None = Field(
        None, description="print the commands that start this run there"
    )
    out: Text | None = Field(None, description="JSON with the whole plan; - prints it instead of the table")


def run(command: Command) -> None:
    s = command.settings
    setup, machine = planned(command)
    if s.launch:
        words = [word for word in command.words if not re.match(r"(task|launch|out|hardware|overwrite|name)\b", word)]
        print(launch.commands(s.launch, setup, machine, words, s.name))
        return
    out = command.new_file() if s.out != "-" else None
    plan = report.plan(setup, machine, s.tokens_per_step, s.max_steps, training_tokens(command))
    if s.out == "-":
        print(json.dumps(plan.as_dict(), ensure_ascii=False, indent=2))
        return
    report.show(plan)
    if out:
        with files.writing(out):
            files.write_json(out, plan.as_dict())
        hosts.log(f"plan     {s.out}")


def planned(command: Command) -> tuple[Setup, hardware.Hardware]:
    """How the model is spread, and over what machine."""
    from cngpt.tokens.order import divide

    s = command.settings
    machine = hardware.resolve(s.hardware, s.trainer.accelerator)
    trainer = s.trainer.settled(here=s.hardware.name == "auto")
    shape = planned_shape(command)

    def batches(readers: int) -> tuple[int, int]:
        return divide(s.tokens_per_step, shape.n_ctx, readers, trainer.micro_batch, trainer.micro_batch_tokens).per_device

    return spread.setup_of(trainer, shape, s.optim.name, machine, batches), machine


def planned_shape(command: Command) -> Shape:
    """From the configuration or the checkpoint that it begins with; no tokenizer is opened if its size is known."""
    from cngpt.tasks.starting_point import StartingPoint, shape_of, starting_point, tokenizer_of
    from cngpt.tokens.load import known_vocab_size

    s = command.settings
    start = starting_point(command) if s.ckpt or s.init else StartingPoint()
    if start.header is None and (size := known_vocab_size(s.tokenizer.name)):
        return shape_of(command, start, size)
    return shape_of(command, start, start.header.shape["vocab_size"] if start.header else tokenizer_of(command, start).vocab_size)


def training_tokens(command: Command) -> int | None:
    """Of the shards that are there for this data and tokenizer, the newest; None before they are prepared."""
    from cngpt.tokens.shards import Shards

    s = command.settings
    if s.data.name == "sample":  # whoever plans for weeks reads something else
        return None
    if s.data.name == "shards":
        folders = [Path(s.data.root)]
    elif s.prepare.out:
        folders = [Path(s.prepare.out)]
    else:
        named = f"{s.data.name}-{s.tokenizer.name}-*"
        folders = sorted(Path(s.paths.data).glob(named), key=lambda folder: folder.stat().st_mtime)
    whole = [folder for folder in folders if (folder / "train" / "manifest.json").exists()]
    return Shards(whole[-1] / "train").tokens if whole else None
