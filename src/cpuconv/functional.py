"""`conv1d`, `conv2d`, `conv3d`."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from cpuconv.once import once
from cpuconv.options import Options
from cpuconv.plan import Array

Sizes = int | tuple[int, ...]


def conv2d(
    x: npt.ArrayLike,
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
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
    options = Options.parse(stride, padding, dilation, groups, layout, padding_mode, rank=2)
    return once(options, x, weight, bias, activation, residual, algorithm, accuracy, workspace_limit, out)


def conv1d(
    x: npt.ArrayLike,
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    layout: str = "NCL",
    padding_mode: str = "zeros",
    activation: Any = None,
    residual: npt.ArrayLike | None = None,
    algorithm: str = "auto",
    accuracy: float | str | None = None,
    workspace_limit: int | None = None,
    out: Array | None = None,
) -> Array:
    """Return ``activation(conv(x, weight) + bias + residual)``, the 1-D cross-correlation, as ``torch.nn.functional.conv1d``.

    It is a 2-D convolution of height 1. See `conv2d`, whose formula and options it shares.

    Parameters
    ----------
    x : array_like
        ``(N, C, L)`` or ``(C, L)``; for ``layout="NLC"`` ``(N, L, C)`` or ``(L, C)``.
    weight : array_like
        ``(O, C/groups, kL)`` for NCL, ``(kL, C/groups, O)`` for NLC.
    bias : array_like of shape (O,), optional
    stride, dilation : int or (int,)
    padding : int, (p,), ((left, right),), "valid", "same" or "same_lower"
    groups : int
    layout : "NCL" or "NLC"
    padding_mode, activation, residual, algorithm, accuracy, workspace_limit, out
        See `conv2d`.

    Returns
    -------
    ndarray
        In the layout and of the inputs' promoted dtype, unbatched where x is.

    Raises
    ------
    ValueError, TypeError, UnsupportedError
        See `conv2d`.

    Examples
    --------
    >>> conv1d([[1.0, 2.0, 4.0, 8.0]], [[[-1.0, 1.0]]])
    array([[1., 2., 4.]])
    """
    options = Options.parse(stride, padding, dilation, groups, layout, padding_mode, rank=1)
    return once(options, x, weight, bias, activation, residual, algorithm, accuracy, workspace_limit, out)


def conv3d(
    x: npt.ArrayLike,
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    layout: str = "NCDHW",
    padding_mode: str = "zeros",
    activation: Any = None,
    residual: npt.ArrayLike | None = None,
    algorithm: str = "auto",
    accuracy: float | str | None = None,
    workspace_limit: int | None = None,
    out: Array | None = None,
) -> Array:
    """Return ``activation(conv(x, weight) + bias + residual)``, the 3-D cross-correlation, as ``torch.nn.functional.conv3d``.

    Each plane of the result is the sum of 2-D convolutions, one for each tap of the depth. See `conv2d`, whose formula and options it shares.

    Parameters
    ----------
    x : array_like
        ``(N, C, D, H, W)`` or ``(C, D, H, W)``; for ``layout="NDHWC"`` ``(N, D, H, W, C)`` or ``(D, H, W, C)``.
    weight : array_like
        ``(O, C/groups, kD, kH, kW)`` for NCDHW, ``(kD, kH, kW, C/groups, O)`` for NDHWC.
    bias : array_like of shape (O,), optional
    stride, dilation : int or triple of int
    padding : int, (pd, ph, pw), ((front, back), (top, bottom), (left, right)), "valid", "same" or "same_lower"
    groups : int
    layout : "NCDHW" or "NDHWC"
    padding_mode, activation, residual, algorithm, accuracy, workspace_limit, out
        See `conv2d`.

    Returns
    -------
    ndarray
        In the layout and of the inputs' promoted dtype, unbatched where x is.

    Raises
    ------
    ValueError, TypeError, UnsupportedError
        See `conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> conv3d(np.ones((1, 2, 2, 2)), np.ones((1, 1, 2, 2, 2)))
    array([[[[8.]]]])
    """
    options = Options.parse(stride, padding, dilation, groups, layout, padding_mode, rank=3)
    return once(options, x, weight, bias, activation, residual, algorithm, accuracy, workspace_limit, out)
