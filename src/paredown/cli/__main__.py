"""`python -m paredown.cli`: the same as the `paredown` command."""

import sys

from ._main import main

if __name__ == "__main__":
    sys.exit(main())
