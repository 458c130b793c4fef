"""task=plan for every preset on every machine, the seed's own run, advice that holds, and train asking first."""

import json
import re
import shlex
import subprocess
from dataclasses import replace

import pytest

from cngpt.cli.help import choices
from cngpt.errors import ConfigError
from cngpt.model.shape import flops_per_token
from cngpt.plan import launch, report, spread
from cngpt.plan.advice import FITS, TOO_LARGE, advise, verdict
from cngpt.plan.hardware import Table, peak_flops, slice_devices
from cngpt.plan.memory import memory
from cngpt.plan.speed import speed
from cngpt.tasks import plan as task
from cngpt.tasks.command import Command
from cngpt.tokens import load_tokenizer
from cngpt.tokens.load import known_vocab_size
from tests.commands import ROOT, run_without_torch
from tests.commands import command as composed

CONF = ROOT / "conf"
SEED = ["experiment=gpt2ml", "trainer=tpu_pod", "hardware=v3-256"]


def plan_of(command: Command) -> report.Plan:
    return report.plan(*task.planned(command), command.settings.tokens_per_step, command.settings.max_steps)


def planned(*overrides: str) -> report.Plan:
    return plan_of(composed("task=plan", *overrides))


def stems(group: str) -> list[str]:
    return [p.stem for p in choices(CONF / group)]


@pytest.fixture(scope="module")
def commands() -> list[Command]:
    """Every trainer with the largest model, every model with the trainer that suits the machine."""
    pairs = [("1.5b", t) for t in stems("trainer")] + [(m, "auto") for m in stems("model")]
    return [composed("task=plan", "tokens_per_step=524288", f"model={m}", f"trainer={t}") for m, t in pairs]


def changed(command: Command, **groups) -> Command:
    return replace(command, settings=command.settings.model_copy(update=groups))


@pytest.mark.parametrize("name", [name for name in stems("hardware") if name != "auto"])
def test_every_trainer_and_model_has_a_plan_on_a_machine_of_its_kind(name, commands):
    machine = Table().entries[name].with_slice_counted()
    for command in commands:
        trainer, command = command.settings.trainer, changed(command, hardware=machine)
        if trainer.accelerator != machine.accelerator:
            with pytest.raises(ConfigError, match=f"trainer.accelerator={trainer.accelerator}: .* is a {machine.accelerator}"):
                plan_of(command)
            continue
        if trainer.strategy in ("fsdp", "deepspeed_zero2", "deepspeed_zero3"):
            with pytest.raises(ConfigError, match="on one device has nothing to share out"):
                plan_of(command)
            command = changed(command, trainer=trainer.model_copy(update={"devices": 8}))
        p = plan_of(command)
        assert json.loads(json.dumps(p.as_dict()))["memory"]["total"] > 0 and report.rows(p)


def test_the_seeds_own_run():
    p = planned(*SEED)
    assert p.setup.devices == 256 and p.setup.micro * p.setup.accumulate == 2 and p.verdict == FITS
    seen = flops_per_token(p.setup.shape) * 512 * 1024 * 0.55 / (256 * p.hardware.peak_bf16)
    assert seen == pytest.approx(p.hardware.mfu, abs=0.005)
    assert 1 / p.speed.step_seconds == pytest.approx(0.55, rel=0.02)
    assert p.speed.days * 24 == pytest.approx(50, rel=0.03)  # 2 days 2 hours; 100,000 steps at 0.55 a second are 50.5 hours


def test_a_pod_of_this_size_would_not_hold_1_5b_whole_on_every_core():
    p = planned(*SEED, "optim=adamw")
    whole = replace(p.setup, strategy="ddp", precision="bf16-mixed")
    assert verdict(whole, memory(whole), p.hardware.memory) == TOO_LARGE


@pytest.mark.parametrize(
    "words",
    [
        ["model=1.5b", "hardware=rtx4090"],
        ["model=1.5b", "hardware=a100_40gb"],
        ["model=774m", "hardware=rtx4090", "trainer=gpu"],
        ["model=1.5b", "trainer=tpu_pod", "hardware=v2", "trainer.activation_checkpointing=false"],
        ["model=774m", "trainer=cpu", "hardware=cpu"],
        ["model=1.5b", "trainer=fsdp", "trainer.devices=2", "hardware=rtx4090"],
        ["model=1.5b", "trainer=deepspeed_zero2", "trainer.devices=2", "hardware=rtx4090"],
        ["model=1.5b", "trainer=deepspeed_zero3", "trainer.devices=2", "hardware=rtx4090"],
    ],
)
def test_what_is_advised_does_what_it_says(words):
    p = planned(*words)
    assert p.verdict != FITS and p.advice
    for way in p.advice:
        keys = [w.partition("=")[0] for w in way]
        kept = [w for w in words if w.partition("=")[0] not in keys]
        assert planned(*kept, *way).verdict == p.advice_is, way  # which train would not refuse either, or it would have raised


