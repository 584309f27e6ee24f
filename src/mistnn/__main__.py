"""``python -m mistnn``: the command ``mist``."""

import sys

from mistnn.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
