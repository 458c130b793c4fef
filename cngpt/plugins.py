"""Files of the user's own, which add a block, a task, a reader, a cleaning rule, a callback or a strategy to the rooms' registries.

python run.py --config-dir mine 'plugins=[mine/toy.py]' model=toy
"""

import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from cngpt.errors import ConfigError, first_line

VARIABLE = "CNGPT_PLUGINS"  # of the environment: processes that this one starts load the same files


def load(paths: Iterable[str]) -> None:
    """Runs each file once. ConfigError where one is missing or cannot be run."""
    resolved = [str(Path(path).expanduser().resolve()) for path in paths]
    for path in resolved:
        _run(path)
    if resolved:
        os.environ[VARIABLE] = os.pathsep.join(resolved)


def load_from_environment() -> None:
    """In a process that another one started: what that one had loaded."""
    load(path for path in os.environ.get(VARIABLE, "").split(os.pathsep) if path)


def _run(path: str) -> None:
    # a class travels to another process by the name of its module, so that is the same there
    name = f"cngpt_plugin_{hashlib.sha256(path.encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return
    if not os.path.isfile(path):
        raise ConfigError(f"plugins: there is no file {path}")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(Path(path).parent)
    if folder not in sys.path:
        sys.path.append(folder)  # it may import what lies beside it
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ConfigError(f"plugins: {path} cannot be run: {type(error).__name__}: {first_line(error)}") from None
