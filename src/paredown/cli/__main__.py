"""Entry of `python -m paredown.cli`, which is the same as the command `paredown`."""

import sys

from ._main import main

if __name__ == "__main__":
    sys.exit(main())
