"""What is wrong in a configuration file of the user's own is one line, as on the command line."""

import re

import pytest

from tests.commands import run

HEAD = "# @package _global_\n# mine\n"
WRONG = [
    ("fast_dev_run: true", "fast_dev_run: no such group or key"),
    ("max_step: 3", "max_step: no such group or key. Did you mean max_steps"),
    ("logger: {grup: x}", "logger.grup: no such key; logger takes"),
    ("model: {n_layers: 3}", "model.n_layers: no such key.*Did you mean n_layer"),
    ("generation: {topp: 0.5}", "generation.topp: no such key.*Did you mean top_p"),
    ("generation: {nucleus: gpt2ml}", "generation.nucleus: .*generation.compat=gpt2ml"),
    ('optim: {lr: "1e-3"}', "optim.lr=1e-3: a number above 0 is needed"),
    ("optim: 3", "optim"),
    ("trainer: {devices: two}", "trainer.devices=two: a whole number above 0, or auto is needed"),
    ("data: {sources: [{reader: files}]}", "data.sources: .* is no mapping with the texts reader and root"),
    ("optim:\n\tlr: 1", "mine/experiment/own.yaml, line 4: is no YAML .*indent with spaces"),
    ("seed：3\nmax_steps: 4", "mine/experiment/own.yaml, line 3: is no YAML .*full-width"),
    ("max_steps: 5\n- a", "mine/experiment/own.yaml, line \\d: is no YAML"),
]


@pytest.mark.parametrize("text, line", WRONG, ids=lambda text: text.split(":")[0])
@pytest.mark.parametrize("how", ["--config-dir=mine", "hydra.searchpath=[mine]"])
def test_a_mistake_in_ones_own_file_is_one_line(text, line, how, tmp_path):
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/own.yaml").write_text(HEAD + text + "\n", encoding="utf-8")
    done = run(how, "experiment=own", cwd=tmp_path, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert re.fullmatch(f"error: .*{line}.*\n", done.stderr), done.stderr


def test_a_file_in_another_encoding_is_named(tmp_path):
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/own.yaml").write_bytes((HEAD + "name: 我的\n").encode("gb18030"))
    done = run("--config-dir=mine", "experiment=own", cwd=tmp_path, check=False)
    assert done.returncode == 2 and "own.yaml: is no UTF-8 text" in done.stderr and "Traceback" not in done.stderr


def test_the_rules_and_machines_of_ones_own_are_found(tmp_path):
    for path, text in {
        "data/mine.yaml": "# mine\ndefaults: [files, _self_]\nname: mine\n",
        "clean/mine.yaml": "# mine\ndefaults: [web, _self_]\nmin_chars: 77\n",
        "hardware/own.yaml": "# mine\ndefaults: [h100, _self_]\nname: mine\ndevices: 2\n",
    }.items():
        (tmp_path / "mine" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / path).write_text(text)
    shown = run("--config-dir=mine", "data=mine", "data.root=texts", "--cfg", "job", "-p", "clean", cwd=tmp_path).stdout
    assert "min_chars: 77" in shown
    table = run("--config-dir=mine", "task=plan", "hardware=own", cwd=tmp_path).stdout
    assert "2 x mine" in table and "ddp" in table
