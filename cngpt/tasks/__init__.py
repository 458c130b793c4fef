"""One function a task: a table of contents. Heavy imports wait until the task that needs them."""

import datetime
import json
import math
import shlex
import shutil
import sys
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from cngpt.errors import ConfigError, UserError
from cngpt.tasks.inputs import (
    Start,
    dedup_of,
    file_for,
    first_of_all,
    generation_of,
    memory_of,
    name_for,
    place_for,
    plain,
    prepared,
    prompts_of,
    run_folder,
    say,
    set_aside_later,
    shape_of,
    start_of,
    tokenizer_of,
    typed_as,
)
from cngpt.tasks.planning import data_tokens, enforce, hardware_of, planned_model, setup_of, words_of


def train(cfg: DictConfig, typed: set[str]) -> None:
    """Texts to shards where they are missing, shards to a trained model, in runs/<name>/."""
    from cngpt.plan.flops import parameters
    from cngpt.tokens.shards import Shards

    folder, start = run_folder(cfg), start_of(cfg, typed)
    tokenizer = tokenizer_of(cfg, typed, start.head, start.path)
    settings = plain(cfg)
    settings["model"] = {"vocab_size": tokenizer.vocab_size, **shape_of(cfg, typed, start.head, start.path)}
    settings["generation"] = generation_of(cfg, typed, start.head)
    if start.resume and start.head["step"] >= cfg.max_steps:
        if not start.path.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(
                f"max_steps={cfg.max_steps}: ckpt={cfg.ckpt} has done {start.head['step']} steps already; give a higher number"
            )
        finished(folder, start, cfg.max_steps)
        return

    enforce(cfg, settings["model"])
    shards = prepared(cfg, tokenizer)
    tokens = Shards(shards / "train").tokens
    passes = cfg.max_steps * cfg.tokens_per_step / max(1, tokens)
    say(f"{parameters(**settings['model']):,} parameters; {tokens:,} training tokens in {shards}, read {passes:.2g} times over")

    if cfg.overwrite and folder.exists() and first_of_all():
        shutil.rmtree(folder)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    if start.resume and start.path.parent.resolve() == (folder / "checkpoints").resolve() and first_of_all():
        set_aside_later(start)
    if (bucket := cfg.callbacks.checkpoint.folder) and first_of_all():
        from cngpt.training import remote

        remote.remove_later(bucket, start.path.name if start.resume else "")
    if first_of_all():
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True), encoding="utf-8")

    from cngpt.training.fit import fit

    resume, init = (start.path, None) if start.resume else (None, start.path)
    outcome = fit(settings, tokenizer, shards, folder, resume, init)
    if outcome.stopped_by is not None:
        again = "the same options, without overwrite=true," if cfg.overwrite else "the same options"
        say(f"stopped at step {outcome.step}; python run.py name={cfg.name} with {again} goes on")
        raise SystemExit(128 + outcome.stopped_by)  # so that a scheduler, or a sweep, knows
    loss, bits = outcome.metrics.get("val_loss"), outcome.metrics.get("val_bits_per_character")
    if loss is not None:
        say(f"step {outcome.step}: validation loss {loss:.3f} nats a token, {bits:.3f} bits a character")
    say(f"run      {folder}   (config.yaml, samples.jsonl, loss.svg, checkpoints/)")
    say(f"model    {folder / 'model'}   (python run.py task=generate ckpt={folder / 'model'})")
    say(f"metrics  {folder / 'metrics.csv'}")


