"""`python -m cngpt`: the same command as `cngpt` and `python run.py`."""

import sys

from cngpt.cli import main

if __name__ == "__main__":
    sys.exit(main())
