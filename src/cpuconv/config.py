"""`show_config`: what this installation runs on."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from cpuconv import cpu, wisdom
from cpuconv.cpu import available_isas
from cpuconv.threads import get_num_threads
from cpuconv.version import __version__


def configuration() -> dict[str, Any]:
    """Versions, CPU, caches, threads, the rates that cost models go by, and the optional libraries, as a dictionary."""
    machine = wisdom.calibrated(cpu.detect())
    return {
        "cpuconv": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "cpu": machine.model,
        "isa": machine.isa,
        "isas available": ", ".join(available_isas()),
        "cores": machine.cores,
        "threads": get_num_threads(),
        "l1": machine.l1,
        "l2": machine.l2,
        "l3": machine.l3,
        "rates of a core": f"{machine.rates} ({'measured' if machine.measured else 'typical; calibrate() measures them'})",
        "blas": _version("scipy-openblas32"),
        "numba": _version("numba"),
    }


def _version(package: str) -> str:
    from importlib import metadata  # it takes a fifth of the time of `import cpuconv`

    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return "not installed"


def show_config() -> None:
    """Print versions, CPU, ISA, caches, threads, the rates that cost models go by, and the optional libraries found.

    Examples
    --------
    >>> show_config()
    cpuconv ...
    """
    for key, value in configuration().items():
        print(f"{key:<15} {value}")
