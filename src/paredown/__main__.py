"""Entry of `python -m paredown`, which is the same as the command `paredown`."""

from __future__ import annotations

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
