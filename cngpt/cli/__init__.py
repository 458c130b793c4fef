"""Between the command line and the tasks: composition, help, errors in one line."""

from cngpt.cli.main import main

__all__ = ["main"]
