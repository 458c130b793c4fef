"""What a user gets wrong ends in one line that names the key and the remedy, exit code 2, before torch is imported."""

import re
import subprocess
import sys

import pytest

from cngpt.errors import ConfigError
from cngpt.plan.spread import readers_here
from tests.commands import ROOT, command, environment, run, run_without_torch

TWO = ["trainer.accelerator=cpu", "trainer.devices=2"]
# the command as typed, what the line must hold
WRONG = [
    (["modle=tiny"], "modle: .*Did you mean model"),
    (["model=tinny"], "model=tinny: no such choice; one of .*tiny"),
    (["task=nothing"], "task=nothing: no such choice; one of .*generate.*prepare"),
    (["max_step=3"], "max_step: .*Did you mean max_steps"),
    (["optim.lt=3"], "optim.lt: .*Did you mean optim.lr"),
    (["clean.chinese.min=0.2"], "clean.chinese.min: clean.chinese has no keys of its own in this choice.*'clean.chinese={min: ...}'"),
    (["+foo=1"], "foo: no such group or key"),
    (["++optim.lr=0"], "optim.lr=0: must be above 0"),
    (["~logger"], "logger=... is needed"),
    (["~dedup"], "dedup=... is needed"),
    (["lr=3"], "lr: .*Did you mean optim.lr"),
    (["learning_rate=3"], "learning_rate: .*Did you mean optim.lr"),
    (["batch_size=3"], "batch_size: .*Did you mean tokens_per_step"),
    (["epochs=3"], "epochs: .*Did you mean max_steps"),
    (["steps=3"], "steps: .*Did you mean max_steps"),
    (["task=generate", "top_p=0.5"], "top_p: .*Did you mean generation.top_p"),
    (["task=generate", "length=3"], "length: .*Did you mean generation.max_new_tokens"),
    (["resume=runs/a"], "resume: .*Did you mean ckpt"),
    (["fp16=true"], "fp16: .*Did you mean trainer.precision"),
    (["gpus=2"], "gpus: .*Did you mean trainer.devices"),
    (["foo"], "foo: an option is written key=value"),
    (["train"], "train: write task=train"),
    (["--max_steps", "20"], "--max_steps: an option is written key=value, here max_steps=..."),
    (["trainer=tpu_pod", "callbacks.checkpoint.folder=gs://b/c"], "needs torch_xla"),
    (["prompt=你好", "task=generate"], "prompt=你好: .*'prompt=\"你好\"'.*prompts_file"),
    (["data=files", "data.root=我的文本"], "'data.root=\"我的文本\"'"),
    (["optim.lr=fast"], "optim.lr=fast: a number above 0 is needed"),
    (["seed=1.5"], "seed=1.5: a whole number 0 or more is needed"),
    (["overwrite=3"], "overwrite=3: true or false is needed"),
    (["max_steps=null"], "max_steps=null: a whole number"),
    (["max_steps=0"], "max_steps=0: must be above 0"),
    (["seed=-1"], "seed=-1: must be 0 or more"),
    (["generation.top_p=2"], "generation.top_p=2: must be from 0 to 1"),
    (["generation.nucleus=gpt2ml"], "generation.nucleus: .*generation.compat=gpt2ml"),
    (["generation.compat=foo"], "generation.compat=foo: one of none, gpt2ml"),
    (["logger.mode=on"], "logger.mode=on: one of"),
    (["name=a/b"], "name=a/b"),
    (["model.n_head=3"], "model.width=128 does not divide into model.n_head=3 heads; nearest n_head: 2, 4"),
    (["tokens_per_step=10000"], "tokens_per_step=10000 does not divide by 1 devices x 256 tokens; nearest: 9984, 10240"),
    (["tokens_per_step=100"], "tokens_per_step=100 does not divide .* nearest: 256$"),
    (["trainer.micro_batch=5"], "tokens_per_step=2048 does not divide by 1 devices x 5 windows x 256 tokens; nearest: 1280, 2560"),
    (["schedule.warmup_steps=600"], "schedule.warmup_steps=600: must be below schedule.total_steps=600"),
    (["prepare.processes=2.5"], "prepare.processes=2.5: a whole number above 0, or auto"),
    (["prepare.processes=true"], "prepare.processes=true: a whole number above 0, or auto"),
    (["data.sources=[]"], r"data.sources=\[\]: a list of mappings"),
    (["data.sources=[{reader: files}]"], "data.sources: .* is no mapping with the texts reader and root"),
    (["data.sources=[a]"], "data.sources: a is no mapping"),
    (["task=prepare", "prepare.out=/"], "prepare.out=/: a folder below this one is needed"),
    (["data=files"], "data.root=... is needed"),
    (["data=files", "data.root=nowhere"], "data.root=nowhere is not there"),
    (["data=thucnews", "data.root=nowhere"], "data.root=nowhere is not there.*THUCNews"),
    (["experiment=finetune", "data.root=x"], "init=... is needed"),
    (["ckpt=nowhere"], "ckpt=nowhere: there is nothing"),
    (["init=nowhere"], "init=nowhere: there is nothing"),
    (["trainer.devices=2", "trainer=cpu"], "trainer.strategy=single with 2 devices.*trainer=ddp"),
    (["trainer=fsdp", "trainer.accelerator=cpu"], "fsdp on one device"),
    (["trainer=deepspeed_zero2", "trainer.accelerator=cpu"], "needs deepspeed.*pip install"),
    (["trainer=cpu", "trainer.offload=true"], "trainer.offload=true goes with trainer=deepspeed_zero2"),
    ([*TWO, "trainer=ddp", "trainer.tensor_parallel=2"], "trainer.tensor_parallel=2 goes with trainer=fsdp, not with ddp"),
    ([*TWO, "trainer=fsdp", "trainer.tensor_parallel=3"], r"trainer.tensor_parallel=3 must divide the number of devices \(2\)"),
    ([*TWO, "trainer=fsdp", "optim=gpt2ml_adafactor"], "optim=gpt2ml_adafactor needs whole matrices.*trainer=ddp"),
    ([*TWO, "trainer=fsdp", "optim=adafactor"], "optim=adafactor needs whole matrices.*trainer=ddp"),
    (["task=convert", "from=checkpoint", "path=nowhere"], "path=nowhere: there is nothing"),
    (["task=convert", "from=checkpoint", "path=.", "vocab=x"], "vocab=x: goes with from=gpt2ml"),
    (["trainer=cpu", "callbacks.checkpoint.folder=gs://b/c"], "callbacks.checkpoint.folder=gs://b/c: is for a bucket"),
    (["trainer=ddp", "trainer.accelerator=mps", "trainer.devices=2"], "trainer.accelerator=mps: "),
    (["trainer=tpu_pod"], "needs torch_xla.*constraints-tpu"),
    (["-m", "trainer=ddp", "trainer.accelerator=cpu", "seed=1,2"], "trainer.strategy=ddp with -m"),
    (["seed=1,2"], "seed.*-m"),
    (["task=generate", "prompt=a"], "nothing to generate from.*python run.py"),
    (["logger=null"], "logger=null: a group takes the name of a choice"),
    (["task=tokenizer"], "out=... is needed"),
    (["prompt=abc"], "prompt: belongs to task=generate"),
    (["data.root=texts"], "data=sample has texts of its own; yours need data=files"),
    (["tokenizer=bert", "tokenizer.vocab=nowhere.txt"], "tokenizer bert: there is no nowhere.txt"),
    (["tokenizer=bpe"], "tokenizer.path=... is needed"),
]  # fmt: skip


