"""Wisdom, in FFTW's sense: measured seconds of algorithms on problems, which the planner trusts more than estimates.

`tune` gathers it and saves it, one JSON file for each CPU model and ISA, in ``CPUCONV_CACHE_DIR`` or the user's cache directory.
The planner reads that file when it makes its first plan. Any number of processes may tune at once: none loses another's figures.
All figures are for one image and one thread, so that the choice, and with it every bit of a result, depends on neither.
"""

from __future__ import annotations

import math
import os
import re
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cpuconv import cpu as cpu_module
from cpuconv.cpu import Cpu
from cpuconv.problem import Problem

# json, fcntl and platformdirs are imported where they are used: `import cpuconv` takes milliseconds.

FORMAT = 1

changes = 0
"""Counts the changes of what is known. Whoever keeps a plan keeps this number with it."""


class Measured(NamedTuple):
    """Seconds that one version of an algorithm took."""

    version: int
    seconds: float


Entries = dict[str, dict[str, Measured]]  # by key and name of algorithm


class _Unusable(Exception):
    """Why a file is not one of this CPU's wisdom."""


@dataclass
class _Store:
    """What is known of one CPU, and that part of it which its file lacks."""

    known: Entries = field(default_factory=dict)
    unsaved: Entries = field(default_factory=dict)


_stores: dict[Path, _Store] = {}
_reported: set[tuple[Path, str]] = set()
_lock = threading.RLock()


def path() -> Path:
    """Return the file that holds the wisdom for this CPU; it exists once something is saved.

    Examples
    --------
    >>> path().suffix
    '.json'
    """
    return _path(cpu_module.detect())


def save(path: str | os.PathLike[str] | None = None) -> Path:
    """Write what is known about this CPU to a file, and return its path. `tune` saves by itself.

    The file's own entries stay, unless newer ones replace them. A file that cannot be used is kept under the suffix ``.bad``.

    Parameters
    ----------
    path : path-like, optional
        By default this CPU's file; see `path`.

    Raises
    ------
    OSError
        If the file cannot be written; it is unchanged then.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     save(directory + "/wisdom.json").name
    'wisdom.json'
    """
    cpu = cpu_module.detect()
    store = _store(cpu)
    target = _path(cpu) if path is None else Path(path)
    pending: Entries = {}
    try:
        with _lock:
            if path is None:
                pending, store.unsaved = store.unsaved, {}
            else:
                pending = {key: dict(times) for key, times in store.known.items()}
        _update(target, cpu, lambda entries: _merge(entries, pending))
    except BaseException:
        if path is None:
            with _lock:
                store.unsaved = _merge(pending, store.unsaved)
        raise
    return target


def load(path: str | os.PathLike[str] | None = None) -> int:
    """Add the wisdom in a file to what is known, and return the number of problems read.

    This CPU's own file is read without being asked for, so this is for wisdom from elsewhere, and for what other processes
    have saved since. Plans made before are not used again: layers, too, choose anew at their next call.

    Parameters
    ----------
    path : path-like, optional
        By default this CPU's file, which may be missing.

    Raises
    ------
    FileNotFoundError
        If there is no file at the `path` given.

    Warns
    -----
    RuntimeWarning
        If the file is damaged, of another format or of another CPU; it is ignored then.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     load(save(directory + "/wisdom.json")) >= 0
    True
    """
    cpu = cpu_module.detect()
    store = _store(cpu)
    if path is not None and not Path(path).exists():
        raise FileNotFoundError(f"path: there is no file {os.fspath(path)!r}")
    entries = _read_or_report(_path(cpu) if path is None else Path(path), cpu)
    with _lock:
        _merge(store.known, entries)
        if path is not None:
            _merge(store.unsaved, entries)
        _changed()
    return len(entries)


def forget(spec: str | Problem | None = None) -> int:
    """Forget what was measured on a problem, or on all, in memory and in this CPU's file; return the number of problems.

    Raises
    ------
    ValueError
        If `spec` is malformed.
    OSError
        If the file cannot be written; what was in memory is forgotten all the same.

    Examples
    --------
    >>> forget("n1_ic3_ih9_iw9_oc5_kh3_kw3_s1_p1_d1_g1_f32_nchw")
    0
    """
    key = None if spec is None else _key(Problem.parse(spec) if isinstance(spec, str) else spec)
    cpu = cpu_module.detect()
    store = _store(cpu)
    forgotten: set[str] = set()

    def drop(entries: Entries) -> None:
        gone = [k for k in entries if key in (None, k)]
        forgotten.update(gone)
        for k in gone:
            del entries[k]

    with _lock:
        drop(store.known)
        drop(store.unsaved)
        _changed()
    if (file := _path(cpu)).exists():
        _update(file, cpu, drop)
    return len(forgotten)


