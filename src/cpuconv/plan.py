"""The nouns between planner and algorithms: `Rejection`, `Cost`, the protocols `Algorithm` and `Plan`."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cpuconv.cpu import Cpu
from cpuconv.problem import Problem

Array = npt.NDArray[Any]

NUMPY_DTYPES: dict[str, np.dtype[Any]] = {"f32": np.dtype(np.float32), "f64": np.dtype(np.float64)}


@dataclass(frozen=True)
class Rejection:
    """Why an algorithm does not do a problem."""

    reason: str


@dataclass(frozen=True)
class Cost:
    """What an algorithm expects of itself on a problem: one thread, warm caches, weights already packed.

    `workspace`: bytes of scratch for each thread; `packed`: bytes of the packed weight; `error`: largest error to expect,
    relative to max|y|, on data without systematic cancellation; `pack_seconds`: packing the weight once.
    """

    seconds: float
    workspace: int
    packed: int
    error: float
    pack_seconds: float = 0.0


class Plan(Protocol):
    """An algorithm made ready for one problem. Immutable, so that any number of threads may run it."""

    @property
    def problem(self) -> Problem: ...
    @property
    def cost(self) -> Cost: ...
    @property
    def strided(self) -> bool:
        """Whether `run` takes x, residual and out as views: strides positive, and in NHWC channels side by side."""
        ...

    @property
    def weight_format(self) -> Hashable:
        """Equal for two plans of one layer if the packed weight of one serves the other."""
        ...

    def pack(self, weight: Array, bias: Array | None) -> Any:
        """The second operand, contiguous and of the problem's dtype, and `bias` (or None), as `run` wants them.

        It is called `weight`, for so it is but for the weight's gradient, where it is y's gradient.
        """
        ...

    def run(self, x: Array, packed: Any, residual: Array | None, out: Array, threads: int) -> None:
        """Compute into `out` from `x`, the first operand, and the packed second.

        Arrays are of the problem's shapes and dtype, and C-contiguous unless the plan is `strided`.

        `residual` may be `out` itself; residual and out then have the same strides.
        """
        ...


class Algorithm(Protocol):
    """One family or variant. `version` changes whenever measured times of the old code say nothing about the new."""

    name: str
    version: int
    plain: bool  # plain summation: allowed under accuracy="strict"

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None: ...
    def estimate(self, problem: Problem, cpu: Cpu) -> Cost: ...
    def build(self, problem: Problem, cpu: Cpu) -> Plan: ...
