"""task=generate: text from a trained model, for a prompt, a file of prompts, or prompts typed one by one."""

import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cngpt import files, hosts
from cngpt.errors import ConfigError, UserError
from cngpt.generation.settings import Sampling
from cngpt.settings import Field, Positive, Text
from cngpt.tasks.command import Command, Common, device

if TYPE_CHECKING:
    from cngpt.generation import Engine
    from cngpt.interop.bert import Bert

READS = ("ckpt", "overwrite", "generation", "paths.runs")
HANDLES_SIGNALS = False


class Keys(Common):
    prompt: Text | None = Field(None, description="""beginning of the text; quote it twice: 'prompt="双十一"'""")
    prompts_file: Text | None = Field(None, description="a UTF-8 file with one prompt a line; - reads standard input")
    n: Positive = Field(1, description="samples a prompt")
    out: Text | None = Field(None, description="also write prompt and text as json-lines to this file")


def run(command: Command) -> None:
    from cngpt import checkpoints
    from cngpt.tasks.starting_point import check_shape, sampling_of

    s = command.settings
    path = model_path(command, "generate from")
    header = checkpoints.header(path)
    check_shape(command, header)  # a contradicting model= is an error here too
    prompts, out = read_prompts(s), command.new_file()
    sampling = Sampling(**sampling_of(command, header))
    bert = open_reranker(s, prompts, header.tokenizer)
    if not s.ckpt:
        hosts.log(f"from {path}" + (f", step {header.step}" if header.step else ""))

    from cngpt.generation import Engine

    gpt, tokenizer = checkpoints.load(path, device=device())
    engine = Engine(gpt, tokenizer)
    if tokenizer.unk_id is not None and any(tokenizer.unk_id in tokenizer.encode(prompt) for prompt in prompts or []):
        hosts.log(
            f"warning: the tokenizer {tokenizer.name} does not know every character of the prompt; what it does not know is shown as □"
        )
    if prompts is None:
        converse(engine, sampling)
        return
    if s.n == len(prompts) == 1 and sys.stdout.isatty():
        rows = [{"prompt": prompts[0], "text": print_as_it_comes(engine.stream(prompts[0], sampling))}]
    else:
        rows = print_all(engine, prompts, s.n, sampling, bert)
    if out:
        with files.writing(out):
            files.write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def model_path(command: Command, purpose: str) -> Path:
    """ckpt=..., or the newest run."""
    from cngpt import checkpoints

    s = command.settings
    path = Path(s.ckpt) if s.ckpt else checkpoints.newest_run(s.paths.runs)
    if path is None:
        raise UserError(
            f"nothing to {purpose}: no run in {s.paths.runs}; train one (python run.py) or give ckpt=<model directory>"
        )
    return path


def read_prompts(s: Keys) -> list[str] | None:
    """The prompts given, one by one; None where a person will type them."""
    if s.prompt is not None and s.prompts_file is not None:
        raise ConfigError("prompt and prompts_file are both given: one of them is enough")
    if s.prompt is not None:
        return [s.prompt]
    if s.prompts_file is None and sys.stdin.isatty():
        return None
    if s.prompts_file in (None, "-"):
        text = sys.stdin.read()
    else:
        path = Path(s.prompts_file)
        if not path.is_file():
            raise ConfigError(f"prompts_file={path}: there is no such file")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            text = path.read_text(encoding="gb18030", errors="replace")
    prompts = [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts:
        raise ConfigError("""prompts_file: no prompt in it; one a line, or 'prompt="双十一"'""")
    return prompts


def open_reranker(s: Keys, prompts: list[str] | None, tokenizer) -> "Bert | None":
    """The BERT that puts samples in order, or None; opened before the model, so that a wrong folder is reported at once."""
    path = s.generation.rerank
    if path is None:
        return None
    if not path:
        raise ConfigError("generation.rerank=: the folder of a BERT is needed, or null for none")
    if s.n < 2 or prompts is None:
        raise ConfigError(f"generation.rerank={path}: puts the samples of a given prompt in order; give a prompt and n=10 or so")

    from cngpt.interop.bert import Bert

    try:
        bert = Bert.open(path, device=device())
    except UserError as error:
        raise ConfigError(f"generation.rerank={error}") from None
    if not bert.reads(tokenizer):
        hosts.log(f"note: {path} has another vocabulary than {tokenizer.name}, so texts are tokenized once more for it")
    return bert


def print_as_it_comes(pieces: Iterable[str]) -> str:
    text = ""
    for piece in pieces:
        text += piece
        print(piece, end="", flush=True)
    print()
    return text


def print_all(engine: "Engine", prompts: list[str], n: int, sampling: Sampling, bert: "Bert | None") -> list[dict[str, Any]]:
    """Prints n texts a prompt, the best first where a BERT ranks them; the rows for out=."""
    rows = []
    for prompt, stories in zip(prompts, engine.generate(prompts, n=n, sampling=sampling), strict=True):
        ranked = bert.order(stories, engine.tokenizer, progress=True) if bert else [(story, None) for story in stories]
        for i, (story, score) in enumerate(ranked):
            row = {"prompt": prompt, "text": story.text}
            if bert:
                row["score"] = score if math.isfinite(score) else None  # nothing was written
            rows.append(row)
            head = f"── {i + 1}" + (f"   {score:.3f}" if bert else "")
            print(f"{head}\n{story.text}" if n > 1 else story.text, end="\n\n" if len(prompts) * n > 1 else "\n")
    return rows


def converse(engine: "Engine", sampling: Sampling) -> None:
    """Prompts typed by a person, each continued as it is written; an empty line or ctrl-D ends it."""
    hosts.log("type the beginning of a text; an empty line ends")
    turn = 0
    while True:
        try:
            prompt = input("> ").strip()
        except EOFError:
            return
        if not prompt:
            return
        print_as_it_comes(engine.stream(prompt, sampling.model_copy(update={"seed": sampling.seed + turn})))
        print()
        turn += 1
