"""`conv_transpose1d`, `conv_transpose2d`, `conv_transpose3d`."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from cpuconv.functional import Sizes
from cpuconv.once import once
from cpuconv.options import TransposedOptions
from cpuconv.plan import Array


def conv_transpose2d(
    x: npt.ArrayLike,
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    stride: Sizes = 1,
    padding: Any = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
    *,
    layout: str = "NCHW",
    activation: Any = None,
    residual: npt.ArrayLike | None = None,
    algorithm: str = "auto",
    accuracy: float | str | None = None,
    workspace_limit: int | None = None,
    out: Array | None = None,
    output_shape: Sizes | None = None,
) -> Array:
    """Return ``activation(conv_transpose(x, weight) + bias + residual)``: the adjoint of `conv2d`, as ``torch.nn.functional.conv_transpose2d``.

    ``y[n,o,i,j]`` is the sum of ``weight[c,o,u,v] x[n,c,a,b]`` over c and all a, b, u, v with ``i = a*stride + u*dilation - top``,
    ``j = b*stride + v*dilation - left`` (Dumoulin and Visin 2016, section 4). No zeros are put between pixels: each of the
    stride*stride phases of the result is a convolution of stride 1, by whichever algorithm is the fastest for it.
    Along each axis there are ``(H - 1) stride - before - after + dilation (k - 1) + 1 + output_padding`` outputs.

    Parameters
    ----------
    x : array_like
        ``(N, C, H, W)`` or ``(C, H, W)``; for ``layout="NHWC"`` ``(N, H, W, C)`` or ``(H, W, C)``.
    weight : array_like
        ``(C, O/groups, kH, kW)`` for ``layout="NCHW"``, ``(kH, kW, O/groups, C)`` for ``"NHWC"``.
    bias : array_like of shape (O,), optional
    stride, dilation : int or pair of int
    padding : int, (ph, pw), ((top, bottom), (left, right)), "valid", "same" or "same_lower"
        Pixels cut off the full result. "same" leaves H * stride outputs (ONNX's SAME_UPPER), "same_lower" cuts the odd pixel at the start.
    output_padding : int or pair of int
        Pixels added at the end; less than stride or dilation.
    groups : int
    layout : "NCHW" or "NHWC"
    output_shape : int or pair of int, optional
        Spatial sizes of the result, from which ONNX's ConvTranspose computes the padding: an odd pixel is cut at the start, or for
        "same" at the end.
    activation, residual, algorithm, accuracy, workspace_limit, out
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
    >>> conv_transpose2d(np.array([[[1, 2]]], np.float32), np.ones((1, 1, 2, 2), np.float32), stride=2)
    array([[[1., 1., 2., 2.],
            [1., 1., 2., 2.]]], dtype=float32)
    """
    options = TransposedOptions.parse_transposed(stride, padding, output_padding, groups, dilation, layout, output_shape, rank=2)
    return once(options, x, weight, bias, activation, residual, algorithm, accuracy, workspace_limit, out)


def conv_transpose1d(
    x: npt.ArrayLike,
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    stride: Sizes = 1,
    padding: Any = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
    *,
    layout: str = "NCL",
    activation: Any = None,
    residual: npt.ArrayLike | None = None,
    algorithm: str = "auto",
    accuracy: float | str | None = None,
    workspace_limit: int | None = None,
    out: Array | None = None,
    output_shape: Sizes | None = None,
) -> Array:
    """Return ``activation(conv_transpose(x, weight) + bias + residual)``: the adjoint of `conv1d` in its input; see `conv_transpose2d`.

    Parameters
    ----------
    x : array_like
        ``(N, C, L)`` or ``(C, L)``; for ``layout="NLC"`` ``(N, L, C)`` or ``(L, C)``.
    weight : array_like
        ``(C, O/groups, kL)`` for ``layout="NCL"``, ``(kL, O/groups, C)`` for ``"NLC"``.
    bias : array_like of shape (O,), optional
    stride, dilation : int or (int,)
    padding : int, (p,), ((left, right),), "valid", "same" or "same_lower"
    output_padding : int or (int,)
    groups : int
    layout : "NCL" or "NLC"
    output_shape : int or (int,), optional
    activation, residual, algorithm, accuracy, workspace_limit, out
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
    >>> conv_transpose1d([[1.0, 2.0]], [[[1.0, 10.0, 100.0]]], stride=2)
    array([[  1.,  10., 102.,  20., 200.]])
    """
    options = TransposedOptions.parse_transposed(stride, padding, output_padding, groups, dilation, layout, output_shape, rank=1)
    return once(options, x, weight, bias, activation, residual, algorithm, accuracy, workspace_limit, out)


def conv_transpose3d(
    x: npt.ArrayLike,
    weight: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    stride: Sizes = 1,
    padding: Any = 0,
    output_padding: Sizes = 0,
    groups: int = 1,
    dilation: Sizes = 1,
    *,
    layout: str = "NCDHW",
    activation: Any = None,
    residual: npt.ArrayLike | None = None,
    algorithm: str = "auto",
    accuracy: float | str | None = None,
    workspace_limit: int | None = None,
    out: Array | None = None,
    output_shape: Sizes | None = None,
) -> Array:
    """Return ``activation(conv_transpose(x, weight) + bias + residual)``: the adjoint of `conv3d` in its input; see `conv_transpose2d`.

    Parameters
    ----------
    x : array_like
        ``(N, C, D, H, W)`` or ``(C, D, H, W)``; for ``layout="NDHWC"`` ``(N, D, H, W, C)`` or ``(D, H, W, C)``.
    weight : array_like
        ``(C, O/groups, kD, kH, kW)`` for ``layout="NCDHW"``, ``(kD, kH, kW, O/groups, C)`` for ``"NDHWC"``.
    bias : array_like of shape (O,), optional
    stride, dilation : int or triple of int
    padding : int, (pd, ph, pw), ((front, back), (top, bottom), (left, right)), "valid", "same" or "same_lower"
    output_padding : int or triple of int
    groups : int
    layout : "NCDHW" or "NDHWC"
    output_shape : int or triple of int, optional
    activation, residual, algorithm, accuracy, workspace_limit, out
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
    >>> conv_transpose3d(np.ones((1, 1, 4, 4, 4)), np.ones((1, 5, 2, 2, 2)), stride=2).shape
    (1, 5, 8, 8, 8)
    """
    options = TransposedOptions.parse_transposed(stride, padding, output_padding, groups, dilation, layout, output_shape, rank=3)
    return once(options, x, weight, bias, activation, residual, algorithm, accuracy, workspace_limit, out)
