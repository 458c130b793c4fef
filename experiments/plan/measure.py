"""Predicted and measured memory of real training runs on this CPU: python -m experiments.plan.measure [again | missing]

Each row is `python run.py <overrides>` for three steps on the bundled sample, a process of its own; measured is the highest resident
memory of its largest process (getrusage), predicted what `task=plan` reckons for one process.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from cngpt.model.shape import Shape
from cngpt.plan.memory import memory
from cngpt.plan.setup import Setup

ROOT = Path(__file__).parents[2]
STORE = Path(__file__).with_name("measured.json")  # bytes of every row
SHAPES = {
    "mini": {"block": "preln", "n_layer": 6, "n_head": 6, "width": 384, "n_ctx": 512, "dropout": 0.0},
    "124m": {"block": "preln", "n_layer": 12, "n_head": 12, "width": 768, "n_ctx": 1024, "dropout": 0.0},
    "355m": {"block": "preln", "n_layer": 24, "n_head": 16, "width": 1024, "n_ctx": 1024, "dropout": 0.0},
    "gpt2ml_base": {"block": "gpt2ml", "n_layer": 12, "n_head": 12, "width": 768, "n_ctx": 1024, "dropout": 0.1},
}
HANZI = 8704  # entries of the bundled tokenizer
# model, precision, windows a micro-batch, micro-batches a step, activation checkpointing, optimizer, processes, strategy
RUNS = [
    ("mini", "32-true", 4, 1, False, "adamw", 1, "single"),
    ("mini", "bf16-mixed", 16, 1, False, "adamw", 1, "single"),
    ("mini", "bf16-mixed", 16, 1, True, "adamw", 1, "single"),
    ("mini", "32-true", 4, 2, False, "adamw", 2, "ddp"),
    ("124m", "32-true", 1, 1, False, "adamw", 1, "single"),
    ("124m", "32-true", 4, 1, False, "adamw", 1, "single"),
    ("124m", "bf16-mixed", 4, 1, False, "adamw", 1, "single"),
    ("124m", "bf16-mixed", 4, 2, False, "adamw", 1, "single"),
    ("124m", "bf16-mixed", 4, 1, True, "adamw", 1, "single"),
    ("124m", "32-true", 4, 1, True, "adafactor", 1, "single"),
    ("gpt2ml_base", "32-true", 4, 1, False, "adamw", 1, "single"),
    ("gpt2ml_base", "bf16-mixed", 4, 1, False, "gpt2ml_adafactor", 1, "single"),
    ("355m", "bf16-mixed", 1, 1, False, "adamw", 1, "single"),
    ("355m", "bf16-mixed", 2, 1, True, "adafactor", 1, "single"),
    ("124m", "32-true", 2, 1, True, "adamw", 2, "fsdp"),
]


def predicted(run: tuple) -> tuple[float, dict]:
    """Bytes of one process at its highest moment, and the split."""
    name, precision, micro, accumulate, checkpointing, optimizer, processes, strategy = run
    setup = Setup(
        shape=Shape(**SHAPES[name], vocab_size=HANZI), precision=precision, micro=micro, accumulate=accumulate, strategy=strategy,
        activation_checkpointing=checkpointing, optimizer=optimizer, devices=processes,
    )  # fmt: skip
    m = memory(setup)
    return max(m.total, m.weights + m.gradients + m.optimizer + m.program + m.checkpoint), m.as_dict()


def measured(run: tuple, folder: str) -> float:
    """Bytes, of the run's largest process."""
    name, precision, micro, accumulate, checkpointing, optimizer, processes, strategy = run
    tokens = SHAPES[name]["n_ctx"] * micro * accumulate * processes
    words = [
        f"model={name}", "trainer=cpu", f"trainer.precision={precision}", f"trainer.strategy={strategy}", f"trainer.devices={processes}",
        f"trainer.micro_batch={micro}", f"tokens_per_step={tokens}", f"trainer.activation_checkpointing={str(checkpointing).lower()}",
        f"optim={optimizer}", "max_steps=3", "schedule.warmup_steps=1", "name=measured", "overwrite=true", "logger=csv", "callbacks=quiet",
    ]  # fmt: skip
    child = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], capture_output=True, text=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024); sys.exit(done.stderr[-2000:] if done.returncode else 0)"
    )
    command = [sys.executable, "-c", child, sys.executable, str(ROOT / "run.py"), *words]
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}\n{done.stderr}")
    return float(done.stdout)


def main() -> None:
    """The table; with `again` every row is measured anew, with `missing` what measured.json lacks."""
    known = json.loads(STORE.read_text()) if STORE.exists() and "again" not in sys.argv else {}
    if len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as folder:
            for run in RUNS:
                if str(run) in known:
                    continue
                try:
                    known[str(run)] = measured(run, folder)
                except RuntimeError as error:
                    print(f"failed: {error}", file=sys.stderr, flush=True)
                STORE.write_text(json.dumps(known, indent=1) + "\n")
    print(
        "| model | precision | windows | activations | optimizer | processes | predicted, GB | measured, GB | off by |\n"
        + "|---" * 9
        + "|"
    )
    for run in RUNS:
        if str(run) not in known:
            continue
        name, precision, micro, accumulate, checkpointing, optimizer, processes, strategy = run
        guess, true = predicted(run)[0], known[str(run)]
        windows = f"{micro} x {accumulate}" if accumulate > 1 else str(micro)
        how, where = "computed again" if checkpointing else "kept", f"{processes}, {strategy}" if processes > 1 else "1"
        figures = f"{guess / 1e9:.2f} | {true / 1e9:.2f} | {guess / true - 1:+.0%}"
        print(f"| {name} | {precision} | {windows} | {how} | {optimizer} | {where} | {figures} |")


if __name__ == "__main__":
    main()
