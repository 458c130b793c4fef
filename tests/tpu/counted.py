"""A run that writes down what torch_xla compiled: python -m tests.tpu.counted <file.json> <overrides>

[{"step", "compiled", "executed", "fallbacks"}, ...], one at the end of every step, all callbacks done; and one of the whole run.
"""

import json
import sys
from pathlib import Path

import pytorch_lightning as pl
import torch_xla.debug.metrics as met

from cngpt.cli.main import main
from cngpt.training import fit


class Counter(pl.Callback):
    def __init__(self):
        self.rows = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self.rows.append({"step": trainer.global_step, **counts()})


def counts() -> dict:
    """`compiled`: programs built, those that are never kept (ReplicateShardedData) too."""
    compiled = met.metric_data("CompileTime")
    return {
        "compiled": compiled[0] if compiled else 0,
        "executed": met.counter_value("MarkStep") or 0,
        "fallbacks": [name for name in met.counter_names() if name.startswith("aten::")],
    }


if __name__ == "__main__":
    counter, build = Counter(), fit.build_trainer

    def counted(settings, guests, *more):
        trainer = build(settings, guests, *more)
        trainer.callbacks.append(counter)
        return trainer

    fit.build_trainer = counted
    out, sys.argv = Path(sys.argv[1]), ["run.py", *sys.argv[2:]]
    code = main()
    out.write_text(json.dumps([*counter.rows, {"step": None, **counts()}]))
    sys.exit(code)
