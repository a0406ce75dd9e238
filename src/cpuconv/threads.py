"""How many threads a call may use. The threads themselves are the native pool's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from cpuconv import cpu
from cpuconv._native import core

SECONDS_A_THREAD = 2e-6
"""Work below which one more thread costs more than it brings: starting and awaiting one that is awake takes a microsecond."""

SECONDS_TO_WAKE = 25e-6
"""The same of threads that sleep: waking one takes up to 15 microseconds in a virtual machine."""

_default: int | None = None
_override: ContextVar[int | None] = ContextVar("cpuconv_threads", default=None)


def _checked(n: int, name: str) -> int:
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"{name}: must be an int, got {type(n).__name__}")
    if n < 1:
        raise ValueError(f"{name}: {n} must be at least 1")
    return n.__index__()


def get_num_threads() -> int:
    """Return the largest number of threads that a call from here may use.

    Unless set, it is ``CPUCONV_NUM_THREADS`` or the number of cores that this process may use.

    Examples
    --------
    >>> with threads(1):
    ...     get_num_threads()
    1
    """
    global _default
    if (n := _override.get()) is not None:
        return n
    if _default is None:
        text = os.environ.get("CPUCONV_NUM_THREADS")
        if text is not None and not text.isdecimal():
            raise ValueError(f"CPUCONV_NUM_THREADS: {text!r} must be a whole number")
        _default = cpu.detect().cores if text is None else _checked(int(text), "CPUCONV_NUM_THREADS")
    return _default


def set_num_threads(n: int) -> int:
    """Set the largest number of threads that calls may use, for all Python threads, and return the old value.

    Raises
    ------
    ValueError, TypeError
        If `n` is not a positive integer.
    """
    global _default
    n, old = _checked(n, "n"), get_num_threads()
    _default = n
    return old


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Limit the threads of calls inside the block, in this Python thread (or task) only.

    Examples
    --------
    >>> with threads(2):
    ...     get_num_threads()
    2
    """
    token = _override.set(_checked(n, "n"))
    try:
        yield
    finally:
        _override.reset(token)


def for_work(seconds: float) -> int:
    """Threads that work of so many single-threaded seconds is worth."""
    if seconds < 2 * SECONDS_A_THREAD or (most := get_num_threads()) == 1:
        return 1
    if seconds >= most * SECONDS_TO_WAKE:
        return most
    each = SECONDS_A_THREAD if core.awake() else SECONDS_TO_WAKE
    return max(1, min(most, int(seconds / each)))