def prepare(cfg: DictConfig, typed: set[str]) -> None:
    """Raw texts to shards, with a report; inspect=N shows documents before and after instead."""
    if cfg.data.name == "shards":
        raise ConfigError(
            "data=shards: these are prepared already; train with them, or take data=files data.root=<folder of texts>"
        )
    from cngpt.plan import launch

    tokenizer = tokenizer_of(cfg, typed, None, None)
    if cfg.inspect:
        from cngpt.corpus.prepare import inspect

        for raw, text, dropped in inspect(plain(cfg)["data"]["sources"], cfg.inspect, plain(cfg)["clean"], cfg.seed):
            after = beginning(text) if text is not None else f"(dropped: {dropped})"
            print(f"──── {raw.source} {raw.id}\n{raw.title}\n{beginning(raw.text)}\n──── becomes\n{after}\n")
        return
    shards = prepared(cfg, tokenizer, again=cfg.overwrite)
    words = [w for w in launch.data_words(words_of(typed)) if not w.startswith("overwrite")]
    say(f"train on it: {shlex.join(['python', 'run.py', *words])} model=mini")
    print(shards)


def tokenizer(cfg: DictConfig, typed: set[str]) -> None:
    """A tokenizer trained on the texts of data=..."""
    from cngpt.corpus.prepare import clean_texts
    from cngpt.tokens import train as trainers

    if cfg.data.name == "shards":
        raise ConfigError(
            "data=shards: these hold ids, and a tokenizer is trained on texts: data=files data.root=<folder of texts>"
        )
    if not cfg.out:
        raise ConfigError("out=... is needed: the folder to write tokenizer.json into")
    out = Path(cfg.out)
    if (out / "tokenizer.json").exists() and not cfg.overwrite:
        raise ConfigError(f"out={out}: holds a tokenizer.json already; take another folder, or overwrite=true")
    documents = clean_texts(plain(cfg)["data"]["sources"], plain(cfg)["clean"])
    if cfg.kind == "bpe":
        made = trainers.train_bpe(documents, cfg.vocab_size)
    else:
        made = trainers.train_wordpiece(documents, cfg.vocab_size, lowercase=cfg.lowercase)
    out.mkdir(parents=True, exist_ok=True)
    made.save(out / "tokenizer.json")
    say(f"{out / 'tokenizer.json'}: {made.vocab_size:,} entries; train with it: tokenizer=bpe tokenizer.path={out}")


