"""task=export: a model to a folder that Hugging Face's transformers loads."""

from pathlib import Path
from typing import Literal

from cngpt import hosts, runs
from cngpt.settings import Field, Text
from cngpt.tasks.command import Command, Common
from cngpt.tasks.generate import model_path

READS = ("ckpt", "overwrite", "paths.runs", "paths.models")
HANDLES_SIGNALS = False


class Keys(Common):
    to: Literal["huggingface"] = Field("huggingface", description="whose format")
    out: Text | None = Field(None, description="folder to write; null: one in paths.models, named after the model")


def run(command: Command) -> None:
    path = model_path(command, "export")
    out = command.new_folder("models", f"{name_of(path)}-huggingface")

    from cngpt.interop.huggingface.export import export

    for note in export(path, out, overwrite=command.settings.overwrite):
        hosts.log(note)
    hosts.log(f"folder   {out}   (AutoModelForCausalLM.from_pretrained({str(out)!r}))")


def name_of(path: Path) -> str:
    """The run's or the model's."""
    whole = path.resolve()
    return (whole.parent if whole == runs.Run(whole.parent).model else whole).name.removesuffix(runs.SUFFIX)
