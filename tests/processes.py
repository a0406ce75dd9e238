"""Children of the tests: forked ones that call a function, and fresh ones that run a text."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

fork_warning = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def child_result(function) -> int:
    """Exit status of a forked child that calls `function`: 0 if it returned true; a child that hangs is killed."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        status = 1
        with contextlib.suppress(BaseException):
            status = 0 if function() else 2
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fresh(code: str, **environment: str) -> str:
    """What a new process prints that runs `code`, in which every warning is an error."""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout
