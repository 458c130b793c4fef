"""A block, a task, a reader, a cleaning rule, a callback and a strategy, each added from a folder of its own: a file of Python and a
file of YAML, and a command that uses it. Nothing in the package is touched."""

import json
from pathlib import Path

import pytest

from tests.commands import run

SMALL = [
    "model.n_layer=1", "model.width=16", "model.n_head=2", "model.n_ctx=32", "tokens_per_step=128", "max_steps=4", "logger=csv",
    "callbacks.validation.windows=2", "callbacks.samples.new_tokens=4", "trainer.precision=32-true",
]  # fmt: skip


@pytest.fixture
def own(tmp_path):
    """own(group, yaml, python): writes the files of a plugin named toy; the words that a command needs to see it."""

    def write(group: str, yaml: str, python: str) -> list[str]:
        folder = tmp_path / "mine" / group
        folder.mkdir(parents=True)
        (folder / "toy.yaml").write_text(yaml, encoding="utf-8")
        (tmp_path / "mine/toy.py").write_text(python, encoding="utf-8")
        return ["--config-dir", "mine", "plugins=[mine/toy.py]"]

    return write


BLOCK = '''
"""A block without attention: each token is seen through an MLP alone."""

import torch.nn.functional as F
from torch import nn

from cngpt.model.gpt import BLOCKS, Block
from cngpt.model.shape import LAYOUTS, Layout, linear


class ToyLayout(Layout):
    attention_dropout = embedding_dropout = False
    saved_by_attention, saved_by_mlp, saved_sums = 0, 3, 1
    cut_by_columns, cut_by_rows, looked_up = (), (), ()

    @staticmethod
    def before(shape):
        return {}

    @staticmethod
    def block(shape):
        return linear("up", shape.width, 2 * shape.width) | linear("down", 2 * shape.width, shape.width)

    @staticmethod
    def after(shape):
        return {}

    @staticmethod
    def mlp_width(shape):
        return 2 * shape.width


class Toy(Block):
    def __init__(self, s):
        super().__init__()
        self.up, self.down = nn.Linear(s.width, 2 * s.width), nn.Linear(2 * s.width, s.width)

    def forward(self, x, layer, positions, mask, cache=None):
        return x + self.down(F.relu(self.up(x)))

    @staticmethod
    def before(s):
        return {}

    @staticmethod
    def after(s):
        return {}

    @staticmethod
    def embed(gpt, ids, positions):
        return gpt.tok(ids)

    @staticmethod
    def finish(gpt, x):
        return x

    def init_weights(self, s):
        for module in (self.up, self.down):
            nn.init.normal_(module.weight, std=s.initializer_range)

    @staticmethod
    def init_embedding(weight, s):
        nn.init.normal_(weight, std=s.initializer_range)


LAYOUTS["toy"], BLOCKS["toy"] = ToyLayout, Toy
'''


def test_a_block_is_planned_trained_checkpointed_and_generated_with(own, tmp_path):
    words = own("model", "# a toy\ndefaults: [tiny, _self_]\nblock: toy\n", BLOCK)
    small = [*words, *SMALL, "model=toy", "trainer=cpu"]
    plan = json.loads(run("task=plan", *small, "hardware=cpu", "out=-", cwd=tmp_path).stdout)
    parameters = 8704 * 16 + 2 * (2 * 16 * 16) + 2 * 16 + 16
    assert plan["parameters"] == parameters
    done = run(*small, "name=a", cwd=tmp_path)
    assert f"{parameters:,} parameters" in done.stderr and (tmp_path / "runs/a/checkpoints/step_00000004.ckpt").is_file()
    again = run(*small, "name=a", "max_steps=5", cwd=tmp_path)
    assert "goes on from step 4" in again.stderr
    write = [*words, "task=generate", "generation.max_new_tokens=4", 'prompt="双十一"']
    for path in ("runs/a/model", "runs/a/checkpoints/step_00000004.ckpt"):
        assert run(*write, f"ckpt={path}", cwd=tmp_path).stdout.startswith("双十一")
    refused = run(*words, "task=export", "ckpt=runs/a", cwd=tmp_path, check=False)
    assert refused.returncode == 2 and "block=toy cannot be exported" in refused.stderr
    unknown = run("task=generate", "ckpt=runs/a/model", 'prompt="a"', cwd=tmp_path, check=False)
    assert unknown.returncode == 2 and "model.block=toy: one of preln, gpt2ml" in unknown.stderr


TASK = """
from types import SimpleNamespace

from cngpt.settings import Field, Positive
from cngpt.tasks import REGISTERED
from cngpt.tasks.command import Common


class Keys(Common):
    times: Positive = Field(2, description="how often it is said")


def run(command):
    print(command.settings.data.name * command.settings.times)


REGISTERED["toy"] = SimpleNamespace(Keys=Keys, READS=("data",), HANDLES_SIGNALS=False, run=run)
"""


def test_a_task(own, tmp_path):
    words = [*own("task", "# @package _global_\n# says a word\ntask: toy\ntimes: 2\n", TASK), "task=toy"]
    assert run(*words, "times=3", cwd=tmp_path).stdout == "samplesamplesample\n"
    wrong = run(*words, "times=0", cwd=tmp_path, check=False)
    assert wrong.returncode == 2 and wrong.stderr == "error: times=0: must be above 0\n"


READER = '''
from cngpt.corpus.document import Document
from cngpt.corpus.readers import READERS, Files


class Shouted(Files):
    """Every text with an exclamation mark at its end."""

    def documents_of(self, raw, skipped, progress=lambda _: None):
        for document in super().documents_of(raw, skipped, progress):
            yield Document(document.text + "！", document.title, document.source, document.id)


READERS["shouted"] = Shouted
'''


