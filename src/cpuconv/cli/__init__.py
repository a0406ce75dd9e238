"""The command line ``cpuconv``. This module imports nothing of the extra ``cli``, so that it can say when that is missing."""

from __future__ import annotations

import sys

EXTRA = ("click", "rich", "PIL", "matplotlib")


def main() -> int:
    """Run the command line on ``sys.argv``; return or exit with its status."""
    try:
        from cpuconv.cli.app import app

        app(prog_name="cpuconv")
    except ModuleNotFoundError as e:
        if (e.name or "").partition(".")[0] not in EXTRA:
            raise
        print("the command line needs its extra: pip install 'cpuconv[cli]'", file=sys.stderr)
        return 1
    return 0