@pytest.mark.parametrize("words, wrong", [
    (["trainer=tpu_pod", "hardware=h200"], "trainer.accelerator=tpu: NVIDIA H200 141GB is a gpu"),
    (["trainer=gpu", "hardware=v3-256"], "trainer.accelerator=gpu: TPU v3 is a tpu; take trainer=tpu_pod"),
    (["trainer=fsdp", "hardware=h200"], "fsdp on one device"),
    (["trainer=gpu", "trainer.devices=2", "hardware=h200"], "single with 2 devices: use trainer=ddp"),
    (["trainer=fsdp", "trainer.devices=8", "hardware=a100", "optim=adafactor"], "optim=adafactor needs whole matrices"),
    (["trainer=tpu_pod", "hardware=v4-32", "trainer.devices=6"], "trainer.devices=6: of v4-32 auto takes all 16 devices"),
    (["trainer=tpu_pod", "hardware=v3", "hardware.slice=v4-32"], "hardware.slice=v4-32: TPU v3 comes in slices called v3-<number>"),
])  # fmt: skip
def test_what_train_would_refuse_has_no_plan(words, wrong):
    with pytest.raises(ConfigError, match=re.escape(wrong)):
        planned("model=1.5b", *words)


def test_the_devices_of_one_host_mean_all_of_the_slice_as_in_training():
    whole, host = (planned("model=1.5b", "trainer=tpu_pod", "hardware=v4-32", *more) for more in ([], ["trainer.devices=4"]))
    assert whole.setup == host.setup and whole.setup.devices == 16


def test_several_hosts_of_gpus_have_no_known_speed_between_them():
    two = planned("model=1.5b", "trainer=ddp", "trainer.devices=8", "trainer.num_nodes=2", "hardware=a100")
    assert two.setup.hosts == 2 and two.speed.moved > 0 and two.speed.moving_seconds is None


def test_spmd_gathers_weights_in_the_type_of_the_products():
    recomputed = planned(*SEED)
    kept = planned(*SEED, "trainer.activation_checkpointing=false")
    assert recomputed.speed.moved / kept.speed.moved == pytest.approx((2 + 2 + 4) / (2 + 4))
    assert kept.memory.buffers > recomputed.memory.buffers + 2 * 1.3e9  # gathered once, they stay until the backward pass


def test_nothing_is_advised_for_what_fits_and_more_devices_only_where_there_are_some():
    assert planned("hardware=h200").advice == []
    p = planned("model=1.5b", "hardware=rtx4090")
    alone = advise(p.setup, p.hardware, p.hardware.memory, p.tokens_per_step, more=1)
    assert alone and not any(word.startswith("trainer.devices") for way in alone for word in way)


def test_twice_the_machine_is_twice_as_fast_and_costs_the_same():
    one, two = planned("hardware=a100"), planned("hardware=a100", "trainer=ddp", "trainer.devices=2")
    price = [speed(p.setup, p.hardware.changed(interconnect=None), p.tokens_per_step, 100) for p in (one, two)]
    assert price[1].step_seconds == pytest.approx(price[0].step_seconds / 2)
    assert price[1].cost == pytest.approx(price[0].cost)


