"""The log that ``CPUCONV_VERBOSE=1`` turns on: one line on standard error for each plan made."""

import os
import sys


def log(message: str) -> None:
    if os.environ.get("CPUCONV_VERBOSE", "0") not in ("", "0"):
        print(f"cpuconv: {message}", file=sys.stderr)
