"""The model directory of a run that has done all its steps."""

from pathlib import Path

import pytorch_lightning as pl

from cngpt import checkpoints


class ModelDirectory(pl.Callback):
    """Written at the end of training, by a callback and not after `Trainer.fit`, when strategies have let go of the weights.
    Every rank takes part, rank 0 writes."""

    def __init__(self, folder: Path, tokenizer, generation: dict):
        self.folder, self.tokenizer, self.generation = folder, tokenizer, generation

    def on_train_end(self, trainer, module) -> None:
        if trainer.global_step < trainer.max_steps:
            return
        state = trainer.strategy.whole_weights(module.gpt)
        if trainer.is_global_zero:
            options = {"overwrite": True, "step": trainer.global_step}
            checkpoints.save_state(self.folder, module.gpt.shape.as_dict(), state, self.tokenizer, self.generation, **options)
        trainer.strategy.barrier("model")
