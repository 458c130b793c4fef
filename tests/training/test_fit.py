"""Whole small runs: resumed equals undisturbed, guests leave no trace, faults are found."""

import copy
import json
import os
import signal

import pytest
import torch

from cngpt import checkpoints
from cngpt.errors import UserError
from cngpt.runs import Run, checkpoints_in, step_of
from cngpt.training.callbacks import Checkpoints
from cngpt.training.fit import fit
from cngpt.training.settings import Training
from cngpt.training.tracking import read_metrics


@pytest.fixture
def train(tokenizer, shards, tmp_path):
    """train(settings, name, resume=...) -> (run folder, outcome)."""

    def go(settings, name, resume=None, **changes):
        settings = copy.deepcopy(settings)
        for key, value in changes.items():
            *path, last = key.split("__")
            group = settings
            for part in path:
                group = group[part]
            group[last] = value
        run = Run(tmp_path / name)
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        return run.folder, fit(Training(**settings), tokenizer, shards, run, resume)

    return go


def weights(folder, step: int) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"checkpoints/step_{step:08d}.ckpt", weights_only=True)["state_dict"]


def losses(folder) -> list[float]:
    return [row["loss"] for row in read_metrics(folder / "metrics.csv") if "loss" in row]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("optim", [
    {"name": "adamw", "lr": 1e-2, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1},
    {"name": "adafactor", "lr": 1e-2, "beta2_decay": -0.8, "clip_update": 1.0, "weight_decay": 0.1},
    {"name": "gpt2ml_adafactor", "lr": 1e-3, "beta2": 0.999, "clip_update": 1.0, "weight_decay": 0.01},
], ids=lambda o: o["name"])  # fmt: skip
def test_a_resumed_run_is_the_undisturbed_run_bit_for_bit(train, settings, optim):
    settings["optim"] = optim
    whole, _ = train(settings, "whole")
    part, _ = train(settings, "part", max_steps=5)
    train(settings, "part", resume=part / "checkpoints/step_00000005.ckpt")
    assert same(weights(whole, 12), weights(part, 12))
    assert losses(whole) == losses(part) and len(losses(whole)) == 12


def test_accumulation_may_change_at_a_resume(train, settings):
    settings["shape"]["dropout"] = 0.0
    whole, _ = train(settings, "whole", trainer__micro_batch=8)
    part, _ = train(settings, "part", trainer__micro_batch=2, max_steps=5)
    train(settings, "part", resume=part / "checkpoints/step_00000005.ckpt", trainer__micro_batch=4)
    assert losses(whole) == pytest.approx(losses(part), abs=1e-5)


