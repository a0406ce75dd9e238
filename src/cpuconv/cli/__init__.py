"""The command line ``cpuconv``. This module imports nothing of the extra ``cli``, so that it can say when that is missing."""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130  # as shells have it
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
    except SystemExit as e:
        if e.code == INTERRUPTED:
            # CPython would end itself by SIGINT if the interrupt had passed through an exec(), as the imports of libraries do.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(INTERRUPTED)
        raise
    return 0