@pytest.mark.parametrize("arguments, line", WRONG, ids=lambda a: " ".join(a) if isinstance(a, list) else "")
def test_a_mistake_is_one_line(arguments, line, tmp_path):
    done = run_without_torch(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    errors = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert errors and re.search(line, errors[0]), done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 2, done.stderr
    assert not list(tmp_path.glob("runs/[!.]*"))


@pytest.mark.parametrize("options, line", [
    (["trainer=deepspeed_zero3", "trainer.devices=1"], "deepspeed_zero3 on one device.*trainer.offload=true"),
    (["trainer=deepspeed_zero2", "trainer.devices=2", "optim=adafactor"], "optim=adafactor needs whole matrices.*optim=adamw"),
    (["trainer=deepspeed_zero2", "trainer.devices=2", "trainer.compile=true"], "trainer.compile=true does not go with"),
])  # fmt: skip
def test_what_deepspeed_cannot_is_one_line(options, line, tmp_path):
    pytest.importorskip("deepspeed")
    done = run(*options, "trainer.accelerator=cpu", cwd=tmp_path, check=False)
    assert done.returncode == 2 and re.search(f"^error: .*{line}", done.stderr, re.MULTILINE), done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 2


@pytest.mark.parametrize("options, there, line", [
    (["trainer=ddp", "trainer.devices=2"], 1, "trainer.devices=2: this machine has 1 GPU; take as many"),
    (["trainer=gpu"], 0, "trainer.accelerator=gpu: torch sees no GPU here"),
    (["trainer=fsdp"], 1, "trainer.strategy=fsdp on one device has nothing to share out"),
    (["trainer=gpu", "trainer.devices=auto"], 4, "trainer.strategy=single with 4 devices: use trainer=ddp"),
])  # fmt: skip
def test_gpus_that_are_not_there_are_said_in_one_line(options, there, line, monkeypatch):
    monkeypatch.setattr("cngpt.plan.machine.gpus", lambda: there)
    s = command(*options).settings
    with pytest.raises(ConfigError, match=line):
        readers_here(s.trainer, s.optim.name, s.model)


SLOW_TASK = """
import sys, time
sys.path.insert(0, {root!r})
from types import SimpleNamespace
from cngpt import files, tasks
from cngpt.cli.main import main

def slow(command):
    with files.atomic_folder("half"):
        print("begun", flush=True)
        time.sleep(60)

tasks.REGISTERED["plan"] = SimpleNamespace(Keys=tasks.find("plan").Keys, READS=(), HANDLES_SIGNALS=False, run=slow)
sys.argv = ["run.py", "task=plan"]
sys.exit(main())
"""


def test_a_task_that_is_stopped_leaves_nothing_half_written(tmp_path):
    command = [sys.executable, "-c", SLOW_TASK.format(root=str(ROOT))]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "begun\n" and list(tmp_path.iterdir())
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in errors, errors
    assert list(tmp_path.iterdir()) == []


def test_help_lists_tasks_groups_and_five_examples(tmp_path):
    done = run_without_torch("--help", cwd=tmp_path)
    assert done.returncode == 0
    for word in ("task=train", "task=generate", "1.5b", "tpu_pod", "thucnews", "max_steps=", "Five examples"):
        assert word in done.stdout
    assert done.stdout.count("python run.py") >= 5


def test_the_whole_configuration_is_shown_without_running_it(tmp_path):
    done = run_without_torch("--cfg", "job", "model=1.5b", "trainer=tpu_pod", "data=gpt2ml", cwd=tmp_path)
    assert done.returncode == 0
    assert "n_layer: 48" in done.stdout and "strategy: xla" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_pod_run_says_first_what_it_trains_on_and_for_how_long(tmp_path):
    done = run_without_torch("model=1.5b", "trainer=tpu_pod", cwd=tmp_path)
    first = done.stderr.splitlines()[0]
    assert "model=1.5b" in first and "data=sample" in first and "100,000 steps of 524,288 tokens" in first
