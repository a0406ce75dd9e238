"""Convolution as one writes it in NumPy: what the demo compares with."""

from __future__ import annotations

import ctypes
import functools
import importlib
from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from cpuconv.plan import Array


def convolution(weight: Array, bias: Array, stride: int, padding: int, depthwise: bool, layout: str) -> Callable[[Array], Array]:
    """A convolution with ReLU: windows as the columns of a matrix (im2col), and a matrix product.

    A depthwise one is a product for each channel or, where channels come last, an einsum, which is many times faster there.
    """
    nchw = layout == "NCHW"
    kernel = weight.shape[2] if nchw else weight.shape[0]
    axes = (2, 3) if nchw else (1, 2)
    pads = [(padding, padding) if axis in axes else (0, 0) for axis in range(4)]
    step = tuple(slice(None, None, stride) if axis in axes else slice(None) for axis in range(4))

    def windows(x: Array) -> Array:
        return sliding_window_view(np.pad(x, pads) if padding else x, (kernel, kernel), axes)[step]

    def channels_first(x: Array) -> Array:
        view = windows(x)
        n, c, h, w, *_ = view.shape
        groups = c if depthwise else 1
        columns = view.transpose(0, 1, 4, 5, 2, 3).reshape(n, groups, -1, h * w)
        y: Array = np.matmul(weight.reshape(groups, len(weight) // groups, -1), columns)
        return y.reshape(n, -1, h, w)

    def channels_last(x: Array) -> Array:
        view = windows(x)
        if depthwise:
            return np.asarray(np.einsum("nhwckl,klc->nhwc", view, weight[:, :, 0]))
        n, h, w, *_ = view.shape
        columns = view.transpose(0, 1, 2, 4, 5, 3).reshape(n, h * w, -1)
        y: Array = np.matmul(columns, weight.reshape(columns.shape[2], -1))
        return y.reshape(n, h, w, -1)

    def call(x: Array) -> Array:
        y = channels_first(x) if nchw else channels_last(x)
        y += bias[:, None, None] if nchw else bias
        return np.maximum(y, 0, out=y)

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
