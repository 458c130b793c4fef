"""Between the command line and the tasks: our help page, checks of a composed configuration, errors in one line."""

from cngpt.cli.main import main

__all__ = ["main"]
