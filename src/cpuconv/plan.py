"""The nouns between planner and algorithms: `Rejection`, `Cost`, the protocols `Algorithm` and `Plan`."""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from cpuconv._native import core
from cpuconv.cpu import Cpu
from cpuconv.problem import INTEGER_DTYPES, Problem

Array = npt.NDArray[Any]

NUMPY_DTYPES: dict[str, np.dtype[Any]] = {"f32": np.dtype(np.float32), "f64": np.dtype(np.float64)}


def aligned_empty(shape: int | tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Uninitialised and 64-byte aligned, so that no vector at a multiple of its size crosses a cache line (2 to 5 % of the time of a 1x1 layer)."""
    size = math.prod(shape) if isinstance(shape, tuple) else shape
    raw = np.empty(size + 64 // dtype.itemsize, dtype)
    start = -core.address(raw) % 64 // dtype.itemsize
    return raw[start : start + size].reshape(shape)


HUGE = 4 << 20  # bytes from which NumPy asks for huge pages
LASTING = 1 << 20  # bytes from which what a layer keeps has memory of its own


def lasting_empty(shape: int | tuple[int, ...], dtype: np.dtype[Any], lasting: bool = True) -> Array:
    """As `aligned_empty`, for what a layer keeps if `lasting`: pages that return to the system with it. Those of the allocator would stay behind as
    holes, too small for the next layer (a fifth of the peak, where ResNet-50's layers are made one after the other)."""
    size = (math.prod(shape) if isinstance(shape, tuple) else shape) * dtype.itemsize
    if not lasting or size < LASTING:
        return aligned_empty(shape, dtype)
    try:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as e:
        raise MemoryError(f"no memory for {size} bytes of a layer's weight: {e.strerror}") from e
    if size >= HUGE:
        with contextlib.suppress(OSError):  # of a kernel without huge pages
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, dtype).reshape(shape)


class Types(NamedTuple):
    """The types of a problem's arrays. A residual is of y's."""

    x: np.dtype[Any]
    weight: np.dtype[Any]
    bias: np.dtype[Any]
    y: np.dtype[Any]


def types(dtype: str) -> Types:
    """What a problem's dtype stands for.

    >>> types("u8s8s32").weight
    dtype('int8')
    """
    if dtype not in INTEGER_DTYPES:
        floating = NUMPY_DTYPES[dtype]
        return Types(floating, floating, floating, floating)
    of: dict[str, np.dtype[Any]] = {"s8": np.dtype(np.int8), "u8": np.dtype(np.uint8), "s32": np.dtype(np.int32)}
    return Types(of[dtype[:2]], of[dtype[2:4]], of["s32"], of[dtype[4:]])


class Quantization(NamedTuple):
    """What the 8-bit integers of a problem stand for: ``scale (integer - zero point)``.

    `w_zero_point` has one number for each output channel. `scale`, of 8-bit results only, is that of x times that of the weight, divided by that of
    y: float32, one for each output channel.
    """

    x_zero_point: int
    w_zero_point: Array
    scale: Array | None = None
    y_zero_point: int = 0


def plain_integers(problem: Problem) -> Quantization:
    """No zero points, and scales of one."""
    scale = None if problem.dtype.endswith("s32") else np.ones(problem.oc, np.float32)
    return Quantization(0, np.zeros(problem.oc, np.int32), scale)


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
    def weight_format(self) -> Hashable:
        """Equal for two plans of one layer if the packed weight of one serves the other."""
        ...

    def pack(self, weight: Array, bias: Array | None, quantization: Quantization | None = None, *, lasting: bool = False) -> Any:
        """The second operand, a view of the problem's type, and `bias` (or None), as `run` wants them. `quantization`: of integers only;
        `lasting`: a layer keeps it.

        It is called `weight`, for so it is but for the weight's gradient, where it is y's gradient.
        """
        ...

    def run(self, x: Array, packed: Any, residual: Array | None, out: Array, threads: int) -> None:
        """Compute into `out` from `x`, the first operand, and the packed second.

        Arrays are of the problem's shapes and dtype, and C-contiguous unless the algorithm is `strided`.

        `residual` may be `out` itself; residual and out then have the same strides.
        """
        ...


class Bound(Protocol):
    """A plan with its packed operand, for arrays of certain shapes, of the problem's dtype and without a residual."""

    def run(self, x: Any, y: Any, threads: int) -> bool:
        """Compute y, if both are arrays of that dtype and the shapes, C-contiguous, and do not overlap; else return False and do nothing."""
        ...


@runtime_checkable
class Bindable(Protocol):
    """A plan that has a short way for arrays that it can take as they are."""

    def bind(self, packed: Any, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> Bound: ...


class Algorithm(Protocol):
    """One family or variant. `version` changes whenever measured times of the old code say nothing about the new."""

    name: str
    version: int
    plain: bool  # plain summation: allowed under accuracy="strict"
    strided: bool  # plans take x, residual and out as views: strides positive, and in NHWC channels side by side
    turns: bool  # plans pack a weight that is any view; others take a copy of it

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None: ...
    def estimate(self, problem: Problem, cpu: Cpu) -> Cost: ...
    def build(self, problem: Problem, cpu: Cpu) -> Plan: ...
