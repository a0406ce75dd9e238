"""Convolutions of 8-bit integers with zero points and scales: exact, as ONNX's ConvInteger and QLinearConv define them.

An integer q stands for the number ``scale (q - zero_point)``.

>>> import numpy as np
>>> x, w = np.full((1, 3, 5, 5), 130, np.uint8), np.full((2, 3, 3, 3), -2, np.int8)
>>> conv2d_int32(x, w, x_zero_point=128)[0, :, 1, 1]            # 27 products of 130 - 128 and -2
array([-108, -108], dtype=int32)
>>> conv2d(x, 0.5, 128, w, 0.25, 0, 0.5, np.uint8(100))[0, :, 1, 1]  # -108 of 0.5 0.25, in steps of 0.5, from 100 on
array([73, 73], dtype=uint8)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cpuconv import arguments, layers
from cpuconv.functional import OneShot
from cpuconv.plan import Array, Quantization

Ints = int | tuple[int, int]


class _Quantized(layers.Conv2d):
    """What a layer of floats lacks: zero points, and 8-bit results of `y_dtype`."""

    y_dtype: np.dtype[Any] = np.dtype(np.int32)

    def quantize(self, quantization: Quantization, y_dtype: np.dtype[Any]) -> None:
        self._quantization, self.y_dtype = quantization, y_dtype

    def _dtypes(self, x: np.dtype[Any], residual: np.dtype[Any] | None) -> tuple[np.dtype[Any], str]:
        arguments.integer_type("x", x)
        assert self._quantization
        arguments.in_range("x_zero_point", self._quantization.x_zero_point, x)
        words = arguments.INTEGER_DTYPES | {"int32": "s32"}
        return self.y_dtype, "".join(words[dtype.name] for dtype in (x, self.weight.dtype, self.y_dtype))


class _OneShotQuantized(OneShot, _Quantized):
    pass


class _Layer:
    """What both kinds of quantized layers share."""

    _kind: type[_Quantized] = _Quantized

    def __init__(self, weight: npt.ArrayLike, bias: npt.ArrayLike | None, w_zero_point: Any, *geometry: Any, **options: Any) -> None:
        weight = arguments.array("weight", weight)
        arguments.integer_type("weight", weight.dtype)
        if bias is not None:
            bias = arguments.array("bias", bias, sums=True)
            if bias.dtype != np.int32:
                raise TypeError(f"bias: dtype {bias.dtype} must be int32, of scale x_scale * w_scale")
        self._conv = self._kind(weight, bias, *geometry, **options)
        self._w_zero_point = arguments.zero_points("w_zero_point", w_zero_point, weight.dtype, self._conv.out_channels)

    def __call__(self, x: npt.ArrayLike, out: Array | None = None) -> Array:
        """Return the result for `x`, written to `out` if that is given.

        Raises
        ------
        ValueError, TypeError
            If an argument breaks its rule; nothing is written to `out` then.
        """
        return self._conv(x, None, out)

    def __repr__(self) -> str:
        return f"quantized.{type(self).__name__}({repr(self._conv).partition('(')[2]}"

    def explain(self, x_shape: tuple[int, ...], dtype: npt.DTypeLike = np.uint8) -> str:
        """Return the table of candidate algorithms for inputs of this shape and type; see `cpuconv.explain`."""
        return self._conv.explain(x_shape, dtype)


class Conv2dInt32(_Layer):
    """A layer of `conv2d_int32`: the weight is packed once. It may be called from many threads at once.

    Parameters
    ----------
    weight : array_like of int8 or uint8
    x_zero_point, w_zero_point, stride, padding, dilation, groups, layout, algorithm, workspace_limit
        See `conv2d_int32`.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names it.

    Examples
    --------
    >>> conv = Conv2dInt32(np.ones((8, 3, 3, 3), np.int8), x_zero_point=128, padding=1)
    >>> conv(np.full((1, 3, 6, 6), 130, np.uint8))[0, 0, 0]
    array([24, 36, 36, 36, 36, 24], dtype=int32)
    """

    def __init__(
        self,
        weight: npt.ArrayLike,
        x_zero_point: int = 0,
        w_zero_point: npt.ArrayLike = 0,
        stride: Ints = 1,
        padding: Any = 0,
        dilation: Ints = 1,
        groups: int = 1,
        *,
        layout: str = "NCHW",
        algorithm: str = "auto",
        workspace_limit: int | None = None,
    ) -> None:
        super().__init__(
            weight, None, w_zero_point, stride, padding, dilation, groups, layout=layout, algorithm=algorithm, workspace_limit=workspace_limit
        )
        self._conv.quantize(Quantization(arguments.integer("x_zero_point", x_zero_point), self._w_zero_point), np.dtype(np.int32))


class Conv2d(_Layer):
    """A layer of quantized `conv2d`: the weight is packed once. It may be called from many threads at once.

    Parameters
    ----------
    weight : array_like of int8 or uint8
    x_scale, x_zero_point, w_scale, w_zero_point, y_scale, y_zero_point, bias, stride, padding, dilation, groups, layout, algorithm, workspace_limit
        See `conv2d`.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names it.

    Examples
    --------
    >>> conv = Conv2d(np.ones((8, 3, 3, 3), np.int8), 0.5, 128, 1.0, 0, 2.0, np.int8(0), padding=1)
    >>> conv(np.full((1, 3, 6, 6), 130, np.uint8))[0, 0, 0]
    array([6, 9, 9, 9, 9, 6], dtype=int8)
    """

    def __init__(
        self,
        weight: npt.ArrayLike,
        x_scale: float,
        x_zero_point: int,
        w_scale: npt.ArrayLike,
        w_zero_point: npt.ArrayLike,
        y_scale: float,
        y_zero_point: np.generic | Array,
        bias: npt.ArrayLike | None = None,
        stride: Ints = 1,
        padding: Any = 0,
        dilation: Ints = 1,
        groups: int = 1,
        *,
        layout: str = "NCHW",
        algorithm: str = "auto",
        workspace_limit: int | None = None,
    ) -> None:
        super().__init__(
            weight, bias, w_zero_point, stride, padding, dilation, groups, layout=layout, algorithm=algorithm, workspace_limit=workspace_limit
        )
        y_dtype = getattr(y_zero_point, "dtype", None)
        if y_dtype is None or y_dtype.name not in arguments.INTEGER_DTYPES:
            raise TypeError(f"y_zero_point: {y_zero_point!r} must be of dtype int8 or uint8, which becomes y's, such as np.uint8(0)")
        scale = arguments.requantization(x_scale, w_scale, y_scale, self._conv.out_channels)
        x_zero, y_zero = arguments.integer("x_zero_point", x_zero_point), arguments.integer("y_zero_point", y_zero_point)
        self._conv.quantize(Quantization(x_zero, self._w_zero_point, scale, y_zero), np.dtype(y_dtype))


class _OneShotInt32(Conv2dInt32):
    _kind = _OneShotQuantized


class _OneShotConv2d(Conv2d):
    _kind = _OneShotQuantized


def conv2d_int32(
    x: npt.ArrayLike,
    weight: npt.ArrayLike,
    x_zero_point: int = 0,
    w_zero_point: npt.ArrayLike = 0,
    stride: Ints = 1,
    padding: Any = 0,
    dilation: Ints = 1,
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
    layer = _OneShotInt32(
        weight, x_zero_point, w_zero_point, stride, padding, dilation, groups, layout=layout, algorithm=algorithm, workspace_limit=workspace_limit
    )
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
    stride: Ints = 1,
    padding: Any = 0,
    dilation: Ints = 1,
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
    layer = _OneShotConv2d(
        weight, x_scale, x_zero_point, w_scale, w_zero_point, y_scale, y_zero_point, bias, stride, padding, dilation, groups,
        layout=layout, algorithm=algorithm, workspace_limit=workspace_limit,
    )  # fmt: skip
    arguments.check_apart(out, weight=weight, bias=bias)
    return layer(x, out)
