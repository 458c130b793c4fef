"""Where the package's own files lie, in a clone and when it is installed."""

from pathlib import Path

PACKAGE = Path(__file__).parent


def conf_folder() -> Path:
    """The folder of configuration files: inside an installed package, beside it in a clone."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parent / "conf"
