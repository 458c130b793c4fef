"""The one command of cngpt: `python run.py --help` says what it takes."""

import sys

from cngpt.cli import main

if __name__ == "__main__":
    sys.exit(main())