def entries() -> Entries:
    """Return a copy of all that is known about this CPU: for each problem and number of threads, by algorithm, what was measured.

    Examples
    --------
    >>> all(m.seconds > 0 for times in entries().values() for m in times.values())
    True
    """
    store = _store(cpu_module.detect())
    with _lock:
        return {key: dict(times) for key, times in sorted(store.known.items())}


def measured(problem: Problem, cpu: Cpu) -> Mapping[tuple[str, int], float]:
    """Seconds for one image in one thread, by the name and the version of the algorithm."""
    store = _store(cpu)
    if not store.known or not nameable(problem):
        return {}
    with _lock:
        return {(name, m.version): m.seconds for name, m in store.known.get(_key(problem), {}).items()}


def record(problem: Problem, cpu: Cpu, times: Mapping[str, Measured]) -> None:
    """Remember measured seconds, and save them; where that fails, say so once and keep them in memory."""
    store = _store(cpu)
    addition: Entries = {_key(problem): dict(times)}
    with _lock:
        _merge(store.unsaved, addition)  # first, so that an interrupt leaves nothing that is known and never saved
        _merge(store.known, addition)
        _changed()
    try:
        save()
    except OSError as e:
        _report(_path(cpu), f"cannot be written ({e.strerror or e}); what is measured stays in memory")


def nameable(problem: Problem) -> bool:
    """Whether the spec says all of the problem: a Python function as activation has no text form."""
    activation = problem.epilogue.activation
    return activation is None or activation.function is None


def _key(problem: Problem) -> str:
    return f"{problem.per_image} threads=1"


def _changed() -> None:
    global changes
    changes += 1


def _merge(into: Entries, entries: Entries) -> Entries:
    for key, times in entries.items():
        into[key] = into.get(key, {}) | times
    return into


def _store(cpu: Cpu) -> _Store:
    file = _path(cpu)
    if (store := _stores.get(file)) is None:
        with _lock:
            if (store := _stores.get(file)) is None:
                store = _stores[file] = _Store(_read_or_report(file, cpu))
    return store


@cache
def _user_directory() -> str:
    import platformdirs

    return platformdirs.user_cache_dir("cpuconv", appauthor=False)


def _path(cpu: Cpu) -> Path:
    name = re.sub(r"[^a-z0-9]+", "-", f"{cpu.model} {cpu.isa}".lower()).strip("-")[:120]
    # The format is in the name, so that two releases side by side leave each other's file alone.
    return Path(os.environ.get("CPUCONV_CACHE_DIR") or _user_directory(), f"wisdom{FORMAT}-{name}.json")


def _report(file: Path, reason: str) -> None:
    if (file, reason) not in _reported:
        _reported.add((file, reason))
        warnings.warn(f"wisdom: {file} {reason}", RuntimeWarning, stacklevel=3)


def _read_or_report(file: Path, cpu: Cpu) -> Entries:
    try:
        return _read(file, cpu)
    except _Unusable as e:
        _report(file, f"{e}; it is ignored")
    except OSError as e:
        _report(file, f"cannot be read ({e.strerror or e}); it is ignored")
    return {}


def _read(file: Path, cpu: Cpu) -> Entries:
    """The entries of a file, none if there is no file."""
    try:
        text = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    import json

    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise _Unusable(f"has format {data['format']!r}, not {FORMAT}")
        if (data["cpu"], data["isa"]) != (cpu.model, cpu.isa):
            raise _Unusable(f"is of another CPU ({data['cpu']}, {data['isa']})")
        return {key: {name: _measured(m) for name, m in times.items()} for key, times in data["problems"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as e:
        raise _Unusable("is damaged") from e


def _measured(data: Any) -> Measured:
    m = Measured(int(data["version"]), float(data["seconds"]))
    if not 0 < m.seconds < math.inf:
        raise ValueError(f"seconds: {m.seconds}")
    return m


def _update(file: Path, cpu: Cpu, change: Callable[[Entries], object]) -> None:
    """Read, change and replace a file, alone among all processes."""
    import fcntl
    import json

    file.parent.mkdir(parents=True, exist_ok=True)
    # The lock is a file of its own, for `file` itself is replaced. It stays: removing it would let two in. It is closed, and so unlocked, by C:
    # an interrupt on the way out of a Python context manager would leave it locked.
    with open(file.with_name(f"{file.name}.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            entries = _read(file, cpu)
        except _Unusable as e:
            bad = file.with_name(f"{file.name}.bad")
            os.replace(file, bad)
            _report(file, f"{e}; it is now {bad.name}")
            entries = {}
        change(entries)
        problems = {key: {name: m._asdict() for name, m in times.items()} for key, times in entries.items()}
        data = {"format": FORMAT, "cpu": cpu.model, "isa": cpu.isa, "problems": problems}
        _replace(file, json.dumps(data, indent=1, sort_keys=True))


def _replace(file: Path, text: str) -> None:
    """Write a file so that every reader sees either the old one or the new one whole. For one writer at a time."""
    new = file.with_name(f"{file.name}.new")
    try:
        with open(new, "w", encoding="utf-8") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        os.replace(new, file)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