def generate(cfg: DictConfig, typed: set[str]) -> None:
    """Text from a trained model: a prompt, a file of prompts, or prompts typed one by one."""
    from cngpt import store

    path = Path(cfg.ckpt) if cfg.ckpt else store.newest(Path(cfg.paths.runs))
    if path is None:
        raise UserError(
            f"nothing to generate from: no run in {cfg.paths.runs}; train one (python run.py) or give ckpt=<model directory>"
        )
    head = store.header(path)
    shape_of(cfg, typed, head, path)  # a contradicting model= is an error here too
    prompts = prompts_of(cfg)
    out = file_for(cfg)

    from cngpt.generation import Engine, Sampling

    sampling = Sampling(**generation_of(cfg, typed, head))
    bert = reranker_of(cfg, prompts, head["tokenizer"])
    if not cfg.ckpt:
        say(f"from {path}" + (f", step {head['step']}" if head["step"] else ""))
    gpt, tokenizer = store.load(path, device=generation_device())
    engine = Engine(gpt, tokenizer)
    if tokenizer.unk_id is not None and any(tokenizer.unk_id in tokenizer.encode(prompt) for prompt in prompts or []):
        say(
            f"warning: the tokenizer {tokenizer.name} does not know every character of the prompt; what it does not know is shown as □"
        )
    if prompts is None:
        converse(engine, sampling)
        return
    rows = []
    if cfg.n == len(prompts) == 1 and sys.stdout.isatty():
        pieces = []
        for piece in engine.stream(prompts[0], sampling):
            pieces.append(piece)
            print(piece, end="", flush=True)
        print()
        rows = [{"prompt": prompts[0], "text": "".join(pieces)}]
    else:
        for prompt, stories in zip(prompts, engine.generate(prompts, n=cfg.n, sampling=sampling), strict=True):
            scored = bert.order(stories, tokenizer, progress=True) if bert else [(story, None) for story in stories]
            for i, (story, score) in enumerate(scored):
                rows.append({"prompt": prompt, "text": story.text})
                if bert:
                    rows[-1]["score"] = score if math.isfinite(score) else None  # nothing was written
                line = f"── {i + 1}" + (f"   {score:.3f}" if bert else "")
                print(f"{line}\n{story.text}" if cfg.n > 1 else story.text, end="\n\n" if len(prompts) * cfg.n > 1 else "\n")
    if out:
        from cngpt import files

        with files.writing(out):
            files.write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def convert(cfg: DictConfig, typed: set[str]) -> None:
    """A checkpoint of gpt2-ml, a model of Hugging Face or a training checkpoint of ours to a model directory; the TFRecords of
    gpt2-ml to shards."""
    path, name = str(cfg.path), name_for(Path(cfg.path))
    if cfg["from"] == "gpt2ml_tfrecord":
        if not cfg.vocab:
            raise ConfigError("vocab=... is needed: the vocab.txt that the records were made with, clue or bert")
        out = place_for(cfg, "data", f"{name.removesuffix('.tfrecord')}-gpt2ml")
        from cngpt.interop.gpt2ml import shards

        shard_bytes = cfg.prepare.shard_mb << 20
        report = shards.convert(path, out, cfg.vocab, cfg.eos, cfg.valid_fraction, shard_bytes, cfg.overwrite)
        say(
            f"{report['records']:,} articles of {len(report['files'])} file(s), {report['tokens']:,} tokens; {report['full']:,} fill their row:"
            f" what was longer had been cut off"
        )
        say(f"shards   {out}   (python run.py data=shards {typed_as('data.root', out)})")
        return
    if cfg["from"] == "checkpoint":
        out = place_for(cfg, "models", name_for(Path(cfg.path)))
        notes = [write_model(Path(cfg.path), out, cfg.overwrite)]
    elif cfg["from"] == "huggingface":
        out = place_for(cfg, "models", name)
        from cngpt.interop.huggingface.convert import convert as read

        notes = read(path, out, vocab=cfg.vocab, eos=cfg.eos, overwrite=cfg.overwrite)
    else:
        out = place_for(cfg, "models", name)
        from cngpt.interop.gpt2ml.convert import convert as read

        options = {"vocab": cfg.vocab, "config": cfg.config, "eos": cfg.eos, "optimizer": cfg.optimizer}
        notes = read(path, out, **options, overwrite=cfg.overwrite)
    for note in notes:
        say(note)
    if cfg.optimizer:
        say(f"run      {out}   (python run.py experiment=gpt2ml_continue {typed_as('ckpt', out)} data.root=<folder>)")
    else:
        say(f"model    {out}   (python run.py task=generate {typed_as('ckpt', out)})")


def export(cfg: DictConfig, typed: set[str]) -> None:
    """A model to a folder that Hugging Face's transformers loads."""
    from cngpt import store

    path = Path(cfg.ckpt) if cfg.ckpt else store.newest(Path(cfg.paths.runs))
    if path is None:
        raise UserError(
            f"nothing to export: no run in {cfg.paths.runs}; train one (python run.py) or give ckpt=<model directory>"
        )
    whole = path.resolve()
    name = (whole.parent if whole.name == "model" else whole).name.removesuffix(".ckpt")
    out = place_for(cfg, "models", f"{name}-huggingface")
    from cngpt.interop.huggingface.export import export as write

    for note in write(path, out, overwrite=cfg.overwrite):
        say(note)
    say(f"folder   {out}   (AutoModelForCausalLM.from_pretrained({str(out)!r}))")


def bench(cfg: DictConfig, typed: set[str]) -> None:
    """How fast this machine does a part of the work, beside other people's tools."""
    if cfg.data.name == "shards":
        raise ConfigError("data=shards: these hold ids, and texts are measured: data=files data.root=<folder of texts>")
    out = file_for(cfg) or Path(cfg.paths.runs) / f"bench-{cfg.bench}-{datetime.datetime.now():%Y%m%d-%H%M%S}.json"
    tokenizer = tokenizer_of(cfg, typed, None, None)

    from cngpt import files
    from cngpt.bench import prepare as measured

    results = measured.measure(
        plain(cfg)["data"]["sources"], tokenizer, clean=plain(cfg)["clean"], dedup=dedup_of(cfg), memory=memory_of(cfg.prepare.memory),
        megabytes=cfg.megabytes, repeats=cfg.repeats, say=say,
    )  # fmt: skip
    measured.show(results)
    with files.writing(out):
        files.write_json(out, results)
    say(f"results  {out}")


