"""The golden curve: 20 steps of a small model, in float32, that every strategy must repeat (tests/golden/curve.json).

python -m tests.curve        records it anew, on one CPU device; only where the arithmetic was changed on purpose
"""

import json
import tempfile
from pathlib import Path

from cngpt.training.tracking import read_metrics
from tests.commands import ROOT, run

RECORD = ROOT / "tests/golden/curve.json"
BLOCKS = ("preln", "gpt2ml")
STEPS = 20
SMALL = ["n_layer=4", "n_head=4", "width=64", "n_ctx=64", "dropout=0.0"]
SAME = [
    *(f"model.{o}" for o in SMALL), "tokens_per_step=1024", f"max_steps={STEPS}", "seed=3", "optim=adamw", "optim.lr=3e-3",
    "schedule=cosine", "schedule.warmup_steps=4", "schedule.total_steps=20", "logger=csv", "callbacks.log_every=1",
    "callbacks.validation.every=10", "callbacks.validation.windows=16", "callbacks.samples.every=10", "callbacks.samples.new_tokens=8",
    "callbacks.checkpoint.every=10", "callbacks.checkpoint.keep=-1",
]  # fmt: skip
# after trainer=..., whose preset may say otherwise
EXACT = ["trainer.precision=32-true", "trainer.compile=false", "trainer.clip_norm=1.0"]


def overrides(block: str, name: str, *trainer: str) -> list[str]:
    """What to type for the golden run under another strategy: overrides(block, "two", "trainer=ddp", "trainer.devices=2")."""
    return [f"model.block={block}", *SAME, f"name={name}", *trainer, *EXACT]


def recorded(block: str) -> list[dict]:
    """[{"step", "loss", "grad_norm"}, ...], 20 of them."""
    return json.loads(RECORD.read_text())[block]


def curve(folder: Path) -> list[dict]:
    """The same of a run directory."""
    return [{k: row[k] for k in ("step", "loss", "grad_norm")} for row in read_metrics(folder / "metrics.csv") if "loss" in row]


def assert_golden(folder: Path, block: str, within: float = 1e-3) -> None:
    """That a run directory has the golden curve: loss and global gradient norm, at every step."""
    made, wanted = curve(folder), recorded(block)
    assert [row["step"] for row in made] == [row["step"] for row in wanted]
    far = {
        (row["step"], key): (row[key], want[key])
        for row, want in zip(made, wanted, strict=True)
        for key in ("loss", "grad_norm")
        if not abs(row[key] - want[key]) <= within
    }
    assert not far, f"beyond {within}: {far}"


if __name__ == "__main__":
    made = {}
    for block in BLOCKS:
        with tempfile.TemporaryDirectory() as folder:
            run(*overrides(block, "golden", "trainer=cpu"), cwd=Path(folder))
            made[block] = curve(Path(folder) / "runs/golden")
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(made, indent=0) + "\n")
