"""Who may import whom, read from the imports themselves."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = [
    {"errors"},
    {"bar", "files", "page"},
    {"pieces"},
    {"tokens", "model", "plan"},
    {"corpus", "store"},
    {"generation"},
    {"training"},
    {"evaluation", "interop", "reporting", "serving", "bench"},
    {"tasks"},
    {"cli"},
]
ALSO = {"corpus": {"tokens"}, "store": {"pieces", "tokens", "model"}}  # where a floor may see only some of those below
NO_TORCH = {"corpus", "tokens", "plan", "cli"}


def imports(path: Path) -> set[str]:
    """Names of modules imported anywhere in a file, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "cngpt" else {node.module}
    return found


def room(path: Path) -> str:
    return path.relative_to(ROOT / "cngpt").parts[0].removesuffix(".py")


FILES = [p for p in sorted((ROOT / "cngpt").rglob("*.py")) if p != ROOT / "cngpt/__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT / "cngpt")))
def test_imports_go_down_only(path):
    here = room(path)
    floor = next(n for n, rooms in enumerate(FLOORS) if here in rooms)
    below = set().union(*FLOORS[:floor]) if here not in ALSO else FLOORS[0] | FLOORS[1] | ALSO[here]
    for name in imports(path):
        if name.startswith("cngpt."):
            assert name.split(".")[1] in below | {here}, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", [p for p in FILES if room(p) in NO_TORCH], ids=lambda p: str(p.relative_to(ROOT / "cngpt")))
def test_text_rooms_never_import_torch(path):
    if path.name == "machine.py":
        pytest.skip("asks torch about GPUs, where the machine has any")
    assert not {n.split(".")[0] for n in imports(path)} & {"torch", "pytorch_lightning", "wandb"}


def test_a_module_of_the_model_sees_no_lightning_no_hydra_and_prints_nothing():
    for path in (ROOT / "cngpt/model").glob("*.py"):
        assert not {n.split(".")[0] for n in imports(path)} & {"pytorch_lightning", "hydra", "omegaconf", "os"}
        assert "print(" not in path.read_text()
    assert not {n.split(".")[0] for n in imports(ROOT / "cngpt/training/module.py")} & {"hydra", "omegaconf", "wandb", "pathlib"}


def test_only_tasks_and_cli_see_the_configuration():
    for path in FILES:
        if room(path) not in ("tasks", "cli"):
            assert not {n.split(".")[0] for n in imports(path)} & {"hydra", "omegaconf"}, path


def test_importing_cngpt_is_light():
    code = "import sys, cngpt, cngpt.cli, cngpt.tasks; print([m for m in ('torch', 'pytorch_lightning', 'wandb', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout.strip() == "[]"