def plan(cfg: DictConfig, typed: set[str]) -> None:
    """What a run needs and costs on hardware=..., and with launch=... the commands that start it there."""
    from cngpt import files
    from cngpt.plan import launch, report

    hardware, model = hardware_of(cfg), planned_model(cfg, typed)
    setup = setup_of(cfg, model, hardware)
    if cfg.launch:
        print(launch.commands(cfg.launch, setup, hardware, words_of(typed), cfg.name))
        return
    out = file_for(cfg) if cfg.out != "-" else None
    made = report.plan(setup, hardware, cfg.tokens_per_step, cfg.max_steps, data_tokens(cfg))
    if cfg.out == "-":
        print(json.dumps(made.as_dict(), ensure_ascii=False, indent=2))
        return
    report.show(made)
    if out:
        with files.writing(out):
            files.write_json(out, made.as_dict())
        say(f"plan     {cfg.out}")


def finished(folder: Path, start: Start, max_steps: int) -> None:
    """A run that has its steps already: says so, and writes its model/ if it was stopped before that."""
    from cngpt import store

    if not (folder / "model" / store.CONFIG).exists() or store.header(folder / "model")["step"] != start.head["step"]:
        write_model(start.path, folder / "model", overwrite=True)
    say(f"{folder} is at step {start.head['step']} of {max_steps} already: raise max_steps=..., or take another name=...")


def write_model(path: Path, out: Path, overwrite: bool) -> str:
    """A checkpoint of any strategy to a model directory; says what it was."""
    from cngpt import store

    head = store.header(path)
    gpt, tokenizer = store.load(path)
    store.save(out, gpt, tokenizer, head["generation"], overwrite, step=head["step"])
    return f"read     {head['path']}" + (f", step {head['step']}" if head["step"] else "")


def beginning(text: str, characters: int = 600) -> str:
    """As much of a document as a person looks at."""
    more = len(text) - characters
    return text if more <= 0 else f"{text[:characters]}\n… {more:,} more characters"


def reranker_of(cfg: DictConfig, prompts: list[str] | None, tokenizer):
    """The BERT that puts samples in order, or None; opened before the model, so that a wrong folder is said at once."""
    path = cfg.generation.get("rerank")
    if path is None:
        return None
    if not path:
        raise ConfigError("generation.rerank=: the folder of a BERT is needed, or null for none")
    if cfg.n < 2 or prompts is None:
        raise ConfigError(f"generation.rerank={path}: puts the samples of a given prompt in order; give a prompt and n=10 or so")

    from cngpt.interop.bert import Bert

    try:
        bert = Bert.open(path, device=generation_device())
    except UserError as error:
        raise ConfigError(f"generation.rerank={error}") from None
    if not bert.reads(tokenizer):
        say(f"note: {path} has another vocabulary than {tokenizer.name}, so texts are tokenized once more for it")
    return bert


def generation_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"


def converse(engine, sampling) -> None:
    """Prompts typed by a person, each continued as it is written; an empty line or ctrl-D ends it."""
    import dataclasses

    say("type the beginning of a text; an empty line ends")
    turn = 0
    while True:
        try:
            prompt = input("> ").strip()
        except EOFError:
            return
        if not prompt:
            return
        for piece in engine.stream(prompt, dataclasses.replace(sampling, seed=sampling.seed + turn)):
            print(piece, end="", flush=True)
        print("\n")
        turn += 1


TASKS = {f.__name__: f for f in (train, prepare, tokenizer, generate, convert, export, bench, plan)}
