"""`conv2d` and the helpers that need no layer."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from cpuconv import arguments
from cpuconv.layers import Conv2d
from cpuconv.options import Options
from cpuconv.plan import Array
from cpuconv.problem import Epilogue, Problem


class OneShot(Conv2d):
    """A layer for one call: it borrows the weight, and counts the time of packing it."""

    _one_shot = True

    @staticmethod
    def _keep(value: Array) -> Array:
        return value


def conv2d(
    x: npt.ArrayLike,
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    stride: int | tuple[int, int] = 1,
    padding: Any = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
    padding_mode: str = "zeros",
    activation: Any = None,
    residual: npt.ArrayLike | None = None,
    algorithm: str = "auto",
    accuracy: float | str | None = None,
    workspace_limit: int | None = None,
    out: Array | None = None,
) -> Array:
    """Return ``activation(conv(x, weight) + bias + residual)``, the 2-D cross-correlation that deep learning calls convolution.

    ``y[n,o,i,j] = sum over c,u,v of weight[o,c,u,v] x[n, c, i*stride + u*dilation - top, j*stride + v*dilation - left]``
    (Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016), as ``torch.nn.functional.conv2d``.
    To apply one weight many times, make a `Conv2d`: it packs the weight once. Here packing counts, so another algorithm may be
    the fastest, and the two results may differ by rounding.

    Parameters
    ----------
    x : array_like
        ``(N, C, H, W)`` or ``(C, H, W)``; for ``layout="NHWC"`` ``(N, H, W, C)`` or ``(H, W, C)``. float16, bfloat16, float32 or float64;
        anything with ``__dlpack__`` or ``__array__``; need not be contiguous.
    weight : array_like
        ``(O, C/groups, kH, kW)`` for NCHW, ``(kH, kW, C/groups, O)`` for NHWC.
    bias : array_like of shape (O,), optional
    stride, dilation : int or pair of int
        Steps in pixels between outputs, and between taps (1 means no gaps).
    padding : int, (ph, pw), ((top, bottom), (left, right)), "valid", "same" or "same_lower"
        Pixels added round x. "same" gives ceil(H / stride) outputs, an odd pixel going at the end ("same_lower": at the start).
    groups : int
        Divides input and output channels into independent convolutions.
    layout : "NCHW" or "NHWC"
    padding_mode : "zeros", "reflect", "replicate" or "circular"
    activation : optional
        "relu", "relu6", "sigmoid", "tanh", "silu", "hardsigmoid", "hardswish", "gelu", ("leaky_relu", slope), ("clip", low, high),
        or a Python function of one scalar that Numba can compile, which is fused into the kernel.
    residual : array_like of the result's shape, optional
        Added before the activation.
    algorithm : str
        "auto", "winograd" (the best tile for the shape), or one of `cpuconv.algorithms()`.
    accuracy : float or "strict", optional
        Largest error allowed, relative to max|y|; by default 1e-5 for float32, 1e-13 for float64. "strict" allows plain summation only.
    workspace_limit : int, optional
        Bytes that scratch memory (for one thread) and the packed weight may take.
    out : ndarray, optional
        Where the result is written: of its shape and dtype, not overlapping x or weight.

    Returns
    -------
    ndarray
        ``(N, O, outH, outW)`` or ``(N, outH, outW, O)`` (or unbatched, as x), of the inputs' promoted dtype.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names the argument, its value and the rule. Nothing is written to `out` then.
    UnsupportedError
        If the algorithm named cannot do the problem within the budget.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    >>> sobel = np.array([[[[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]]], np.float32)
    >>> conv2d(image, sobel)
    array([[[8., 8.],
            [8., 8.]]], dtype=float32)
    """
    layer = OneShot(
        weight, bias, stride, padding, dilation, groups, layout=layout, padding_mode=padding_mode,
        activation=activation, algorithm=algorithm, accuracy=accuracy, workspace_limit=workspace_limit,
    )  # fmt: skip
    arguments.check_apart(out, weight=weight, bias=bias)
    return layer(x, residual, out)


def _problem(x_shape: Any, weight_shape: Any, stride: Any, padding: Any, dilation: Any, groups: Any, layout: Any) -> Problem:
    options = Options.parse(stride, padding, dilation, groups, layout, "zeros")
    weight = arguments.shape("weight_shape", weight_shape)
    options.check_weight(weight)
    return options.problem(arguments.shape("x_shape", x_shape), weight, "f32", Epilogue())


def output_shape(
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: int | tuple[int, int] = 1,
    padding: Any = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
) -> tuple[int, ...]:
    """Return the shape of ``conv2d(x, weight, ...)`` for arrays of these shapes.

    Along each axis ``floor((H + before + after - dilation (k - 1) - 1) / stride) + 1``.

    Raises
    ------
    ValueError, TypeError
        As `conv2d`.

    Examples
    --------
    >>> output_shape((1, 3, 224, 224), (64, 3, 7, 7), stride=2, padding=3)
    (1, 64, 112, 112)
    """
    shape = _problem(x_shape, weight_shape, stride, padding, dilation, groups, layout).y_shape
    return shape if len(x_shape) == 4 else shape[1:]


def flops(
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: int | tuple[int, int] = 1,
    padding: Any = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
) -> int:
    """Return the floating-point operations of the direct method: 2 for each multiply-add, padding included.

    Raises
    ------
    ValueError, TypeError
        As `conv2d`.

    Examples
    --------
    >>> flops((1, 64, 56, 56), (64, 64, 3, 3), padding=1)
    231211008
    """
    return _problem(x_shape, weight_shape, stride, padding, dilation, groups, layout).flops
