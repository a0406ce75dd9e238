"""Wisdom, in FFTW's sense: measured seconds of algorithms on problems, which the planner trusts more than estimates; and the rates of this
CPU's cores, on which the estimates rest.

`tune` gathers the ones, `calibrate` the others. Both are saved, one JSON file for each CPU model and ISA, in ``CPUCONV_CACHE_DIR`` or the
user's cache directory. The planner reads that file when it makes its first plan. Any number of processes may tune at once: none loses another's
figures. All figures are for one image and one thread, so that the choice, and with it every bit of a result, depends on neither.
"""

from __future__ import annotations

import math
import os
import re
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cpuconv import cpu as cpu_module
from cpuconv.cpu import Cpu, Rates
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
class _Knowledge:
    """What was measured on one CPU: algorithms on problems, and the rates of its cores if `calibrate` was run."""

    problems: Entries = field(default_factory=dict)
    rates: Rates | None = None

    def add(self, newer: _Knowledge) -> None:
        for key, times in newer.problems.items():
            self.problems[key] = self.problems.get(key, {}) | times
        self.rates = newer.rates or self.rates


@dataclass
class _Store:
    """What is known of one CPU, and that part of it which its file lacks."""

    known: _Knowledge = field(default_factory=_Knowledge)
    unsaved: _Knowledge = field(default_factory=_Knowledge)


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
    pending = _Knowledge()
    try:
        with _lock:
            if path is None:
                pending, store.unsaved = store.unsaved, _Knowledge()
            else:
                pending.add(store.known)
        _update(target, cpu, lambda kept: kept.add(pending))
    except BaseException:
        if path is None:
            with _lock:
                pending.add(store.unsaved)
                store.unsaved = pending
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
    found = _read_or_report(_path(cpu) if path is None else Path(path), cpu)
    with _lock:
        store.known.add(found)
        if path is not None:
            store.unsaved.add(found)
        _changed()
    return len(found.problems)


def forget(spec: str | Problem | None = None) -> int:
    """Forget what was measured on a problem, in memory and in this CPU's file, or all: every problem and what `calibrate` measured.

    Returns
    -------
    int
        The number of problems forgotten.

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

    def drop(knowledge: _Knowledge) -> None:
        gone = [k for k in knowledge.problems if key in (None, k)]
        forgotten.update(gone)
        for k in gone:
            del knowledge.problems[k]
        if key is None:
            knowledge.rates = None

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
        return {key: dict(times) for key, times in sorted(store.known.problems.items())}


def measured(problem: Problem, cpu: Cpu) -> Mapping[tuple[str, int], float]:
    """Seconds for one image in one thread, by the name and the version of the algorithm."""
    store = _store(cpu)
    if not store.known.problems or not nameable(problem):
        return {}
    with _lock:
        return {(name, m.version): m.seconds for name, m in store.known.problems.get(_key(problem), {}).items()}


def calibrated(cpu: Cpu) -> Cpu:
    """The CPU with the rates that `calibrate` measured; as it is where there are none."""
    rates = _store(cpu).known.rates
    return replace(cpu, measured=rates) if rates else cpu


def record(problem: Problem, cpu: Cpu, times: Mapping[str, Measured]) -> None:
    """Remember measured seconds, and save them; where that fails, say so once and keep them in memory."""
    _record(cpu, _Knowledge({_key(problem): dict(times)}))


def record_rates(cpu: Cpu, rates: Rates) -> None:
    """As `record`, of a CPU's rates."""
    _record(cpu, _Knowledge(rates=rates))


def _record(cpu: Cpu, addition: _Knowledge) -> None:
    store = _store(cpu)
    with _lock:
        store.unsaved.add(addition)  # first, so that an interrupt leaves nothing that is known and never saved
        store.known.add(addition)
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


@cache
def _file_name(model: str, isa: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", f"{model} {isa}".lower()).strip("-")[:120]
    # The format is in the name, so that two releases side by side leave each other's file alone.
    return f"wisdom{FORMAT}-{name}.json"


def _path(cpu: Cpu) -> Path:
    return Path(os.environ.get("CPUCONV_CACHE_DIR") or _user_directory(), _file_name(cpu.model, cpu.isa))


def _report(file: Path, reason: str) -> None:
    if (file, reason) not in _reported:
        _reported.add((file, reason))
        warnings.warn(f"wisdom: {file} {reason}", RuntimeWarning, stacklevel=3)


def _read_or_report(file: Path, cpu: Cpu) -> _Knowledge:
    try:
        return _read(file, cpu)
    except _Unusable as e:
        _report(file, f"{e}; it is ignored")
    except OSError as e:
        _report(file, f"cannot be read ({e.strerror or e}); it is ignored")
    return _Knowledge()


def _read(file: Path, cpu: Cpu) -> _Knowledge:
    """What a file holds, nothing if there is no file."""
    try:
        text = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return _Knowledge()
    import json

    try:
        data = json.loads(text)
        if data["format"] != FORMAT:
            raise _Unusable(f"has format {data['format']!r}, not {FORMAT}")
        if (data["cpu"], data["isa"]) != (cpu.model, cpu.isa):
            raise _Unusable(f"is of another CPU ({data['cpu']}, {data['isa']})")
        problems = {key: {name: _measured(m) for name, m in times.items()} for key, times in data["problems"].items()}
        return _Knowledge(problems, _rates(data["rates"]) if "rates" in data else None)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as e:
        raise _Unusable("is damaged") from e


def _measured(data: Any) -> Measured:
    return Measured(int(data["version"]), _positive(data["seconds"]))


def _rates(data: Any) -> Rates:
    return Rates(*(_positive(data[name]) for name in Rates._fields))


def _positive(value: Any) -> float:
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError(f"{number} is not positive")
    return number


def _update(file: Path, cpu: Cpu, change: Callable[[_Knowledge], object]) -> None:
    """Read, change and replace a file, alone among all processes."""
    import fcntl
    import json

    file.parent.mkdir(parents=True, exist_ok=True)
    # The lock is a file of its own, for `file` itself is replaced. It stays: removing it would let two in. It is closed, and so unlocked, by C:
    # an interrupt on the way out of a Python context manager would leave it locked.
    with open(file.with_name(f"{file.name}.lock"), "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            knowledge = _read(file, cpu)
        except _Unusable as e:
            bad = file.with_name(f"{file.name}.bad")
            os.replace(file, bad)
            _report(file, f"{e}; it is now {bad.name}")
            knowledge = _Knowledge()
        change(knowledge)
        problems = {key: {name: m._asdict() for name, m in times.items()} for key, times in knowledge.problems.items()}
        data: dict[str, Any] = {"format": FORMAT, "cpu": cpu.model, "isa": cpu.isa, "problems": problems}
        if knowledge.rates:
            data["rates"] = knowledge.rates._asdict()
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
