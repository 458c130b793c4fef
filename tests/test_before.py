"""What an earlier version wrote is read: a run of every strategy, its model directory, clean texts and shards.

tests/golden/before.tar.gz holds a folder as version 0.1.0 of November 2026 left it, in which these were run (12 texts of the sample,
one layer of width 8), each with `max_steps=4`; of the checkpoints step 2 was kept.

    python run.py <WORDS> name=single trainer=cpu
    python run.py <WORDS> name=<strategy> trainer=<strategy> trainer.accelerator=cpu trainer.devices=2      fsdp, deepspeed_zero2 and _zero3
    PJRT_DEVICE=CPU CPU_NUM_DEVICES=4 python run.py <WORDS> name=xla trainer=tpu
"""

import tarfile
from pathlib import Path

import pytest
import torch

from cngpt import checkpoints
from cngpt.checkpoints import training_checkpoint
from cngpt.runs import Run
from cngpt.tasks import train
from cngpt.tokens.shards import Shards
from cngpt.training.tracking import read_metrics
from tests.commands import ROOT, command, run

WORDS = [
    "data=files", "data.root=texts", "data.valid_fraction=0.2", "tokenizer=wordpiece", "tokenizer.path=vocab.txt", "model.n_layer=1",
    "model.n_head=2", "model.width=8", "model.n_ctx=32", "tokens_per_step=256", "seed=3", "optim.lr=3e-3", "schedule.warmup_steps=2",
    "schedule.total_steps=8", "logger=csv", "callbacks.log_every=1", "callbacks.validation.every=100", "callbacks.validation.windows=4",
    "callbacks.samples.every=2", "callbacks.samples.new_tokens=4", "callbacks.checkpoint.every=2", "callbacks.checkpoint.keep=-1",
    "trainer.precision=32-true", "trainer.compile=false", "max_steps=4",
]  # fmt: skip
STRATEGIES = ["single", "fsdp", "deepspeed_zero2", "deepspeed_zero3", "xla"]


@pytest.fixture
def before(tmp_path, monkeypatch) -> Path:
    with tarfile.open(ROOT / "tests/golden/before.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    return tmp_path


def losses(run: Run) -> list[float]:
    return [row["loss"] for row in read_metrics(run.metrics) if "loss" in row]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_of_any_strategy_goes_on_along_its_old_curve(before, strategy, capfd):
    folder = Run(before / "runs" / strategy)
    recorded = losses(folder)
    texts = (before / "texts").stat().st_mtime
    train.run(command(*WORDS, "trainer=cpu", f"name={strategy}"))
    assert losses(folder) == pytest.approx(recorded, abs=1e-5) and len(recorded) == 4
    assert "goes on from step 2" in capfd.readouterr().err
    assert checkpoints.header(folder.checkpoint(4)).step == 4 and texts == (before / "texts").stat().st_mtime


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_checkpoint_of_any_strategy_is_read(before, strategy):
    path = before / "runs" / strategy / "checkpoints/step_00000002.ckpt"
    training_checkpoint.verify(path)
    header = checkpoints.header(path)
    assert header.step == 2 and header.training == {"seed": 3, "tokens_per_step": 256, "optim.name": "adamw"}
    gpt, tokenizer = checkpoints.load(path)
    alone, _ = checkpoints.load(before / "runs/single/checkpoints/step_00000002.ckpt")
    ids = torch.from_numpy(tokenizer.encode("今天是一个好日子")).long()[None]
    torch.testing.assert_close(gpt(ids), alone(ids), atol=1e-5, rtol=0)


def test_a_model_directory_writes_and_its_sampling_keys_of_before_are_understood(before):
    saved = checkpoints.header(before / "runs/single/model").generation
    assert {"nucleus", "stop", "join"} <= saved.keys()  # gone since
    text = run("task=generate", "ckpt=runs/single/model", 'prompt="今天"', "generation.max_new_tokens=4", cwd=before).stdout
    assert len(text.strip()) > 2


def test_shards_are_taken_again_and_not_made_anew(before, capfd):
    (shards,) = (before / "data").glob("files-vocab-*")
    manifest, folders = (shards / "train/manifest.json").read_bytes(), sorted((before / "data").iterdir())
    train.run(command(*WORDS, "trainer=cpu", "name=fresh", "max_steps=1", f"prepare.out=data/{shards.name}"))
    assert f"reading data/{shards.name}" in capfd.readouterr().err
    assert (shards / "train/manifest.json").read_bytes() == manifest and sorted((before / "data").iterdir()) == folders
    for part in ("train", "valid"):
        Shards(shards / part).verify()
