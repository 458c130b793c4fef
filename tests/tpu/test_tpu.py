"""trainer=tpu on a CPU that torch_xla sees as one device or four: the same code as on a TPU host, but for the links between chips.

Several hosts cannot be tried here: more than one process of torch_xla on a CPU waits for ever in its first all-reduce.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import curve
from tests.commands import ROOT, environment, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(importlib.util.find_spec("torch_xla") is None, reason="torch_xla is not installed here: make test-tpu"),
]


def xla(*overrides: str, cwd: Path, devices: int = 4, check: bool = True, **env: str) -> list[dict]:
    """A run on so many virtual devices; what torch_xla had compiled at the end of each step (tests/tpu/counted.py)."""
    cache = cwd / f"compiled-{len(list(cwd.iterdir()))}"
    env = {"PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": str(devices), "XLA_PERSISTENT_CACHE_PATH": str(cache), **env}
    env |= {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.tpu.counted", str(cwd / "counts.json"), *overrides]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment(**env), timeout=600)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(overrides)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return json.loads((cwd / "counts.json").read_text()) if check else done


def cpu(*overrides: str, cwd: Path) -> None:
    run(*overrides, "trainer=cpu", "trainer.precision=32-true", cwd=cwd)


def far(a: Path, b: Path) -> float:
    """How far two runs are from each other: losses and gradient norms, relative above 1."""
    one, other = curve.curve(a), curve.curve(b)
    assert len(one) == len(other) > 0
    return max(abs(x[k] - y[k]) / max(1, abs(y[k])) for x, y in zip(one, other, strict=True) for k in ("loss", "grad_norm"))


@pytest.fixture(scope="module", params=["preln-1", "preln-4", "gpt2ml-4"])
def golden(request, tmp_path_factory):
    """(run directory, block, counts) of the golden run: samples and validation every second step, two micro-batches a step."""
    block, devices = request.param.split("-")
    cwd = tmp_path_factory.mktemp(request.param)
    often = ["callbacks.samples.every=2", "callbacks.validation.every=2", f"trainer.micro_batch={8 // int(devices)}"]
    counts = xla(*curve.overrides(block, "golden", "trainer=tpu", *often), cwd=cwd, devices=int(devices))
    return cwd / "runs/golden", block, counts


def test_one_device_and_four_repeat_the_golden_curve(golden):
    folder, block, _ = golden
    curve.assert_golden(folder, block)


def test_nothing_is_compiled_after_the_third_step_not_even_by_sampling_validation_or_checkpoints(golden):
    _, _, counts = golden
    compiled = {row["step"]: row["compiled"] for row in counts}
    assert compiled[20] == compiled[None] == compiled[3], compiled


def test_every_operation_runs_on_the_device(golden):
    """A counter aten::... of torch_xla is an operation that it handed to the CPU."""
    _, _, counts = golden
    assert counts[-1]["fallbacks"] == []


def test_its_texts_are_those_of_a_cpu(golden, tmp_path):
    folder, block, _ = golden
    cpu(*curve.overrides(block, "here", "callbacks.samples.every=2", "max_steps=2"), cwd=tmp_path)
    mine = (tmp_path / "runs/here/samples.jsonl").read_text()
    assert mine and (folder / "samples.jsonl").read_text().startswith(mine)


def test_its_model_directory_and_its_checkpoint_are_the_same_model(golden):
    import torch

    from cngpt import checkpoints

    folder, _, _ = golden
    (model, _), (checkpoint, _) = checkpoints.load(folder / "model"), checkpoints.load(folder / "checkpoints/step_00000020.ckpt")
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), checkpoint.parameters(), strict=True))
    done = run("task=generate", f"ckpt={folder}", "generation.max_new_tokens=5", 'prompt="天"', cwd=folder.parents[1])
    assert done.stdout.startswith("天")


def test_a_run_stopped_at_step_10_goes_on_as_if_it_had_not_been(tmp_path):
    """On as many devices, on one, and under another strategy."""
    overrides = curve.overrides("preln", "stopped", "trainer=tpu")
    xla(*overrides, "max_steps=10", cwd=tmp_path)
    for name in ("again", "fewer", "elsewhere"):
        shutil.copytree(tmp_path / "runs/stopped", tmp_path / f"runs/{name}")
    xla(*overrides, "name=again", cwd=tmp_path)
    xla(*overrides, "name=fewer", cwd=tmp_path, devices=1)
    cpu(*[o for o in overrides if o != "trainer=tpu"], "name=elsewhere", cwd=tmp_path)
    for name in ("again", "fewer", "elsewhere"):
        curve.assert_golden(tmp_path / "runs" / name, "preln")


def test_weights_cut_along_both_sides_are_gathered_and_activations_stay_where_they_are(tmp_path):
    """66 = 2 x 33: four devices become 2 x 2. Collectives carry weights and gradients, never the batch: 1,024 tokens."""
    overrides = [*curve.overrides("preln", "cut", "trainer=tpu", "max_steps=4"), "model.width=66", "model.n_head=6"]
    xla(*overrides, cwd=tmp_path, XLA_FLAGS=f"--xla_dump_to={tmp_path / 'programs'} --xla_dump_hlo_as_text")
    cpu(*[o for o in overrides if o != "trainer=tpu"], "name=whole", cwd=tmp_path)
    assert far(tmp_path / "runs/cut", tmp_path / "runs/whole") < 1e-3
    step = max((tmp_path / "programs").glob("*after_optimizations.txt"), key=lambda path: path.stat().st_size).read_text()
    moved = re.findall(r"= \(?\w+\[([\d,]*)\]\S* (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)\(", step)
    assert ("33,66", "all-gather") in moved or ("66,66", "all-gather") in moved, moved
    batch = [m for m in moved if {"16", "1024"} & set(m[0].split(","))]
    assert not batch, batch


def test_clipping_holds_back_a_huge_gradient(tmp_path):
    """A billion times as large as allowed: what is left of it is a tenth of Adam's epsilon, and the weights stay where they are."""
    import torch

    from cngpt import checkpoints
    from cngpt.model.gpt import GPT

    options = ["trainer.clip_norm=1e-9", "optim.eps=1e-8", "optim.weight_decay=0.0", "max_steps=4", "callbacks.samples.every=0"]
    xla(*curve.overrides("preln", "held", "trainer=tpu"), *options, cwd=tmp_path)
    assert all(row["grad_norm"] > 0.5 for row in curve.curve(tmp_path / "runs/held"))  # as it was before clipping
    held, _ = checkpoints.load(tmp_path / "runs/held")
    torch.manual_seed(3)
    fresh = GPT(held.shape).init_weights()
    moved = max((p - q).abs().max().item() for p, q in zip(held.parameters(), fresh.parameters(), strict=True))
    assert 0 < moved < 1e-3, moved  # four steps of up to 3e-3 otherwise