def test_the_generation_callback_leaves_training_untouched_bit_for_bit(train, settings):
    spoken, _ = train(settings, "spoken", callbacks__samples__every=1)
    silent, _ = train(settings, "silent", callbacks__samples__every=0)
    assert same(weights(spoken, 12), weights(silent, 12))
    rows = [json.loads(line) for line in (spoken / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [r["step"] for r in rows] == [s for s in range(1, 13) for _ in range(2)]
    assert all(r["text"].startswith("双十一") for r in rows) and {r["manner"] for r in rows} == {"greedy", "sampled"}
    assert not (silent / "samples.jsonl").exists()


def test_the_loss_falls_and_a_run_directory_is_complete(train, settings):
    folder, outcome = train(settings, "run", max_steps=40, schedule__total_steps=40)
    assert losses(folder)[-1] < losses(folder)[0] - 1
    assert outcome.step == 40 and outcome.stopped_by is None
    assert {"val_loss", "val_perplexity", "val_bits_per_character", "tokens_per_second"} <= outcome.metrics.keys()
    assert "mfu" not in outcome.metrics  # nothing made up for a CPU
    assert {p.name for p in folder.iterdir()} == {"checkpoints", "metrics.csv", "samples.jsonl", "model", "loss.svg"}


def test_bits_per_character_follow_from_nats_and_the_texts(train, settings, shards):
    import math

    from cngpt.tokens.shards import Shards

    _, outcome = train(settings, "run")
    valid, m = Shards(shards / "valid"), outcome.metrics
    assert m["val_bits_per_character"] == pytest.approx(m["val_loss"] * valid.tokens / valid.characters / math.log(2))
    assert m["val_perplexity"] == pytest.approx(math.exp(m["val_loss"]))


def test_the_model_directory_and_the_checkpoint_are_the_same_model(train, settings, tokenizer):
    folder, _ = train(settings, "run")
    ids = torch.randint(tokenizer.vocab_size, (2, 16))
    (a, first), (b, second) = checkpoints.load(folder / "model"), checkpoints.load(folder / "checkpoints/step_00000012.ckpt")
    assert torch.equal(a(ids), b(ids))
    assert first.fingerprint == second.fingerprint == tokenizer.fingerprint


def test_validation_is_the_mean_over_the_targets(train, settings, shards):
    from cngpt.tokens.shards import Shards
    from cngpt.training.module import next_token_loss

    folder, outcome = train(settings, "run", callbacks__validation__windows=0)
    gpt, _ = checkpoints.load(folder / "model")
    valid = Shards(shards / "valid")
    ids = torch.from_numpy(valid.read(0, valid.tokens))
    nats = 0.0
    for start in range(0, len(ids) - 1, 16):
        window = ids[start : start + 17]
        nats += next_token_loss(gpt(window[None, :-1]), window[None, 1:], reduction="sum").item()
    assert outcome.metrics["val_loss"] == pytest.approx(nats / (len(ids) - 1), abs=1e-4)


def test_a_signal_saves_the_last_whole_step_and_the_run_goes_on_from_it(train, settings, monkeypatch):
    whole, _ = train(settings, "whole")
    heard, before = Checkpoints.on_train_batch_end, signal.getsignal(signal.SIGINT)

    def interrupted(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx == 14:  # in the middle of the eighth step, of two micro-batches each
            os.kill(os.getpid(), signal.SIGINT)
        heard(self, trainer, module, outputs, batch, batch_idx)

    monkeypatch.setattr(Checkpoints, "on_train_batch_end", interrupted)
    part, outcome = train(settings, "part")
    assert outcome.stopped_by == signal.SIGINT and outcome.step == 7 and not (part / "model").exists()
    monkeypatch.setattr(Checkpoints, "on_train_batch_end", heard)
    train(settings, "part", resume=checkpoints_in(part / "checkpoints")[-1])
    assert same(weights(whole, 12), weights(part, 12))
    assert losses(whole) == losses(part)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_checkpoint_names_the_one_before_it(train, settings, damage):
    folder, _ = train(settings, "run")
    last = folder / "checkpoints/step_00000012.ckpt"
    data = bytearray(last.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 0xFF
    last.write_bytes(data if damage == "flip" else data[: len(data) // 3] if damage == "cut" else b"")
    with pytest.raises(UserError, match=r"step_00000012\.ckpt.*step_00000010\.ckpt"):
        train(settings, "run", resume=last, max_steps=14)


def test_only_the_newest_checkpoints_are_kept_and_no_half_one_is_listed(train, settings):
    folder, _ = train(settings, "run", callbacks__checkpoint__every=2, callbacks__checkpoint__keep=2)
    assert [p.name for p in checkpoints_in(folder / "checkpoints")] == ["step_00000010.ckpt", "step_00000012.ckpt"]
    (folder / "checkpoints/step_00000014.tmp").write_bytes(b"half")
    assert step_of(checkpoints_in(folder / "checkpoints")[-1]) == 12


def test_a_checkpoint_holds_tensors_and_plain_values_only(train, settings):
    folder, _ = train(settings, "run")
    loaded = torch.load(folder / "checkpoints/step_00000012.ckpt", weights_only=True)
    assert loaded["cngpt"]["step"] == 12 and loaded["cngpt"]["shape"]["vocab_size"] > 8000


def test_too_little_text_for_one_window_says_so(train, settings):
    with pytest.raises(UserError, match="one window needs 100001"):
        train(settings, "run", shape__n_ctx=100_000)


def test_bf16_compile_and_activation_checkpointing_train(train, settings):
    options = {"trainer__precision": "bf16-mixed", "trainer__activation_checkpointing": True}
    folder, _outcome = train(settings, "run", max_steps=30, schedule__total_steps=30, **options)
    assert losses(folder)[-1] < losses(folder)[0] - 0.5


def test_a_resumed_run_takes_the_rate_and_decay_that_are_set_now(train, settings):
    part, _ = train(settings, "part", max_steps=5)
    train(settings, "part", resume=part / "checkpoints/step_00000005.ckpt", optim__lr=1e-4, optim__weight_decay=0.0)
    loaded = torch.load(part / "checkpoints/step_00000010.ckpt", weights_only=True)
    assert [g["weight_decay"] for g in loaded["optimizer_states"][0]["param_groups"]] == [0.0, 0.0]
    assert max(g["lr"] for g in loaded["optimizer_states"][0]["param_groups"]) <= 1e-4


def test_a_signal_after_the_last_step_does_not_keep_the_run_from_its_model(train, settings, monkeypatch):
    heard = Checkpoints.on_train_batch_end

    def interrupted(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == trainer.max_steps:
            os.kill(os.getpid(), signal.SIGTERM)
        heard(self, trainer, module, outputs, batch, batch_idx)

    monkeypatch.setattr(Checkpoints, "on_train_batch_end", interrupted)
    folder, outcome = train(settings, "run")
    assert outcome.stopped_by is None and (folder / "model").is_dir()


def test_dropout_of_no_two_places_is_the_same(train, settings, monkeypatch):
    seeds = []
    monkeypatch.setattr("cngpt.training.strategies.base.torch.manual_seed", lambda n: seeds.append(n))
    train(settings, "run", max_steps=10, trainer__micro_batch=1)
    drawn = [n for n in seeds if n != settings["seed"]]
    assert len(drawn) == 80 == len(set(drawn))


@pytest.mark.slow
def test_a_compiled_run_trains_samples_and_keeps_plain_names(train, settings):
    plain, _ = train(settings, "plain", shape__dropout=0.0)
    compiled, _ = train(settings, "compiled", shape__dropout=0.0, trainer__compile=True)
    assert losses(plain) == pytest.approx(losses(compiled), abs=1e-3)
    assert weights(plain, 12).keys() == weights(compiled, 12).keys()


def test_samples_of_steps_that_come_again_are_written_once(train, settings):
    part, _ = train(settings, "part", max_steps=10)
    train(settings, "part", resume=part / "checkpoints/step_00000005.ckpt")
    steps = [json.loads(line)["step"] for line in (part / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert steps == [5, 5, 10, 10, 12, 12]
