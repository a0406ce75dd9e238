"""Convolution as one writes it in NumPy: what the demo compares with."""

from __future__ import annotations

import ctypes
import functools
import importlib
from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from cpuconv.plan import Array


def convolution(weight: Array, bias: Array, stride: int, padding: int, groups: int, layout: str) -> Callable[[Array], Array]:
    """A convolution with ReLU: windows as the columns of a matrix (im2col), and a matrix product for each group."""
    nchw = layout == "NCHW"
    kernel = weight.shape[2] if nchw else weight.shape[0]
    oc = len(bias)
    if nchw:
        matrix, offset = weight.reshape(groups, oc // groups, -1), bias[:, None]
    else:
        matrix, offset = np.ascontiguousarray(weight.reshape(-1, groups, oc // groups).swapaxes(0, 1)), bias
    axes = (2, 3) if nchw else (1, 2)
    pads = [(padding, padding) if axis in axes else (0, 0) for axis in range(4)]
    step = tuple(slice(None, None, stride) if axis in axes else slice(None) for axis in range(4))

    def call(x: Array) -> Array:
        x = np.pad(x, pads) if padding else x
        windows = sliding_window_view(x, (kernel, kernel), axes)[step]
        n = len(x)
        if nchw:
            _, c, oh, ow, *_ = windows.shape
            columns = windows.transpose(0, 1, 4, 5, 2, 3).reshape(n, groups, c // groups * kernel**2, oh * ow)
            y = np.matmul(matrix, columns).reshape(n, oc, oh * ow)
        else:
            _, oh, ow, c, *_ = windows.shape
            by_group = windows.reshape(n, oh, ow, groups, c // groups, kernel, kernel)
            columns = by_group.transpose(0, 3, 1, 2, 5, 6, 4).reshape(n, groups, oh * ow, -1)
            y = np.matmul(columns, matrix).swapaxes(1, 2).reshape(n, oh * ow, oc)
        y += offset
        np.maximum(y, 0, out=y)
        return np.asarray(y.reshape((n, oc, oh, ow) if nchw else (n, oh, ow, oc)))

    return call


@functools.cache
def blas_thread_setter() -> Callable[[int], None] | None:
    """OpenBLAS's function that sets how many threads NumPy's matrix products use; None if NumPy has another BLAS."""
    path = importlib.import_module("numpy.linalg._umath_linalg").__file__
    try:
        library = ctypes.CDLL(path)  # its dependencies' symbols, the BLAS's among them, are found through it
    except OSError:
        return None
    for prefix in ("scipy_", ""):
        for suffix in ("64_", ""):
            if setter := getattr(library, f"{prefix}openblas_set_num_threads{suffix}", None):
                setter.restype = None
                return setter  # type: ignore[no-any-return]
    return None