def test_a_reader(own, tmp_path):
    yaml = '# a toy\nname: shouted\nroot: ${needed:data.root}\nvalid_fraction: 0.5\nsources:\n  - {reader: shouted, root: "${data.root}"}\n'
    words = own("data", yaml, READER)
    (tmp_path / "texts").mkdir()
    for n, text in enumerate(
        ["春天来了，花都开了，鸟也叫了起来，人们走出了家门。", "秋天到了，叶子黄了，天气一天比一天凉，大雁往南飞。"]
    ):
        (tmp_path / f"texts/{n}.txt").write_text(text, encoding="utf-8")
    shown = run(*words, "task=prepare", "data=toy", "data.root=texts", "inspect=2", cwd=tmp_path).stdout
    assert shown.count("。！") == 4  # before and after cleaning
    shards = Path(run(*words, "task=prepare", "data=toy", "data.root=texts", cwd=tmp_path).stdout.strip())
    assert (tmp_path / shards / "train/manifest.json").is_file() and shards.name.startswith("shouted-hanzi-")


RULE = '''
from cngpt.corpus.clean import RuleWithThresholds, register_rule
from cngpt.settings import Field


class Shout(RuleWithThresholds, name="shout"):
    """Full stops become so many exclamation marks."""

    marks: int = Field(1, ge=1, description="for each full stop")

    def __call__(self, text):
        return text.replace("。", "！" * self.marks)


register_rule("shout", Shout)
'''


def test_a_cleaning_rule(own, tmp_path):
    words = [*own("clean", "# a toy\ndefaults: [basic, _self_]\nshout: {marks: 2}\n", RULE), "task=prepare", "clean=toy"]
    shown = run(*words, "inspect=3", cwd=tmp_path).stdout
    assert "！！" in shown
    run(*words, "prepare.processes=2", cwd=tmp_path)
    report = json.loads(next((tmp_path / "data").glob("sample-hanzi-*/report.json")).read_text())
    assert "shout" in json.dumps(report["rules"])
    wrong = run(*words, "clean.shout.marks=0", cwd=tmp_path, check=False)
    assert wrong.returncode == 2 and wrong.stderr == "error: clean.shout.marks=0: must be 1 or more\n"


CALLBACK = """
import pytorch_lightning as pl

from cngpt.settings import Field, Positive
from cngpt.training.settings import CALLBACKS, CallbackSettings


class Notes(pl.Callback):
    def __init__(self, every, path):
        self.every, self.path = every, path

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step % self.every == 0:
            with open(self.path, "a") as file:
                file.write(f"{trainer.global_step}\\n")


class NotesSettings(CallbackSettings, group="callbacks.notes"):
    every: Positive = Field(1, description="steps from one note to the next")

    def build(self, context):
        return Notes(self.every, context.run.folder / "notes.txt")


CALLBACKS["notes"] = NotesSettings
"""


def test_a_callback(own, tmp_path):
    words = own("callbacks", "# a toy\ndefaults: [quiet, _self_]\nnotes: {every: 2}\n", CALLBACK)
    run(*words, *SMALL, "callbacks=toy", "trainer=cpu", "name=a", cwd=tmp_path)
    assert (tmp_path / "runs/a/notes.txt").read_text() == "2\n4\n"
    wrong = run(*words, *SMALL, "callbacks=toy", "callbacks.notes.every=x", cwd=tmp_path, check=False)
    assert wrong.returncode == 2 and "callbacks.notes.every=x: a whole number above 0 is needed" in wrong.stderr


STRATEGY = '''
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy

from cngpt.plan import strategies as plan
from cngpt.training import strategies as training
from cngpt.training.checkpoint import AnyLayout
from cngpt.training.strategies.base import Strategy


class Planned(plan.Strategy):
    """One device that keeps every weight twice."""

    def buffers(self, s):
        return sum(self.states(s)[:1])

    def refuses(self, name, s):
        return f"trainer.strategy={name} takes one device" if (s.devices or 1) > 1 else super().refuses(name, s)


class Trained(Strategy, SingleDeviceStrategy):
    @staticmethod
    def plugins():
        return [AnyLayout()]

    def clip_gradients(self, module, limit):
        return 10 * super().clip_gradients(module, limit)


plan.STRATEGIES["toy"] = Planned()
training.STRATEGIES["toy"] = lambda trainer: Trained(device=torch.device("cpu"))
'''


def test_a_strategy(own, tmp_path):
    words = own("trainer", "# a toy\ndefaults: [cpu, _self_]\nstrategy: toy\n", STRATEGY)
    planned = run(*words, "task=plan", "model=mini", "trainer=toy", "hardware=cpu", "out=-", cwd=tmp_path)
    alone = run("task=plan", "model=mini", "trainer=cpu", "hardware=cpu", "out=-", cwd=tmp_path)
    memory, single = (json.loads(done.stdout)["memory"] for done in (planned, alone))
    assert memory["buffers"] == single["buffers"] + single["weights"]
    refused = run(*words, *SMALL, "trainer=toy", "trainer.devices=2", cwd=tmp_path, check=False)
    assert refused.returncode == 2 and refused.stderr.endswith("error: trainer.strategy=toy takes one device\n")

    from cngpt.training.tracking import read_metrics

    for trainer in ("toy", "cpu"):
        run(
            *(words if trainer == "toy" else []),
            *SMALL,
            f"trainer={trainer}",
            f"name={trainer}",
            "callbacks.log_every=1",
            cwd=tmp_path,
        )
    norms = [
        [row["grad_norm"] for row in read_metrics(tmp_path / f"runs/{name}/metrics.csv") if "loss" in row]
        for name in ("toy", "cpu")
    ]
    assert norms[0] == pytest.approx([10 * norm for norm in norms[1]])
