"""The functions of 8-bit integers, which pack the weight at each call."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cpuconv import arguments
from cpuconv.plan import Array
from cpuconv.quantized.layers import QuantizedLayer, Sizes, rescale


class _OneShot(QuantizedLayer):
    """For one call: borrows the weight, and counts the time of packing it."""

    _one_shot = True

    def __init__(self, rank: int, *arguments: Any) -> None:
        self._rank = rank
        super().__init__(*arguments)


def conv2d_int32(
    x: npt.ArrayLike,
    weight: npt.ArrayLike,
    x_zero_point: int = 0,
    w_zero_point: npt.ArrayLike = 0,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
    algorithm: str = "auto",
    workspace_limit: int | None = None,
    out: Array | None = None,
) -> Array:
    """Return ``conv2d(x - x_zero_point, weight - w_zero_point)`` of 8-bit integers as int32: ONNX's ConvInteger.

    All is exact; a sum beyond int32 wraps round, as in NumPy.

    Parameters
    ----------
    x : array_like of int8 or uint8
        ``(N, C, H, W)`` or ``(C, H, W)``; for ``layout="NHWC"`` ``(N, H, W, C)`` or ``(H, W, C)``.
    weight : array_like of int8 or uint8
        ``(O, C/groups, kH, kW)`` for NCHW, ``(kH, kW, C/groups, O)`` for NHWC. Its type need not be that of x.
    x_zero_point : int
        In the range of x's type. Padding holds it, and so adds nothing.
    w_zero_point : int, or array_like of shape (O,)
        In the range of weight's type.
    stride, padding, dilation, groups, layout, algorithm, workspace_limit, out
        See `cpuconv.conv2d`.

    Returns
    -------
    ndarray of int32

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names it. Nothing is written to `out` then.

    Examples
    --------
    >>> conv2d_int32(np.full((1, 2, 2), 7, np.uint8), np.full((1, 1, 2, 2), 3, np.uint8), x_zero_point=5, w_zero_point=[4])
    array([[[-8]]], dtype=int32)
    """
    geometry = stride, padding, dilation, groups, layout
    layer = _OneShot(2, weight, None, x_zero_point, w_zero_point, geometry, algorithm, workspace_limit)
    arguments.check_apart(out, weight=weight)
    return layer(x, out)


def conv1d_int32(
    x: npt.ArrayLike,
    weight: npt.ArrayLike,
    x_zero_point: int = 0,
    w_zero_point: npt.ArrayLike = 0,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    layout: str = "NCL",
    algorithm: str = "auto",
    workspace_limit: int | None = None,
    out: Array | None = None,
) -> Array:
    """As `conv2d_int32`, of 1 spatial axis.

    X is ``(N, C, L)`` or ``(C, L)``, weight ``(O, C/groups, kL)``; for layout="NLC" channels come last.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names it. Nothing is written to `out` then.

    Examples
    --------
    >>> conv1d_int32(np.full((1, 2), 7, np.uint8), np.full((1, 1, 2), 3, np.uint8), x_zero_point=5, w_zero_point=4)
    array([[-4]], dtype=int32)
    """
    geometry = stride, padding, dilation, groups, layout
    layer = _OneShot(1, weight, None, x_zero_point, w_zero_point, geometry, algorithm, workspace_limit)
    arguments.check_apart(out, weight=weight)
    return layer(x, out)


def conv3d_int32(
    x: npt.ArrayLike,
    weight: npt.ArrayLike,
    x_zero_point: int = 0,
    w_zero_point: npt.ArrayLike = 0,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    layout: str = "NCDHW",
    algorithm: str = "auto",
    workspace_limit: int | None = None,
    out: Array | None = None,
) -> Array:
    """As `conv2d_int32`, of 3 spatial axes.

    X is ``(N, C, D, H, W)`` or ``(C, D, H, W)``, weight ``(O, C/groups, kD, kH, kW)``; for layout="NDHWC" channels come last.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names it. Nothing is written to `out` then.

    Examples
    --------
    >>> conv3d_int32(np.full((1, 2, 2, 2), 7, np.uint8), np.full((1, 1, 2, 2, 2), 3, np.uint8), x_zero_point=5, w_zero_point=4)
    array([[[[-16]]]], dtype=int32)
    """
    geometry = stride, padding, dilation, groups, layout
    layer = _OneShot(3, weight, None, x_zero_point, w_zero_point, geometry, algorithm, workspace_limit)
    arguments.check_apart(out, weight=weight)
    return layer(x, out)


def conv2d(
    x: npt.ArrayLike,
    x_scale: float,
    x_zero_point: int,
    weight: npt.ArrayLike,
    w_scale: npt.ArrayLike,
    w_zero_point: npt.ArrayLike,
    y_scale: float,
    y_zero_point: np.generic | Array,
    bias: npt.ArrayLike | None = None,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
    algorithm: str = "auto",
    workspace_limit: int | None = None,
    out: Array | None = None,
) -> Array:
    """Return the convolution of 8-bit integers that stand for numbers, as such integers: ONNX's QLinearConv.

    ``saturate(round(m (conv2d_int32(x, weight, ...) + bias)) + y_zero_point)``, where ``m = x_scale w_scale / y_scale`` and its product with the sum
    are computed in float32 and rounding is half to even, as in ONNX Runtime.

    Parameters
    ----------
    x : array_like of int8 or uint8
    x_scale, y_scale : float
        Over 0.
    x_zero_point : int
        In the range of x's type. Padding holds it.
    weight : array_like of int8 or uint8
    w_scale : float, or array_like of shape (O,)
    w_zero_point : int, or array_like of shape (O,)
        In the range of weight's type.
    y_zero_point : int8 or uint8 scalar
        Its type is the result's.
    bias : array_like of int32, shape (O,), optional
        In units of ``x_scale w_scale``.
    stride, padding, dilation, groups, layout, algorithm, workspace_limit, out
        See `cpuconv.conv2d`.

    Returns
    -------
    ndarray of int8 or uint8

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names it. Nothing is written to `out` then.

    Examples
    --------
    >>> x, w = np.full((1, 2, 2), 7, np.uint8), np.full((1, 1, 2, 2), 3, np.uint8)
    >>> conv2d(x, 0.5, 5, w, [0.25], [4], 0.25, np.int8(-3), np.array([3], np.int32))  # 0.5 (3 - 8) = -2.5, to even -2, and -3
    array([[[-5]]], dtype=int8)
    """
    geometry = stride, padding, dilation, groups, layout
    layer = _OneShot(2, weight, bias, x_zero_point, w_zero_point, geometry, algorithm, workspace_limit)
    rescale(layer._layer, x_scale, w_scale, y_scale, y_zero_point)
    arguments.check_apart(out, weight=weight, bias=bias)
    return layer(x, out)


def conv1d(
    x: npt.ArrayLike,
    x_scale: float,
    x_zero_point: int,
    weight: npt.ArrayLike,
    w_scale: npt.ArrayLike,
    w_zero_point: npt.ArrayLike,
    y_scale: float,
    y_zero_point: np.generic | Array,
    bias: npt.ArrayLike | None = None,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    layout: str = "NCL",
    algorithm: str = "auto",
    workspace_limit: int | None = None,
    out: Array | None = None,
) -> Array:
    """As quantized `conv2d`, of 1 spatial axis.

    X is ``(N, C, L)`` or ``(C, L)``, weight ``(O, C/groups, kL)``; for layout="NLC" channels come last.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names it. Nothing is written to `out` then.

    Examples
    --------
    >>> x, w = np.full((1, 2), 7, np.uint8), np.full((1, 1, 2), 3, np.uint8)
    >>> conv1d(x, 0.5, 5, w, 0.25, 4, 0.25, np.int8(-3))  # 0.5 -4, and -3
    array([[-5]], dtype=int8)
    """
    geometry = stride, padding, dilation, groups, layout
    layer = _OneShot(1, weight, bias, x_zero_point, w_zero_point, geometry, algorithm, workspace_limit)
    rescale(layer._layer, x_scale, w_scale, y_scale, y_zero_point)
    arguments.check_apart(out, weight=weight, bias=bias)
    return layer(x, out)


def conv3d(
    x: npt.ArrayLike,
    x_scale: float,
    x_zero_point: int,
    weight: npt.ArrayLike,
    w_scale: npt.ArrayLike,
    w_zero_point: npt.ArrayLike,
    y_scale: float,
    y_zero_point: np.generic | Array,
    bias: npt.ArrayLike | None = None,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    layout: str = "NCDHW",
    algorithm: str = "auto",
    workspace_limit: int | None = None,
    out: Array | None = None,
) -> Array:
    """As quantized `conv2d`, of 3 spatial axes.

    X is ``(N, C, D, H, W)`` or ``(C, D, H, W)``, weight ``(O, C/groups, kD, kH, kW)``; for layout="NDHWC" channels come last.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names it. Nothing is written to `out` then.

    Examples
    --------
    >>> x, w = np.full((1, 2, 2, 2), 7, np.uint8), np.full((1, 1, 2, 2, 2), 3, np.uint8)
    >>> conv3d(x, 0.5, 5, w, 0.25, 4, 0.25, np.int8(-3))  # 0.5 -16, and -3
    array([[[[-11]]]], dtype=int8)
    """
    geometry = stride, padding, dilation, groups, layout
    layer = _OneShot(3, weight, bias, x_zero_point, w_zero_point, geometry, algorithm, workspace_limit)
    rescale(layer._layer, x_scale, w_scale, y_scale, y_zero_point)
    arguments.check_apart(out, weight=weight, bias=bias)
    return layer(x, out)
