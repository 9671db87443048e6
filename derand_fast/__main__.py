"""``python -m derand_fast``: the same as the command ``derand-fast``."""

import sys

from derand_fast.cli import main

if __name__ == "__main__":
    sys.exit(main())
