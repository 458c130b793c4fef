"""conf/: everything composes, says what it is for, and tells the truth about numbers."""

import itertools
import json
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cngpt import tasks
from cngpt.cli.compose import register_resolvers
from cngpt.cli.help import choices, first_comment, value_of
from cngpt.model.shape import Shape, parameters
from cngpt.settings import keys_of

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"
GROUPS = sorted(p.name for p in CONF.iterdir() if p.is_dir())
VOCABULARIES = {"bert": 21128, "clue": 8021, "mbert": 119547}
GIVEN = ["data.root=texts", "init=model", "ckpt=model"]  # keys that a user must give where a choice has no default
CONVERT = ["from=gpt2ml", "path=model.ckpt-100000"]  # with task=convert


@pytest.fixture(scope="module", autouse=True)
def hydra():
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def stems(group: str) -> list[str]:
    return [p.stem for p in choices(CONF / group)]


def resolved(overrides: list[str]) -> dict:
    return OmegaConf.to_container(
        compose("config", [*overrides, *GIVEN, *(CONVERT if "task=convert" in overrides else [])]), resolve=True
    )


@pytest.mark.parametrize("group, choice", [(g, c) for g in GROUPS if g != "hydra" for c in stems(g)])
def test_every_option_of_every_group_composes(group, choice):
    assert resolved([f"{group}={choice}"])["max_steps"] > 0


def test_all_pairs_of_model_trainer_and_data_compose():
    """Each pair of the two largest groups with a choice of the third that moves on, so that one composition shows three pairs."""
    groups = sorted(([f"{group}={choice}" for choice in stems(group)] for group in ("model", "trainer", "data")), key=len)
    third, *two = groups
    shown = set()
    for (i, a), (j, b) in itertools.product(*map(enumerate, two)):
        words = [a, b, third[(i + j) % len(third)]]
        assert resolved(words)
        shown.update(map(frozenset, itertools.combinations(words, 2)))
    assert shown == {frozenset(pair) for x, y in itertools.combinations(groups, 2) for pair in itertools.product(x, y)}


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda p: str(p.relative_to(CONF)))
def test_every_file_says_first_what_it_is_for_and_names_no_absolute_path(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[1 if "@package" in lines[0] else 0].startswith("# ") and len(first_comment(path)) > 10
    assert not re.search(r"(?<![\w}:.])/(home|work|tmp|data|mnt|root)\b", "\n".join(lines).replace("override /", ""))


@pytest.mark.parametrize("path", choices(CONF / "model"), ids=lambda p: p.stem)
def test_parameter_counts_in_model_files_are_true(path):
    from cngpt.model.gpt import GPT
    from cngpt.tokens import load_tokenizer

    sizes = VOCABULARIES | {"hanzi": load_tokenizer("hanzi").vocab_size}
    shape = {k: v for k, v in resolved([f"model={path.stem}"])["model"].items() if k != "recipe"}
    claims = re.findall(r"([\d,.]+)M parameters with (\w+)(?:, ([\d,.]+)M with (\w+))?", first_comment(path))
    assert claims
    for first, vocabulary, second, other in claims:
        for number, name in ((first, vocabulary), (second, other)):
            if number:
                true = parameters(Shape(vocab_size=sizes[name], **shape)) / 1e6
                digits = len(number.partition(".")[2])
                assert f"{true:,.{digits}f}" == number
    if shape["width"] < 800:
        whole = Shape(**shape, vocab_size=8021)
        assert GPT(whole).num_parameters() == parameters(whole)


def test_gpt2mls_sizes_are_gpt2mls(shared):
    import json

    for name, entry in json.loads(shared("golden/param_counts.json").read_text()).items():
        size = resolved([f"model=gpt2ml_{name.split('_')[0]}"])["model"]
        shape = {k: v for k, v in size.items() if k != "recipe"}
        assert parameters(Shape(vocab_size=entry["config"]["vocab_size"], **shape)) == entry["n_trainable_params"]
        assert shape["initializer_range"] == entry["config"]["initializer_range"]


def written_commands() -> list[tuple[str, str]]:
    """Every `python run.py ...` in the README, experiments/, docs and comments of conf/."""
    files = [ROOT / "README.md", *ROOT.glob("experiments/**/*.md"), *CONF.rglob("*.yaml"), ROOT / "cngpt/cli/help.py"]
    found = []
    for path in files:
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            for command in re.findall(r"python run\.py((?: [^`#\n(;&|]*)?)", line):
                command = re.split(r"\s{3,}| # ", command.strip())[0].rstrip(").,")
                if command and "=..." not in command and "--" not in command:
                    found.append((str(path.relative_to(ROOT)), command))
    return found


@pytest.mark.parametrize("where, command", written_commands())
def test_written_commands_compose(where, command):
    words = [re.sub(r"<[^>]*>", "x", w) for w in shlex.split(re.sub(r"<[^>]*>", "x", command)) if w != "-m"]
    words = [re.sub(r"=([^\[\"']*),.*", r"=\1", w) for w in words]  # the first value of a sweep
    assert resolved([w for w in words if "=" in w])


def leaves(config: dict, prefix: str = "") -> set[str]:
    """optim.lr and the like; a list is one leaf."""
    found = set()
    for key, value in config.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key}
    return found


@pytest.mark.parametrize("group, choice", [(g, c) for g in GROUPS if g != "hydra" for c in stems(g)])
def test_every_key_belongs_to_exactly_one_settings_class(group, choice):
    config = resolved([f"{group}={choice}"])
    owners = Counter(key for key, _, _ in keys_of(tasks.find(config["task"]).Keys, config))
    assert not [key for key, times in owners.items() if times > 1]
    for leaf in leaves(config):
        # a rule's thresholds and the weights of sources are values of one key
        parts = leaf.split(".")
        assert any(".".join(parts[:n]) in owners for n in range(1, len(parts) + 1)), leaf


# what differs on purpose from the configurations of November 2026 that tests/golden/configurations.json holds
CHANGED = {
    "generation.nucleus", "generation.stop", "generation.join", "generation.compat",  # one key instead of three
    "plugins",  # new
    "hardware.gpu",  # also the A800, and no GH200
    "trainer.precision",  # of trainer=cpu: auto, was 32-true
}  # fmt: skip
BEFORE = json.loads((ROOT / "tests/golden/configurations.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("words", BEFORE)
def test_commands_compose_to_the_values_of_before(words):
    config, before = OmegaConf.to_container(compose("config", words.split()), resolve=True), BEFORE[words]
    here = str(ROOT)
    config["data"] = json.loads(json.dumps(config["data"]).replace(here, "<here>"))
    for key in sorted(leaves(config) | leaves(before)):
        if key not in CHANGED:
            assert value_of(config, key) == value_of(before, key), key
    if config["trainer"]["precision"] != before["trainer"]["precision"]:
        assert (before["trainer"]["precision"], config["trainer"]["precision"], config["trainer"]["accelerator"]) == (
            "32-true",
            "auto",
            "cpu",
        )