def test_the_table_in_the_readme_is_what_the_plan_says():
    rows = re.findall(r"^\| `([^`]*hardware=[^`]*)` \| (.*) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert len(rows) == 4
    for words, said in rows:
        p = planned("model=1.5b", *words.split())
        memory = f"{p.needed / 1e9:.1f} of {p.hardware.memory / 1e9:.1f} GB"
        seen = [
            f"{p.speed.tokens_per_second:,.0f}",
            f"{p.hardware.mfu:.0%}",
            f"{p.speed.days:.1f} days",
            f"{p.speed.cost:,.0f} $",
        ]
        assert said.split(" | ") == [memory, p.verdict, *seen]


def test_slices_count_their_devices():
    wanted = {"v2-8": 8, "v3-256": 256, "v4-32": 16, "v5litepod-16": 16, "v5p-8": 4, "v6e-8": 8}
    assert {name: slice_devices(name) for name in wanted} == wanted
    with pytest.raises(ConfigError, match=r"hardware\.slice=v3"):
        slice_devices("v3")


def test_peaks_are_those_that_training_logs():
    for name, entry in Table().entries.items():
        if entry.accelerator in ("gpu", "tpu"):
            assert peak_flops(entry.slice or entry.name) == entry.peak_bf16, name


def test_known_vocabularies_are_true():
    assert known_vocab_size("hanzi") == load_tokenizer("hanzi").vocab_size


@pytest.mark.parametrize("model", ("tiny", "mini", "124m"))
@pytest.mark.parametrize("precision", ("32-true", "bf16-mixed"))
def test_what_a_laptop_trains_is_never_refused(model, precision, monkeypatch):
    monkeypatch.setattr("cngpt.plan.machine.main_memory", lambda: 16e9)
    check_fits(composed(f"model={model}", "trainer=cpu", f"trainer.precision={precision}"))


def check_fits(command: Command) -> None:
    s, shape = command.settings, task.planned_shape(command)
    windows = s.tokens_per_step // shape.n_ctx
    spread.check_fits(s.trainer.settled(), shape, s.optim.name, s.tokens_per_step, lambda readers: (2, windows // readers // 2))


def test_what_cannot_fit_is_refused_with_advice(monkeypatch):
    monkeypatch.setattr("cngpt.plan.machine.main_memory", lambda: 24e9)
    with pytest.raises(ConfigError, match=r"^plan.enforce: .* GB.*optim=adafactor.*plan.enforce=false") as refused:
        check_fits(composed("model=1.5b", "trainer=cpu"))
    assert "\n" not in str(refused.value)


def test_launch_commands_are_filled_in():
    p = planned("model=1.5b", "trainer=tpu_pod", "hardware=v4-32")
    words = ["model=1.5b", "trainer=tpu_pod", "data=gpt2ml", "data.root=raw", 'callbacks.samples.prompts=["双十一", "$5 `a`"]']
    for kind, create in (("gcloud", "tpu-vm create $TPU"), ("queued", "queued-resources create $TPU --node-id=$TPU")):
        text = launch.commands(kind, p.setup, p.hardware, words, "mine")
        assert create in text and "TYPE=v4-32" in text and "us-central2-b" in text and "--worker=all" in text
        assert "task=prepare data=gpt2ml data.root=raw prepare.out=$BUCKET/shards" in text
        fake = 'gcloud() { printf "%s\\n" "$@"; }; BUCKET=gs://b; TPU=mine; ZONE=z\n'
        start = next(line for line in text.splitlines() if "nohup" in line)
        done = subprocess.run(["bash", "-c", fake + start], capture_output=True, text=True, check=True)
        remote = done.stdout.splitlines()[-1].removeprefix("--command=")
        run = shlex.split(remote.partition("nohup ")[2].partition(" > ")[0])
        assert run[:4] == ["python", "run.py", "model=1.5b", "trainer=tpu_pod"]
        assert run[4:] == ['callbacks.samples.prompts=["双十一", "$5 `a`"]', "name=mine", "data=shards", "data.root=gs://b/shards",
                           "callbacks.checkpoint.folder=gs://b/runs/mine"]  # fmt: skip
        assert subprocess.run(["bash", "-n"], input=text.replace("gs://<bucket>", "gs://b"), text=True).returncode == 0
    gpus = planned("model=1.5b", "trainer=fsdp", "hardware=h100", "trainer.devices=8", "trainer.num_nodes=2")
    for kind in ("torchrun", "slurm"):
        text = launch.commands(kind, gpus.setup, gpus.hardware, ["model=1.5b", "trainer=fsdp"], "mine")
        assert "trainer.devices=8 trainer.num_nodes=2 name=mine" in text
        with pytest.raises(ConfigError, match=f"launch={kind}"):
            launch.commands(kind, p.setup, p.hardware, words, "mine")
    with pytest.raises(ConfigError, match="launch=gcloud"):
        launch.commands("gcloud", gpus.setup, gpus.hardware, words, "mine")


WRONG = [
    (["hardware=h300"], "hardware=h300: no such choice; one of .*h200"),
    (["hardware.slice=v3", "hardware=v3"], "hardware.slice=v3: an accelerator type"),
    (["launch=ssh"], "launch=ssh: one of gcloud, queued"),
    (["hardware.mfu=0"], "hardware.mfu=0: must be above 0, or null"),
    (["task=train", "hardware=h200"], "hardware=h200: is for task=plan"),
    (
        ["model=1.5b", "trainer=tpu_pod", "hardware=v3", "hardware.slice=v3-48"],
        "tokens_per_step=524288 does not divide by 48 devices",
    ),
]


def command(*arguments: str, cwd) -> subprocess.CompletedProcess:
    task = [] if "task=train" in arguments else ["task=plan"]
    return run_without_torch(*task, *arguments, cwd=cwd, COLUMNS="100")


@pytest.mark.parametrize("arguments, line", WRONG, ids=lambda a: " ".join(a) if isinstance(a, list) else "")
def test_a_mistake_is_one_line(arguments, line, tmp_path):
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and re.search(f"^error: .*{line}", done.stderr), done.stderr


def test_the_table_and_the_json_say_the_same_without_torch(tmp_path):
    words = ["model=1.5b", "trainer=fsdp", "hardware=a100", "trainer.devices=8"]
    table, printed = command(*words, cwd=tmp_path), command(*words, "out=-", cwd=tmp_path)
    assert table.returncode == printed.returncode == 0, table.stderr + printed.stderr
    plan = json.loads(printed.stdout)
    assert f"{plan['memory']['weights'] / 1e9:.2f}" in table.stdout and "of 80.00 GB: fits" in table.stdout
    assert command(*words, "out=plan.json", cwd=tmp_path).returncode == 0
    assert json.loads((tmp_path / "plan.json").read_text()) == plan
    assert max(map(len, table.stdout.splitlines())) <= 100
