"""How much memory and time does a checkpoint of full size take to convert?

    python -m experiments.gpt2ml_checkpoints.full_size <scratch folder> <vocab.txt>

Writes one of random numbers, as large as gpt2-ml's 15 GB release (48 layers x 1536, 21,130 rows, all 1,835 variables: 5.6 GB),
converts it with task=convert both ways, and watches the process: its memory beyond mapped files (RssAnon), its highest resident
memory of all kinds (VmHWM), and seconds. Needs 12 GB of disk for the model directory, 23 GB with the optimizer's state.
"""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from cngpt.interop.gpt2ml import mapping
from cngpt.model.shape import Shape
from tests.interop.bundle_writer import write_bundle

MEGA = Shape(block="gpt2ml", vocab_size=21_130, n_ctx=1024, n_layer=48, n_head=24, width=1536)


def main(folder: Path, vocab: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    prefix, rng = folder / "model.ckpt-100000", np.random.default_rng(0)
    if not prefix.with_name(prefix.name + ".index").exists():
        noise = rng.standard_normal(21_130 * 1536, np.float32) * 0.02

        def variable(name: str, size: tuple[int, ...]):
            if name == mapping.STEP:
                return name, "int64", size, np.array(100_000)
            # of the numbers already drawn: drawing 1.4 billion takes half a minute
            start = rng.integers(1, 1000)
            values = lambda: np.roll(noise[: int(np.prod(size))], start)  # noqa: E731
            return name, "float32", size, (lambda: abs(values()) + 1e-8) if "adafactor" in name else values

        write_bundle(prefix, [variable(*item) for item in mapping.variables(MEGA).items()], compress=True)
    megabytes = sum(file.stat().st_size for file in folder.glob("model.ckpt-100000*")) / 1e6
    results = {"checkpoint_mb": round(megabytes)}
    for name, options in {"model directory": [], "training checkpoint": ["optimizer=true"]}.items():
        command = [
            "task=convert",
            "from=gpt2ml",
            f"path={prefix}",
            f"vocab={vocab}",
            f"out={folder / 'out'}",
            "overwrite=true",
            *options,
        ]
        results[name] = watched([sys.executable, "run.py", *command])
        results[name]["mb_per_second"] = round(megabytes / results[name]["seconds"])
        print(name, results[name], flush=True)
        subprocess.run(["rm", "-r", folder / "out"], check=True)
    print(json.dumps(results, indent=2))


def watched(command: list) -> dict[str, float]:
    """Runs it; {"seconds", "anonymous_mb", "resident_mb"}: the two are highest values, sampled every 20 ms."""
    began, highest = time.monotonic(), {"RssAnon": 0, "VmHWM": 0}
    process = subprocess.Popen(command)
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        for key in highest:
            if match := re.search(rf"{key}:\s+(\d+) kB", status):
                highest[key] = max(highest[key], int(match[1]))
        time.sleep(0.02)
    if process.wait():
        raise SystemExit(process.returncode)
    megabytes = {key: round(value * 1024 / 1e6) for key, value in highest.items()}
    return {
        "seconds": round(time.monotonic() - began, 1),
        "anonymous_mb": megabytes["RssAnon"],
        "resident_mb": megabytes["VmHWM"],
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
