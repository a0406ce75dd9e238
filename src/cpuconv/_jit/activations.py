"""Activations as C callbacks `int activation(T *y, intp count, double a, double b)` in place; they return 0 where they fail."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np
from numba import carray, njit, types
from numba.core.errors import NumbaError

from cpuconv._jit.direct import compile_callback

REASON_LINES = 6


def _signature(size: int) -> Any:
    return types.int32(types.CPointer({4: types.float32, 8: types.float64}[size]), types.intp, types.float64, types.float64)


@functools.cache
def named(name: str, size: int) -> Any:
    """A named activation. NaN stays NaN, as a comparison with it is false."""
    T: Any = {4: np.float32, 8: np.float64}[size]
    zero, half, one, sixth, root = T(0), T(0.5), T(1), T(1 / 6), T(math.sqrt(0.5))

    def clip(y, count, a, b):
        y, low, high = carray(y, count), T(a), T(b)
        for i in range(count):
            v = low if y[i] < low else y[i]
            y[i] = high if v > high else v
        return 1

    def leaky_relu(y, count, a, b):
        y, slope = carray(y, count), T(a)
        for i in range(count):
            y[i] = y[i] if y[i] > zero else slope * y[i]
        return 1

    def sigmoid(y, count, a, b):
        y = carray(y, count)
        for i in range(count):
            y[i] = one / (one + math.exp(-y[i]))
        return 1

    def tanh(y, count, a, b):
        y = carray(y, count)
        for i in range(count):
            y[i] = math.tanh(y[i])
        return 1

    def silu(y, count, a, b):
        y = carray(y, count)
        for i in range(count):
            y[i] = y[i] / (one + math.exp(-y[i]))
        return 1

    def hardsigmoid(y, count, a, b):
        y = carray(y, count)
        for i in range(count):
            v = y[i] * sixth + half
            v = zero if v < zero else v
            y[i] = one if v > one else v
        return 1

    def hardswish(y, count, a, b):
        y = carray(y, count)
        for i in range(count):
            v = y[i] * sixth + half
            v = zero if v < zero else v
            y[i] = y[i] * (one if v > one else v)
        return 1

    def gelu(y, count, a, b):
        y = carray(y, count)
        for i in range(count):
            y[i] = half * y[i] * (one + math.erf(y[i] * root))
        return 1

    rows = (clip, leaky_relu, sigmoid, tanh, silu, hardsigmoid, hardswish, gelu)
    return compile_callback(_signature(size), next(row for row in rows if row.__name__ == name), size)


@functools.lru_cache(maxsize=256)
def from_python(function: Callable[[float], float], size: int) -> Any:
    """A caller's function of one scalar, its result cast to the element type.

    Raises
    ------
    TypeError
        If Numba cannot compile it.
    """
    scalar = njit(error_model="numpy")(function) if isinstance(function, FunctionType) else function

    def rows(y, count, a, b):
        y = carray(y, count)
        for i in range(count):
            y[i] = scalar(y[i])
        return 1

    try:
        return compile_callback(_signature(size), rows, cached=False)
    except NumbaError as e:
        reason = "\n".join([line for line in str(e).splitlines() if line.strip()][:REASON_LINES])
        name = getattr(function, "__name__", repr(function))
        raise TypeError(f"activation: Numba cannot compile {name} as a function of one float:\n{reason}") from e
