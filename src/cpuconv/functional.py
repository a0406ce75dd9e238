"""`conv1d`, `conv2d`, `conv3d`, their transposes, and the helpers that need no layer."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from cpuconv import arguments
from cpuconv.layer import Layer
from cpuconv.options import Options, TransposedOptions
from cpuconv.plan import Array
from cpuconv.problem import Epilogue, Problem

Sizes = int | tuple[int, ...]


def once(
    options: Options, x: npt.ArrayLike, weight: npt.ArrayLike, bias: npt.ArrayLike | None, activation: Any, residual: npt.ArrayLike | None,
    algorithm: str, accuracy: Any, workspace_limit: Any, out: Array | None,
) -> Array:  # fmt: skip
    """A layer's only call: it borrows the weight, and counts the time of packing it."""
    layer = Layer(options, weight, bias, activation, algorithm, accuracy, workspace_limit, one_shot=True)
    arguments.check_apart(out, weight=weight, bias=bias)
    return layer(x, residual, out)


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


def _shape_and_problem(
    x_shape: Any, weight_shape: Any, stride: Any, padding: Any, dilation: Any, groups: Any, layout: Any, transposed: bool, output_padding: Any
) -> tuple[tuple[int, ...], Problem]:
    weight, x = arguments.shape("weight_shape", weight_shape), arguments.shape("x_shape", x_shape)
    if layout is None:
        if not 3 <= len(weight) <= 5:
            raise ValueError(f"weight_shape: {weight_shape} must have 3, 4 or 5 axes")
        rank, layout = len(weight) - 2, next(iter(arguments.LAYOUTS[len(weight) - 2]))
    else:
        known = {name: rank for rank, names in arguments.LAYOUTS.items() for name in names}
        rank = arguments.choice("layout", layout, known)
    if transposed:
        options: Options = TransposedOptions.parse_transposed(stride, padding, output_padding, groups, dilation, layout, None, rank=rank)
    else:
        if output_padding:
            raise ValueError(f"output_padding: {output_padding} must be 0 unless transposed")
        options = Options.parse(stride, padding, dilation, groups, layout, rank=rank)
    options.check_weight(weight)
    problem = options.problem(x, weight, "f32", Epilogue())
    return options.result_shape(problem, len(x) == rank + 2), problem


def output_shape(
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    layout: str | None = None,
    transposed: bool = False,
    output_padding: Sizes = 0,
) -> tuple[int, ...]:
    """Return the shape of a convolution's result for arrays of these shapes.

    Along each axis ``floor((H + before + after - dilation (k - 1) - 1) / stride) + 1``; for transposed ones see `conv_transpose2d`.

    Parameters
    ----------
    x_shape, weight_shape : tuple of int
        Shapes of the arrays that the function would take; x's with or without the batch axis.
    stride, padding, dilation, groups
        See `conv2d`.
    layout : str, optional
        One of any of the functions; by default channels come first, and the weight says how many spatial axes there are.
    transposed, output_padding
        For `conv_transpose2d` and its like.

    Raises
    ------
    ValueError, TypeError
        As `conv2d`.

    Examples
    --------
    >>> output_shape((1, 3, 224, 224), (64, 3, 7, 7), stride=2, padding=3)
    (1, 64, 112, 112)
    >>> output_shape((1, 64, 56, 56), (64, 32, 2, 2), stride=2, transposed=True)
    (1, 32, 112, 112)
    >>> output_shape((1, 3, 100), (8, 3, 5))
    (1, 8, 96)
    """
    return _shape_and_problem(x_shape, weight_shape, stride, padding, dilation, groups, layout, transposed, output_padding)[0]


def flops(
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    layout: str | None = None,
    transposed: bool = False,
    output_padding: Sizes = 0,
) -> int:
    """Return the floating-point operations of the direct method: 2 for each multiply-add, padding included.

    Parameters
    ----------
    x_shape, weight_shape : tuple of int
        Shapes of the arrays that the function would take; x's with or without the batch axis.
    stride, padding, dilation, groups
        See `conv2d`.
    layout : str, optional
        One of any of the functions; by default channels come first, and the weight says how many spatial axes there are.
    transposed, output_padding
        For `conv_transpose2d` and its like.

    Raises
    ------
    ValueError, TypeError
        As `conv2d`.

    Examples
    --------
    >>> flops((1, 64, 56, 56), (64, 64, 3, 3), padding=1)
    231211008
    """
    return _shape_and_problem(x_shape, weight_shape, stride, padding, dilation, groups, layout, transposed, output_padding)[1].flops
