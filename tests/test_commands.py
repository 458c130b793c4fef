"""Whole commands on the bundled sample, as a user types them: the first run, going on, killed, swept."""

import json
import re
import signal
from pathlib import Path

import pytest
import torch

from cngpt.training.tracking import read_metrics
from tests.commands import run, start, wait_for_step

FAST = [
    "model.n_layer=1",
    "model.width=32",
    "model.n_head=2",
    "model.n_ctx=64",
    "tokens_per_step=512",
    "logger=csv",
    "trainer=cpu",
]
FAST += ["schedule.warmup_steps=2", "schedule.total_steps=40", "callbacks.log_every=1", "callbacks.validation.windows=4"]
FAST += ["callbacks.samples.every=0", "callbacks.checkpoint.every=4", "callbacks.checkpoint.keep=-1"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder in which one small run was made."""
    folder = tmp_path_factory.mktemp("home")
    done = run(*FAST, "name=first", "max_steps=12", cwd=folder)
    for line in ("run      runs/first", "model    runs/first/model", "metrics  runs/first/metrics.csv"):
        assert line in done.stderr
    return folder


def final(folder: Path, name: str, step: int) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"runs/{name}/checkpoints/step_{step:08d}.ckpt", weights_only=True)["state_dict"]


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_run_prepares_trains_and_leaves_everything_in_its_folder(home):
    found = {p.name for p in (home / "runs/first").iterdir()}
    assert found == {"config.yaml", "checkpoints", "metrics.csv", "model", "loss.svg"}
    assert {p.name for p in home.iterdir()} == {"runs", "data"}


def test_the_same_name_is_finished_or_goes_on(home):
    assert "already" in run(*FAST, "name=first", "max_steps=12", cwd=home).stderr
    again = run(*FAST, "name=first", "max_steps=14", cwd=home)
    assert "goes on from step 12" in again.stderr
    assert [r["step"] for r in read_metrics(home / "runs/first/metrics.csv") if "loss" in r] == list(range(1, 15))


def test_another_model_under_the_same_name_is_refused_and_nothing_is_lost(home):
    before = sorted(p.name for p in (home / "runs/first").rglob("*"))
    done = run("model=mini", "name=first", cwd=home, check=False)
    assert done.returncode == 2 and "leave model= out" in done.stderr
    assert sorted(p.name for p in (home / "runs/first").rglob("*")) == before


def test_generate_takes_a_prompt_a_file_or_standard_input(home):
    few = ["task=generate", "ckpt=runs/first", "generation.max_new_tokens=5"]
    assert run(*few, 'prompt="双十一"', cwd=home).stdout.startswith("双十一")
    (home / "prompts.txt").write_text("今天\n\n中国\n", encoding="utf-8")
    from_file = run(*few, "prompts_file=prompts.txt", "n=2", "out=stories.jsonl", "overwrite=true", cwd=home)
    rows = [json.loads(line) for line in (home / "stories.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [r["prompt"] for r in rows] == ["今天", "今天", "中国", "中国"] and all(r["text"] in from_file.stdout for r in rows)
    assert run(*few, cwd=home, input="双十一\n").stdout == run(*few, 'prompt="双十一"', cwd=home).stdout
    refused = run(*few, "prompts_file=prompts.txt", "out=stories.jsonl", cwd=home, check=False)
    assert refused.returncode == 2 and "exists already" in refused.stderr


def test_generate_finds_the_newest_run_by_itself(home):
    assert "runs/first" in run("task=generate", 'prompt="春天"', "generation.max_new_tokens=3", cwd=home).stderr


def test_a_fresh_start_from_given_weights(home):
    done = run(
        *[o for o in FAST if not o.startswith("model.")],
        "init=runs/first",
        "name=tuned",
        "optim.lr=1e-3",
        "max_steps=4",
        cwd=home,
    )
    rows = read_metrics(home / "runs/tuned/metrics.csv")
    first = read_metrics(home / "runs/first/metrics.csv")
    assert rows[0]["loss"] < first[0]["loss"] - 0.5 and "step 4: validation loss" in done.stderr


def test_a_finished_run_without_its_model_gets_it(home):
    run(*FAST, "name=cut_off", "max_steps=3", cwd=home)
    (home / "runs/cut_off/model").rename(home / "runs/cut_off/elsewhere")
    assert "already" in run(*FAST, "name=cut_off", "max_steps=3", cwd=home).stderr
    for file in ("model.safetensors", "tokenizer.json", "generation.json", "config.json"):
        assert (home / "runs/cut_off/model" / file).read_bytes() == (home / "runs/cut_off/elsewhere" / file).read_bytes()


def test_ckpt_takes_a_run_and_goes_back_without_losing_what_came_later(home):
    run(*FAST, "name=branch", "ckpt=runs/first", "max_steps=16", cwd=home)
    assert "goes on from step" in run(*FAST, "name=branch", "ckpt=runs/first", "max_steps=18", cwd=home).stderr
    run(*FAST, "name=branch", "ckpt=runs/branch/checkpoints/step_00000016.ckpt", "max_steps=17", cwd=home)
    names = sorted(p.name for p in (home / "runs/branch/checkpoints").iterdir())
    assert names == ["step_00000016.ckpt", "step_00000017.ckpt", "step_00000018.ckpt.set_aside"]


@pytest.mark.parametrize("options, line", [
    (["ckpt=runs/first", "seed=9"], "seed=9: .* was trained with seed=1"),
    (["ckpt=runs/first", "optim=adafactor"], "optim.name=adafactor"),
    (["ckpt=runs/first", "tokens_per_step=1024"], "tokens_per_step=1024"),
    (["name=first", "ckpt=runs/first", "overwrite=true"], "overwrite=true would remove it"),
    (["ckpt=runs/first/model"], "init=runs/first/model"),
    (["init=runs/first"], "optim.lr=..., or experiment=finetune"),
])  # fmt: skip
def test_contradictions_with_a_checkpoint_are_one_line_and_lose_nothing(home, options, line):
    before = sorted(p.name for p in (home / "runs").rglob("*"))
    done = run(*[o for o in FAST if not o.startswith("model.")], "max_steps=40", *options, cwd=home, check=False)
    assert done.returncode == 2 and re.search(line, done.stderr) and "Traceback" not in done.stderr
    assert sorted(p.name for p in (home / "runs").rglob("*")) == before


def test_a_models_own_way_of_sampling_is_the_default(home):
    generation = home / "runs/first/model/generation.json"
    kept = generation.read_text()
    options = ["task=generate", "ckpt=runs/first/model", 'prompt="双十一"', "generation.max_new_tokens=5"]
    try:
        generation.write_text(json.dumps({**json.loads(kept), "temperature": 0.0}))
        own = run(*options, cwd=home).stdout
        assert own == run(*options[:-1], "generation=greedy", "generation.max_new_tokens=5", cwd=home).stdout
        assert own != run(*options, "generation.temperature=3", cwd=home).stdout
    finally:
        generation.write_text(kept)


def test_prepare_shows_documents_before_and_after(home):
    shown = run("task=prepare", "inspect=2", cwd=home).stdout
    assert shown.count("──── becomes") == 2


def test_prepare_refuses_to_replace_and_replaces_when_asked(home):
    args = ["task=prepare", "prepare.out=mine"]
    assert run(*args, cwd=home).stdout.strip() == "mine"
    stamp = (home / "mine/train/manifest.json").stat().st_mtime_ns
    assert run(*args, cwd=home).stdout.strip() == "mine"
    assert (home / "mine/train/manifest.json").stat().st_mtime_ns == stamp
    run(*args, "overwrite=true", cwd=home)
    assert (home / "mine/train/manifest.json").stat().st_mtime_ns > stamp


def test_texts_that_changed_and_a_run_on_other_texts_are_noticed(home):
    texts = home / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text(
        "\n".join(f"第{i}天，下着雨，我们在家里读书写字，等天晴。" for i in range(300)), encoding="utf-8"
    )
    mine = [*FAST, "data=files", "data.root=texts", "data.split=line", "max_steps=2", "schedule.warmup_steps=1"]
    run(*mine, "name=mine", cwd=home)
    other = run(*FAST, "name=mine", "max_steps=4", cwd=home, check=False)
    assert other.returncode == 2 and "was trained on texts" in other.stderr
    (texts / "b.txt").write_text("又来了一篇新的文章，讲的是春天和花园，还有小河。", encoding="utf-8")
    changed = run(*mine, "name=again", cwd=home, check=False)
    assert changed.returncode == 2 and "have changed since" in changed.stderr and not (home / "runs/again").exists()
    run("task=prepare", "data=files", "data.root=texts", "data.split=line", "overwrite=true", cwd=home)
    run(*mine, "name=again", cwd=home)


def test_a_recipes_warmup_gives_way_to_few_steps(home):
    few = [o for o in FAST if "warmup" not in o and "total_steps" not in o]
    assert (
        "note: schedule.warmup_steps=0, for 50 do not fit into 3 steps" in run(*few, "name=few", "max_steps=3", cwd=home).stderr
    )


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_a_tokenizer_of_ones_own_is_trained_and_trained_with(home, kind):
    run("task=tokenizer", f"kind={kind}", "vocab_size=3000", f"out=tok_{kind}", cwd=home)
    use = ["tokenizer=bpe", f"tokenizer.path=tok_{kind}", f"name=with_{kind}", "max_steps=3"]
    run(*FAST, *use, cwd=home)
    text = run("task=generate", f"ckpt=runs/with_{kind}", 'prompt="双十一"', "generation.max_new_tokens=3", cwd=home).stdout
    assert text.startswith("双十一")
    wrong = run(*FAST, "tokenizer=hanzi", f"ckpt=runs/with_{kind}/checkpoints/step_00000003.ckpt", cwd=home, check=False)
    assert wrong.returncode == 2 and "another vocabulary" in wrong.stderr


def test_a_sweep_runs_each_job_under_its_own_name(home):
    tracked = [o for o in FAST if o != "logger=csv"]
    run("-m", *tracked, "max_steps=2", "seed=1,2", "name=swept", "schedule.warmup_steps=1", cwd=home)
    ids = [(home / f"runs/swept-{i}/wandb_run_id").read_text().strip() for i in (0, 1)]
    assert all(list((home / f"runs/swept-{i}/wandb").glob(f"offline-run-*/*{ids[i]}.wandb")) for i in (0, 1)) and ids[0] != ids[1]
    assert not (home / "multirun.yaml").exists()
    assert (home / "runs/swept-0/model").is_dir() and (home / "runs/swept-1/model").is_dir()
    assert not same(final(home, "swept-0", 2), final(home, "swept-1", 2))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_run_that_was_killed_or_stopped_goes_on_to_the_same_weights(home, number):
    whole = [*FAST, "max_steps=30"]
    if not (home / "runs/whole/model").exists():
        run(*whole, "name=whole", cwd=home)
    name = f"stopped_{number.name}"
    process = start(*whole, f"name={name}", cwd=home)
    wait_for_step(home / f"runs/{name}/metrics.csv", 6)
    process.send_signal(number)
    errors = process.communicate()[1]
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number and "Traceback" not in errors
        assert f"name={name} with the same options goes on" in errors
    run(*whole, f"name={name}", cwd=home)
    assert same(final(home, "whole", 30), final(home, name, 30))
    losses = [[r["loss"] for r in read_metrics(home / f"runs/{n}/metrics.csv") if "loss" in r] for n in ("whole", name)]
    assert losses[0] == losses[1]


def test_wandb_runs_offline_without_a_key_and_keeps_its_id(home):
    online = [o for o in FAST if o != "logger=csv"] + [
        "name=tracked",
        "callbacks.samples.every=2",
        "callbacks.samples.new_tokens=2",
    ]
    done = run(*online, "max_steps=2", cwd=home)
    assert "wandb is offline" in done.stderr and "wandb sync" in done.stderr
    first = (home / "runs/tracked/wandb_run_id").read_text()
    run(*online, "max_steps=4", cwd=home)
    assert (home / "runs/tracked/wandb_run_id").read_text() == first
    logs = list((home / "runs/tracked/wandb").glob("offline-run-*/*.wandb"))
    assert len(logs) == 2 and all(first.strip() in p.name for p in logs)
