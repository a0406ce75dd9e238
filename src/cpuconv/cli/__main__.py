"""``python -m cpuconv.cli``: the command line."""

import sys

from cpuconv.cli import main

if __name__ == "__main__":
    sys.exit(main())
