"""The layers of 8-bit integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cpuconv import arguments
from cpuconv.layer import Layer
from cpuconv.options import Options
from cpuconv.plan import Array, Quantization

Sizes = int | tuple[int, ...]


class _Integers(Layer):
    """A layer whose sums are 32-bit integers or, of `y_dtype`, 8-bit ones."""

    y_dtype: np.dtype[Any] = np.dtype(np.int32)

    def _dtypes(self, x: np.dtype[Any], residual: np.dtype[Any] | None) -> tuple[np.dtype[Any], str]:
        arguments.integer_type("x", x)
        assert self.quantization
        arguments.in_range("x_zero_point", self.quantization.x_zero_point, x)
        words = arguments.INTEGER_DTYPES | {"int32": "s32"}
        return self.y_dtype, "".join(words[dtype.name] for dtype in (x, self.weight.dtype, self.y_dtype))


class QuantizedLayer:
    """What all quantized layers share."""

    _rank: int
    _one_shot = False

    def __init__(
        self, weight: npt.ArrayLike, bias: npt.ArrayLike | None, x_zero_point: Any, w_zero_point: Any, geometry: tuple[Any, ...],
        algorithm: str, workspace_limit: Any,
    ) -> None:  # fmt: skip
        weight = arguments.array("weight", weight)
        arguments.integer_type("weight", weight.dtype)
        if bias is not None:
            bias = arguments.array("bias", bias, sums=True)
            if bias.dtype != np.int32:
                raise TypeError(f"bias: dtype {bias.dtype} must be int32, in units of x_scale * w_scale")
        options = Options.parse(*geometry, rank=self._rank)
        self._layer = _Integers(options, weight, bias, None, algorithm, None, workspace_limit, self._one_shot)
        w_zero = arguments.zero_points("w_zero_point", w_zero_point, weight.dtype, self._layer.out_channels)
        self._layer.quantization = Quantization(arguments.integer("x_zero_point", x_zero_point), w_zero)

    def __call__(self, x: npt.ArrayLike, out: Array | None = None) -> Array:
        """Return the result for `x`, written to `out` if that is given.

        Raises
        ------
        ValueError, TypeError
            If an argument breaks its rule; nothing is written to `out` then.
        """
        return self._layer(x, None, out)

    def __repr__(self) -> str:
        return f"quantized.{type(self).__name__}({repr(self._layer).partition('(')[2]}"

    def explain(self, x_shape: tuple[int, ...], dtype: npt.DTypeLike = np.uint8) -> str:
        """Return the table of candidate algorithms for inputs of this shape and type; see `cpuconv.explain`."""
        return self._layer.explain(x_shape, dtype)


def rescale(layer: _Integers, x_scale: Any, w_scale: Any, y_scale: Any, y_zero_point: Any) -> None:
    """Give a layer 8-bit results."""
    y_dtype = getattr(y_zero_point, "dtype", None)
    if y_dtype is None or y_dtype.name not in arguments.INTEGER_DTYPES:
        raise TypeError(f"y_zero_point: {y_zero_point!r} must be of dtype int8 or uint8, which becomes y's, such as np.uint8(0)")
    scale = arguments.requantization(x_scale, w_scale, y_scale, layer.out_channels)
    assert layer.quantization
    layer.quantization = layer.quantization._replace(scale=scale, y_zero_point=arguments.integer("y_zero_point", y_zero_point))
    layer.y_dtype = np.dtype(y_dtype)


class Conv2dInt32(QuantizedLayer):
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

    _rank = 2

    def __init__(
        self,
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
    ) -> None:
        geometry = stride, padding, dilation, groups, layout
        super().__init__(weight, None, x_zero_point, w_zero_point, geometry, algorithm, workspace_limit)


class Conv1dInt32(QuantizedLayer):
    """A layer of `conv1d_int32`; see `Conv2dInt32`."""

    _rank = 1

    def __init__(
        self,
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
    ) -> None:
        geometry = stride, padding, dilation, groups, layout
        super().__init__(weight, None, x_zero_point, w_zero_point, geometry, algorithm, workspace_limit)


class Conv3dInt32(QuantizedLayer):
    """A layer of `conv3d_int32`; see `Conv2dInt32`."""

    _rank = 3

    def __init__(
        self,
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
    ) -> None:
        geometry = stride, padding, dilation, groups, layout
        super().__init__(weight, None, x_zero_point, w_zero_point, geometry, algorithm, workspace_limit)


class Conv2d(QuantizedLayer):
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

    _rank = 2

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
        stride: Sizes = 1,
        padding: Any = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        *,
        layout: str = "NCHW",
        algorithm: str = "auto",
        workspace_limit: int | None = None,
    ) -> None:
        geometry = stride, padding, dilation, groups, layout
        super().__init__(weight, bias, x_zero_point, w_zero_point, geometry, algorithm, workspace_limit)
        rescale(self._layer, x_scale, w_scale, y_scale, y_zero_point)


class Conv1d(QuantizedLayer):
    """A layer of quantized `conv1d`; see `Conv2d`."""

    _rank = 1

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
        stride: Sizes = 1,
        padding: Any = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        *,
        layout: str = "NCL",
        algorithm: str = "auto",
        workspace_limit: int | None = None,
    ) -> None:
        geometry = stride, padding, dilation, groups, layout
        super().__init__(weight, bias, x_zero_point, w_zero_point, geometry, algorithm, workspace_limit)
        rescale(self._layer, x_scale, w_scale, y_scale, y_zero_point)


class Conv3d(QuantizedLayer):
    """A layer of quantized `conv3d`; see `Conv2d`."""

    _rank = 3

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
        stride: Sizes = 1,
        padding: Any = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        *,
        layout: str = "NCDHW",
        algorithm: str = "auto",
        workspace_limit: int | None = None,
    ) -> None:
        geometry = stride, padding, dilation, groups, layout
        super().__init__(weight, bias, x_zero_point, w_zero_point, geometry, algorithm, workspace_limit)
        rescale(self._layer, x_scale, w_scale, y_scale, y_zero_point)
