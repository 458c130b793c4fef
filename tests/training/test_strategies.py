"""Every strategy trains the same model: the golden curve, undisturbed, interrupted, handed from one strategy to the next.

Whole commands in several processes, half a minute each.
"""

import signal

import pytest
import torch
from torch.testing import assert_close

from cngpt import checkpoints
from tests.commands import run, start, wait_for_step
from tests.curve import BLOCKS, assert_golden, curve, overrides
from tests.training.conftest import steps_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TWO = ["trainer.accelerator=cpu", "trainer.devices=2"]
CPU = ["trainer=cpu"]
SHARDED = ["fsdp", "deepspeed_zero2", "deepspeed_zero3"]


def two(trainer: str) -> list[str]:
    return [f"trainer={trainer}", *TWO]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder where the texts are prepared once."""
    return tmp_path_factory.mktemp("home")


@pytest.mark.parametrize(
    "trainer, block",
    [("ddp", "preln"), *((t, "preln") for t in SHARDED), ("fsdp", "gpt2ml"), ("deepspeed_zero3", "gpt2ml")],
    ids=str,
)
def test_an_interrupted_run_has_the_golden_curve_and_its_checkpoint_becomes_its_model(home, trainer, block):
    name = f"{trainer}_{block}"
    options = overrides(block, name, *two(trainer))
    run(*options, "max_steps=10", cwd=home)
    run(*options, cwd=home)
    folder = home / "runs" / name
    assert_golden(folder, block)
    run("task=convert", "from=checkpoint", f"path={folder}/checkpoints/step_00000020.ckpt", f"out=models/{name}", cwd=home)
    (made, tokenizer), (own, _) = checkpoints.load(home / f"models/{name}"), checkpoints.load(folder / "model")
    ids = torch.randint(tokenizer.vocab_size, (2, 16), generator=torch.Generator().manual_seed(0))
    assert_close(made(ids), own(ids), rtol=0, atol=0)
    path = folder / "checkpoints/step_00000010.ckpt"
    text = run("task=generate", f"ckpt={path}", 'prompt="双十一"', "generation.max_new_tokens=5", cwd=home).stdout
    assert text.startswith("双十一")
    assert checkpoints.header(home / f"models/{name}").step == 20
    samples = (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    assert steps_in(samples) == [10] * 6 + [20] * 6


def test_a_run_may_change_its_trainer_in_every_session(home):
    order = [two("ddp"), two("fsdp"), CPU, two("deepspeed_zero3"), two("ddp"), two("deepspeed_zero2"), two("fsdp")]
    order += [two("deepspeed_zero3"), two("fsdp"), CPU]
    for n, trainer in enumerate(order, start=1):
        run(*overrides("preln", "changed", *trainer), f"max_steps={2 * n}", "callbacks.checkpoint.keep=1", cwd=home)
    assert_golden(home / "runs/changed", "preln")


@pytest.mark.parametrize("trainer", ["fsdp", "deepspeed_zero2", "deepspeed_zero3"])
def test_the_number_of_processes_may_change(home, trainer):
    for steps, count in ((10, 4), (20, 2)):
        place = [f"trainer={trainer}", "trainer.accelerator=cpu", f"trainer.devices={count}"]
        run(*overrides("preln", f"count_{trainer}", *place), f"max_steps={steps}", cwd=home)
    assert_golden(home / f"runs/count_{trainer}", "preln")


@pytest.mark.parametrize("block", BLOCKS)
def test_tensor_parallelism_has_the_golden_curve_and_hands_over(home, block):
    """Two devices that cut the MLPs, then two pairs of them, then one device."""
    name = f"tensor_{block}"
    for steps, count in ((5, 2), (10, 4)):
        place = ["trainer=fsdp", "trainer.accelerator=cpu", f"trainer.devices={count}", "trainer.tensor_parallel=2"]
        options = overrides(block, name, *place)
        run(*options, f"max_steps={steps}", "callbacks.checkpoint.every=5", cwd=home)
    run(*overrides(block, name, *CPU), cwd=home)
    assert_golden(home / "runs" / name, block)


@pytest.mark.parametrize(
    "trainer, micro",
    [(CPU, 16), (CPU, 8), (CPU, 4), (two("ddp"), 2), (two("fsdp"), 4), (two("deepspeed_zero2"), 2), (two("deepspeed_zero3"), 4)],
    ids=str,
)
def test_accumulation_does_not_change_the_curve(home, trainer, micro):
    """A step is 16 windows, so that a device accumulates 1, 2 or 4 micro-batches."""
    name = f"micro_{micro}_{trainer[0].partition('=')[2]}"
    run(*overrides("preln", name, *trainer), f"trainer.micro_batch={micro}", cwd=home)
    assert_golden(home / "runs" / name, "preln")


@pytest.mark.parametrize("trainer", ["ddp", *SHARDED])
def test_clipping_works_everywhere(home, trainer):
    """A gradient a hundred times too large is cut to the same step as on one device, and logged as it was."""
    hard = ["trainer.clip_norm=0.01", "optim.eps=1e-3", "max_steps=5"]  # by eps the size of a gradient matters to Adam

    def clipped(name, *options):
        made = [o for o in overrides("preln", name, *options) if not o.startswith("trainer.clip_norm")]
        run(*made, *hard, cwd=home)
        return curve(home / "runs" / name)

    one = clipped("clip_one", *CPU) if not (home / "runs/clip_one").exists() else curve(home / "runs/clip_one")
    spread = clipped(f"clip_{trainer}", *two(trainer))
    free = overrides("preln", "clip_off", *CPU)
    if not (home / "runs/clip_off").exists():
        run(*[o for o in free if "clip_norm" not in o], *hard[1:], "trainer.clip_norm=null", cwd=home)
    assert one[0]["grad_norm"] > 0.5
    assert abs(curve(home / "runs/clip_off")[4]["loss"] - one[4]["loss"]) > 0.1  # clipping did matter
    for key in ("loss", "grad_norm"):
        assert [r[key] for r in spread] == pytest.approx([r[key] for r in one], abs=1e-3)


@pytest.mark.parametrize("trainer", ["ddp", *SHARDED])
def test_a_run_that_was_stopped_by_a_signal_goes_on_along_the_curve(home, trainer):
    """The first process alone hears it, in the midst of an accumulated step."""
    name, place = f"stopped_{trainer}", [*two(trainer), "trainer.micro_batch=2"]
    process = start(*overrides("preln", name, *place), cwd=home)
    wait_for_step(home / f"runs/{name}/metrics.csv", 3)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in errors and "goes on" in errors
    run(*overrides("preln", name, *place), cwd=home)
    assert_golden(home / "runs" / name, "preln")


@pytest.mark.parametrize(
    "options",
    [
        [*two("deepspeed_zero2"), "trainer.precision=bf16-mixed"],
        [*two("deepspeed_zero3"), "trainer.precision=bf16-mixed"],
        [*two("deepspeed_zero3"), "trainer.precision=bf16-mixed", "trainer.offload=true"],
        ["trainer=deepspeed_zero2", "trainer.accelerator=cpu", "trainer.devices=1", "trainer.offload=true"],
        [*two("fsdp"), "trainer.precision=bf16-true"],
    ],
    ids=" ".join,
)
def test_other_precisions_and_places_train_and_resume(home, options):
    name = "other_" + "_".join(o.partition("=")[2] for o in options)
    made = [o for o in overrides("preln", name) if not o.startswith(("trainer.", "optim"))]
    made += ["optim.lr=3e-3"]
    run(*made, *options, "max_steps=10", cwd=home)
    run(*made, *options, cwd=home)
    rows = curve(home / "runs" / name)
    assert [r["step"] for r in rows] == list(range(1, 21)) and rows[-1]["loss"] < rows[0]["loss"] - 1
    assert abs(rows[9]["loss"] - rows[10]["loss"]) < 0.5
