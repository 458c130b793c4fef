"""The generation callback: every N steps a few fixed prompts go on, greedy and sampled."""

import json
from typing import TYPE_CHECKING

import pytorch_lightning as pl
import torch

from cngpt import files
from cngpt.generation import Engine, Sampling
from cngpt.training.tracking import log_samples

if TYPE_CHECKING:
    from cngpt.training.callbacks import Context
    from cngpt.training.settings import Samples as SamplesSettings


class Samples(pl.Callback):
    """Texts go to the terminal, to samples.jsonl and to W&B. Every rank generates (a sharded model needs all of them),
    rank 0 alone writes. Sampling draws from generators of its own, so training is the same with and without it."""

    def __init__(self, settings: "SamplesSettings", context: "Context"):
        self.path, self.tokenizer = context.run.samples, context.tokenizer
        self.prompts, self.every = settings.prompts, settings.every
        self.console, self.stopwatch = context.progress.console, context.stopwatch
        limits = {"max_new_tokens": settings.new_tokens, "min_new_tokens": 0}
        self.modes = {"greedy": Sampling(temperature=0.0, **limits), "sampled": Sampling(**{**context.generation, **limits})}

    def on_train_start(self, trainer, module) -> None:
        if trainer.is_global_zero and self.path.exists():  # what comes after the step of a resume comes again
            lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]  # not splitlines: a text may hold U+2028
            kept = [line for line in lines if json.loads(line)["step"] <= trainer.global_step]
            files.write_text(self.path, "".join(line + "\n" for line in kept))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        step = trainer.global_step
        boundary = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self.every and boundary and (step % self.every == 0 or step == trainer.max_steps) and not trainer.should_stop:
            with self.stopwatch.pause():
                self._sample(trainer, module.gpt, step)

    def _sample(self, trainer, gpt, step: int) -> None:
        rows = []
        # avoid recompilation: the shapes of generation change from token to token
        with trainer.precision_plugin.forward_context(), torch.compiler.set_stance("force_eager"):
            for mode, sampling in self.modes.items():
                for prompt, stories in zip(
                    self.prompts, Engine(gpt, self.tokenizer).generate(self.prompts, sampling=sampling), strict=True
                ):
                    rows.append({"step": step, "prompt": prompt, "manner": mode, "text": stories[0].text})
        if not trainer.is_global_zero:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        log_samples(trainer.loggers, rows, step)
        for row in rows:
            text = row["text"].replace("\n", "⏎")
            self.console.print(f"  {step} {row['manner']}: {text}", markup=False, soft_wrap=True)