@pytest.mark.parametrize("optim", ["adafactor", "gpt2ml_adafactor"])
def test_other_optimizers_do_as_on_a_cpu_and_compile_nothing_new(optim, tmp_path):
    overrides = curve.overrides("gpt2ml", "cut", "trainer=tpu", f"optim={optim}", "max_steps=6", "callbacks.samples.every=0")
    counts = xla(*overrides, cwd=tmp_path)
    cpu(*[o for o in overrides if o != "trainer=tpu"], "name=whole", cwd=tmp_path)
    assert far(tmp_path / "runs/cut", tmp_path / "runs/whole") < 1e-3
    assert counts[-2]["compiled"] == counts[2]["compiled"] and counts[-1]["fallbacks"] == []


def test_bfloat16_dropout_and_recomputed_activations_compile_nothing_new(tmp_path):
    mine = [o for o in curve.overrides("preln", "bf16", "trainer=tpu_pod", "max_steps=6") if o not in curve.EXACT]
    counts = xla(*mine, "model.dropout=0.1", "callbacks.samples.every=2", "trainer.micro_batch=2", cwd=tmp_path)
    compiled = {row["step"]: row["compiled"] for row in counts}
    assert compiled[6] == compiled[3] and counts[-1]["fallbacks"] == []
    losses = [row["loss"] for row in curve.curve(tmp_path / "runs/bf16")]
    assert losses[-1] < losses[0] - 0.5


@pytest.mark.parametrize(
    ("overrides", "environ", "said"),
    [
        (["trainer.devices=8"], {"PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": "4"}, "trainer.devices=8: 4 TPU device(s) here"),
        ([], {}, "trainer.accelerator=tpu: no TPU here"),
        (
            ["tokens_per_step=1280"],
            {"PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": "4"},
            "tokens_per_step=1280 does not divide by 4 devices",
        ),
        (["trainer.compile=true"], {"PJRT_DEVICE": "CPU"}, "torch_xla compiles by itself"),
    ],
)
def test_wrong_use_is_one_line(overrides, environ, said, tmp_path):
    mine = {k: v for k, v in os.environ.items() if k not in ("PJRT_DEVICE", "CPU_NUM_DEVICES")} | environ
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "trainer=tpu", *overrides],
        cwd=tmp_path,
        env=mine,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if "error" in line or "Traceback" in line]
    assert len(lines) == 1 and said in lines[0], done.stderr


def test_checkpoints_go_to_a_bucket_and_a_host_that_has_nothing_goes_on_from_there(tmp_path):
    bucket = tmp_path / "bucket"
    overrides = [*curve.overrides("preln", "far", "trainer=tpu"), f"callbacks.checkpoint.folder=file://{bucket}/far"]
    xla(*overrides, "callbacks.checkpoint.every=5", "callbacks.checkpoint.keep=1", "max_steps=10", cwd=tmp_path)
    assert [path.name for path in (bucket / "far").iterdir()] == ["step_00000010.ckpt"]
    (bucket / "far/step_00000015.ckpt").mkdir()  # of a host that died: without its index it is none
    (tmp_path / "runs/far").rename(tmp_path / "runs/lost")
    xla(*overrides, cwd=tmp_path)
    made, wanted = curve.curve(tmp_path / "runs/far"), curve.recorded("preln")[10:]
    assert [row["step"] for row in made] == list(range(11, 21))
    assert all(abs(row["loss"] - want["loss"]) < 1e-3 for row, want in zip(made, wanted, strict=True))
