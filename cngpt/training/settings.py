"""What training takes: optimizers, callbacks, loggers, a model's recipe, and all of a run. No torch here."""

from typing import Annotated, Any, Literal

import annotated_types

from cngpt.model.shape import Shape, Sizes
from cngpt.plan.settings import Trainer
from cngpt.settings import Chosen, Field, Hints, Made, Positive, PositiveNumber, Settings, Text
from cngpt.training.schedule import SCHEDULES, Schedule

Decay = Annotated[float, annotated_types.Ge(0), annotated_types.Lt(1)]


class Recipe(Settings, group="model.recipe"):
    """Defaults of a model's size, which other keys refer to."""

    lr: PositiveNumber = Field(description="default of optim.lr")
    tokens_per_step: Positive = Field(description="default of tokens_per_step")
    max_steps: Positive = Field(description="default of max_steps")
    warmup_steps: int = Field(ge=0, description="default of schedule.warmup_steps")
    eval_every: Positive = Field(description="default of callbacks.*.every: steps between validations, samples and checkpoints")


class Model(Sizes):
    """The group `model`: sizes, and the recipe that goes with them."""

    recipe: Recipe

    def sizes(self) -> dict[str, Any]:
        """What `Shape` takes, without the vocabulary."""
        return self.model_dump(exclude={"recipe"})


class Optimizer(Settings, group="optim"):
    """What every optimizer has."""

    name: Text = Field(description="which optimizer")
    lr: Annotated[PositiveNumber, Hints("lr", "learning_rate", "rate")] = Field(description="peak; the schedule scales it")
    weight_decay: Annotated[float, Hints("wd")] = Field(ge=0, description="on matrices only")


class AdamW(Optimizer):
    """torch's AdamW, fused."""

    name: Literal["adamw"] = "adamw"
    betas: list[Decay] = Field([0.9, 0.95], min_length=2, max_length=2, description="decay of the two moments, each below 1")
    eps: PositiveNumber = Field(1e-8, description="added to the root of the second moment")


class Adafactor(Optimizer):
    """torch's Adafactor: second moments by row and column."""

    name: Literal["adafactor"] = "adafactor"
    beta2_decay: float = Field(-0.8, description="exponent of the step in the decay of the second moment")
    clip_update: PositiveNumber = Field(1.0, description="root mean square of an update is held to this")


class Gpt2mlAdafactor(Optimizer):
    """The seed's own Adafactor: constant beta2, no parameter scaling, decoupled decay off norms and biases."""

    name: Literal["gpt2ml_adafactor"] = "gpt2ml_adafactor"
    beta2: float = Field(0.999, ge=0, le=1, description="decay of the second moment")
    clip_update: PositiveNumber = Field(1.0, description="root mean square of an update is held to this")


OPTIMIZERS: dict[str, type[Optimizer]] = {"adamw": AdamW, "adafactor": Adafactor, "gpt2ml_adafactor": Gpt2mlAdafactor}


class CallbackSettings(Settings):
    """The settings of one callback, which they can make."""

    def build(self, context) -> Any:
        """A Lightning callback, or None; `context`: callbacks.Context."""
        raise NotImplementedError


class Validation(CallbackSettings, group="callbacks.validation"):
    """Read by the data module; Lightning runs it."""

    every: Annotated[Positive, Hints("eval_every", "eval_interval", "val_check_interval")] = Field(
        description="steps from one validation to the next"
    )
    windows: int = Field(256, ge=0, description="of valid/, at most; 0: all of it")

    def build(self, context) -> None:
        return None


class Checkpoint(CallbackSettings, group="callbacks.checkpoint"):
    every: Annotated[Positive, Hints("save_every", "save_steps", "checkpoint_every")] = Field(
        description="steps from one checkpoint to the next"
    )
    keep: int = Field(2, ge=-1, description="newest ones; -1: all")
    folder: Text | None = Field(
        None, description="trainer=tpu and tpu_pod: gs://bucket/<a folder of this run>; null: the run's own checkpoints/"
    )

    def build(self, context) -> Any:
        from cngpt.training.callbacks.checkpoints import Checkpoints

        return Checkpoints(self.folder or context.run.checkpoints, self.every, self.keep, context.stopwatch)


class Samples(CallbackSettings, group="callbacks.samples"):
    every: Annotated[int, Hints("sample_every")] = Field(ge=0, description="steps from one set of texts to the next; 0: never")
    new_tokens: Positive = Field(48, description="tokens of each text")
    prompts: list[Text] = Field(description="what the texts begin with")

    def build(self, context) -> Any:
        from cngpt.training.callbacks.samples import Samples

        return Samples(self, context)


# name of a key in the group `callbacks` -> its settings
CALLBACKS: dict[str, type[CallbackSettings]] = {"validation": Validation, "samples": Samples, "checkpoint": Checkpoint}


class Callbacks(Settings, group="callbacks"):
    """What happens beside training, and how often (in optimizer steps); a key for each callback in CALLBACKS."""

    log_every: Annotated[Positive, Hints("log_interval", "log_every_n_steps")] = Field(
        10, description="steps from one row of metrics to the next"
    )

    @classmethod
    def with_registered(cls) -> type["Callbacks"]:
        """This class with a key for every callback that is registered by now."""
        return cls.extended({name: (kind, ...) for name, kind in CALLBACKS.items()})

    def each(self) -> dict[str, CallbackSettings]:
        return {name: getattr(self, name) for name in CALLBACKS}


class Wandb(Settings, group="logger"):
    """Weights & Biases; metrics.csv is always written as well."""

    name: Literal["wandb"] = Field("wandb", description="where metrics go besides metrics.csv")
    project: Text = Field("cngpt", description="of W&B")
    entity: Text | None = Field(None, description="user or team of W&B; null: your own")
    mode: Literal["auto", "online", "offline"] = Field("auto", description="auto: online with a key, offline without")
    tags: list[Text] = Field([], description="of the run in W&B")


class Csv(Settings, group="logger"):
    """metrics.csv alone."""

    name: Literal["csv"] = Field("csv", description="where metrics go besides metrics.csv")


LOGGERS: dict[str, type[Settings]] = {"wandb": Wandb, "csv": Csv}


class Training(Settings):
    """All that `fit` takes of a run; `generation` and `config` are plain values for checkpoints and W&B."""

    name: Text
    seed: int = Field(ge=0)
    max_steps: Positive
    tokens_per_step: Positive
    shape: Shape
    trainer: Trainer
    optim: Annotated[Optimizer, Chosen(OPTIMIZERS, "optim")]
    schedule: Annotated[Schedule, Chosen(SCHEDULES, "schedule")]
    callbacks: Annotated[Callbacks, Made(Callbacks.with_registered)]
    logger: Annotated[Settings, Chosen(LOGGERS, "logger")]
    generation: dict[str, Any]
    config: dict[str, Any] = Field({})

    def batch(self) -> dict[str, Any]:
        """The settings that `divide` turns into micro-batches and accumulation."""
        t = self.trainer
        return {"tokens_per_step": self.tokens_per_step, "micro_batch": t.micro_batch, "micro_batch_tokens": t.micro_batch_tokens}
