"""The structure of the package, read from its files: who imports whom, what is named where, how long things are."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from cngpt.cli.compose import register_resolvers
from cngpt.settings import keys_of

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cngpt"
FLOORS = [
    {"errors"},
    {"installed", "settings", "hosts", "progress", "html", "plugins"},
    {"files"},
    {"runs"},
    {"tokens", "model", "plan"},
    {"corpus", "checkpoints"},
    {"generation"},
    {"training"},
    {"evaluation", "interop", "reporting", "serving", "bench"},
    {"tasks"},
    {"cli", "__main__"},
]
GROUND = set().union(*FLOORS[:4])
# where a room may see only some of those below, or a part of one beside it
ONLY = {
    "tokens": GROUND,
    "model": GROUND,
    "plan": GROUND | {"model.shape"},
    "corpus": GROUND | {"tokens"},
    "checkpoints": GROUND | {"tokens", "model"},
}
NO_TORCH = {"corpus", "tokens", "plan", "cli", "tasks"}
LONGEST_FUNCTION, LONGEST_FILE = 60, 400
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def name_of(path: Path) -> str:
    """cngpt.files.atomic; a package by its own name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    return module.split(".")[1]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@cache
def imports(path: Path) -> frozenset[str]:
    """Modules imported anywhere in a file, inside functions too; not those for type checkers alone."""
    found, waiting = set(), [tree(path)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in below if name in MODULES} | ({node.module} if below - MODULES.keys() else set())
        elif _is_for_types_only(node):
            continue
        waiting += ast.iter_child_nodes(node)
    return frozenset(found)


MODULES = {name_of(path): path for path in FILES} | {"cngpt": PACKAGE / "__init__.py"}


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.startswith("cngpt.")}


def relative(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_imports_go_down_only(path):
    here = room(name_of(path))
    floor = next(n for n, rooms in enumerate(FLOORS) if here in rooms)
    below = ONLY.get(here, set().union(*FLOORS[:floor]))
    for name in ours(path):
        if room(name) != here and here != "__main__":
            assert room(name) in below or name.removeprefix("cngpt.") in below, f"{path.name} imports {name}"


def test_no_files_import_each_other_in_a_circle():
    edges = {name: {other for other in ours(path) if other in MODULES and other != name} for name, path in MODULES.items()}
    done: set[str] = set()

    def walk(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above[above.index(name) :], name])
        if name not in done:
            for other in sorted(edges[name]):
                walk(other, (*above, name))
            done.add(name)

    for name in sorted(edges):
        walk(name, ())


@pytest.mark.parametrize("path", [p for p in FILES if room(name_of(p)) in NO_TORCH], ids=relative)
def test_text_rooms_never_import_torch(path):
    if path == PACKAGE / "tasks/command.py":  # asks where a model computes
        return
    assert not {name.split(".")[0] for name in imports(path)} & {"torch", "pytorch_lightning", "wandb"}


def test_a_module_of_the_model_sees_no_lightning_no_hydra_and_prints_nothing():
    for path in (PACKAGE / "model").glob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & {"pytorch_lightning", "hydra", "omegaconf", "os"}
        assert "print(" not in path.read_text()
    assert "torch" not in {name.split(".")[0] for name in imports(PACKAGE / "model/shape.py")}
    module = {name.split(".")[0] for name in imports(PACKAGE / "training/module.py")}
    assert not module & {"hydra", "omegaconf", "wandb", "pathlib"}


def test_only_tasks_and_cli_see_the_configuration():
    for path in FILES:
        if room(name_of(path)) not in ("tasks", "cli"):
            assert not {name.split(".")[0] for name in imports(path)} & {"hydra", "omegaconf"}, path


def test_importing_cngpt_is_light():
    code = "import sys, cngpt, cngpt.cli, cngpt.tasks; print([m for m in ('torch', 'pytorch_lightning', 'wandb', 'matplotlib', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout.strip() == "[]"


# ── facts with one owner


def string_literals(path: Path) -> list[str]:
    """All of a file's but its docstrings."""
    docs = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                docs.add(first.value)
    return [n.value for n in ast.walk(tree(path)) if isinstance(n, ast.Constant) and isinstance(n.value, str) and n not in docs]


def test_the_names_in_a_run_directory_are_spelled_in_one_file():
    names = re.compile(r"^(checkpoints|metrics\.csv|samples\.jsonl|wandb_run_id|step_\S*)$|^step_.*\.ckpt$")
    for path in FILES:
        if path != PACKAGE / "runs.py":
            assert not [text for text in string_literals(path) if names.match(text)], path


XLA_LIVES = ("training/strategies/xla", "training/strategies/__init__.py", "checkpoints/", "generation/fixed_shapes.py", "plan/")


def test_the_word_xla_stands_only_where_it_lives():
    for path in FILES:
        if not relative(path).startswith(XLA_LIVES):
            for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                assert not re.search("xla(?!bel)", line.lower()), f"{path}:{n}"


def test_nobody_asks_a_strategy_what_it_has():
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("hasattr", "getattr"):
                assert "strategy" not in ast.unparse(node.args[0]), f"{path}: {ast.unparse(node)}"


def groups_of_conf() -> set[str]:
    return {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}


def test_cli_names_no_key_of_a_room():
    from cngpt import tasks

    register_resolvers()
    keys = {key for key, _, _ in keys_of(tasks.find("train").Keys) if "." in key}
    for path in (PACKAGE / "cli").glob("*.py"):
        for text in string_literals(path):
            if "\n" not in text:  # examples of the help page
                assert not {key for key in keys if key in text}, f"{path}: {text}"


# ── size


def functions(path: Path) -> list[tuple[str, int]]:
    found = [n for n in ast.walk(tree(path)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [(node.name, node.end_lineno - node.lineno + 1) for node in found]


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_functions_and_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE
    assert not [(name, lines) for name, lines in functions(path) if lines > LONGEST_FUNCTION]
