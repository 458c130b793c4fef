"""A wheel, an sdist, an editable install and a bare clone all give the command, in any folder; nothing here needs a network."""

import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.commands import environment
from tests.conftest import ROOT

SOURCES = ("cngpt", "conf", "run.py", "pyproject.toml", "README.md", "LICENSE")
HOOK = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
# an index is never asked: setuptools and all dependencies are those of this environment
OFFLINE = ("--quiet", "--no-index", "--no-deps")


def call(*command, cwd: Path, input: str = "") -> str:
    """The standard output of a command that must succeed."""
    command = [str(word) for word in command]
    done = subprocess.run(
        command, cwd=cwd, input=input, capture_output=True, text=True, env=environment(PYTHONPATH=""), timeout=280
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A copy of the sources, because a build leaves files in their folder."""
    folder = tmp_path_factory.mktemp("clone")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheels(clone, tmp_path_factory) -> dict[str, Path]:
    """The wheel that pip makes of the sources, of the sdist, and for an editable install."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("wheel", "sdist", "editable", "archive")}
    call(sys.executable, "-c", HOOK, "build_sdist", folders["archive"], cwd=clone)
    call(sys.executable, "-c", HOOK, "build_editable", folders["editable"], cwd=clone)
    for kind, source in (("wheel", clone), ("sdist", next(folders["archive"].iterdir()))):
        call(*PIP, "wheel", *OFFLINE, "--no-build-isolation", "-w", folders[kind], source, cwd=clone)
    return {kind: next(folders[kind].iterdir()) for kind in ("wheel", "sdist", "editable")}


def install(wheel: Path, folder: Path) -> Path:
    """The bin/ of a fresh environment that holds this wheel and sees the packages of the present one."""
    venv.create(folder, symlinks=True)
    call(*PIP, "--python", folder / "bin/python", "install", *OFFLINE, wheel, cwd=folder)
    # only now, or pip would find the present environment's cngpt and take it for an older version to replace
    packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages(folder) / "present_environment.pth").write_text("\n".join(packages))
    return folder / "bin"


def site_packages(folder: Path) -> Path:
    return next(folder.glob("lib/python*/site-packages"))


def test_every_package_is_listed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    folders = [path.parent.relative_to(ROOT) for path in (ROOT / "cngpt").rglob("__init__.py")]
    assert listed == sorted([*(".".join(folder.parts) for folder in folders), "cngpt.conf"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_a_wheel_carries_every_file_of_the_package_and_conf_inside_it(wheels, kind):
    files = [path.relative_to(ROOT) for top in ("cngpt", "conf") for path in (ROOT / top).rglob("*") if path.is_file()]
    expected = {(Path("cngpt") / path if path.parts[0] == "conf" else path).as_posix() for path in files if path.suffix != ".pyc"}
    carried = {name for name in zipfile.ZipFile(wheels[kind]).namelist() if ".dist-info/" not in name}

    assert carried == expected
    assert {
        "cngpt/__main__.py",
        "cngpt/conf/config.yaml",
        "cngpt/conf/model/1.5b.yaml",
        "cngpt/corpus/sample/nlp_chinese_corpus/wiki_zh/AA/wiki_00",
        "cngpt/interop/huggingface/remote/modeling_cngpt.py",
        "cngpt/py.typed",
        "cngpt/tokens/hanzi/tokenizer.json",
    } <= carried


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist", "editable", "clone"])
def test_the_command_finds_its_configuration_from_an_empty_folder(clone, wheels, tmp_path, kind):
    empty = tmp_path / "empty"
    empty.mkdir()
    where = "import cngpt.installed; print(cngpt.installed.conf_folder())"
    if kind == "clone":
        conf = call(sys.executable, "-c", where, cwd=clone)
        pages = [
            call(sys.executable, clone / "run.py", "--help", cwd=empty),
            call(sys.executable, "-m", "cngpt", "--help", cwd=clone),
        ]
    else:
        binaries = install(wheels[kind], tmp_path / "venv")
        conf = call(binaries / "python", "-c", where, cwd=empty)
        pages = [call(binaries / "cngpt", "--help", cwd=empty), call(binaries / "python", "-m", "cngpt", "--help", cwd=empty)]

    inside = kind in ("wheel", "sdist")
    assert Path(conf.strip()) == (site_packages(tmp_path / "venv") / "cngpt/conf" if inside else clone / "conf")
    # the page lists what lies in conf/model
    assert "1.5b" in pages[0]
    assert pages[0] == pages[1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_installed_wheel_trains_and_generates_in_an_empty_folder(wheels, tmp_path):
    command = install(wheels["wheel"], tmp_path / "venv") / "cngpt"
    empty = tmp_path / "empty"
    empty.mkdir()

    call(command, "max_steps=20", "logger=csv", cwd=empty)
    assert len(list(empty.glob("runs/*/model/tokenizer.json"))) == 1
    assert "双十一" in call(command, "task=generate", cwd=empty, input="双十一\n")
