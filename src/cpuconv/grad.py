"""Gradients of convolutions, in the argument order of ``torch.nn.grad``."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cpuconv import arguments, planner
from cpuconv.functional import Sizes
from cpuconv.once import once
from cpuconv.options import GradientOptions, Options
from cpuconv.plan import NUMPY_DTYPES, Array
from cpuconv.planner import Budget
from cpuconv.problem import Epilogue
from cpuconv.threads import for_work


def _input(
    rank: int, input_shape: Any, weight: Any, grad_output: Any, stride: Any, padding: Any, dilation: Any, groups: Any, layout: Any,
    algorithm: Any, accuracy: Any, workspace_limit: Any, out: Any,
) -> Array:  # fmt: skip
    forward = Options.parse(stride, padding, dilation, groups, layout, rank=rank)
    options = GradientOptions.of(forward, arguments.shape("input_shape", input_shape))
    return once(options, grad_output, weight, None, None, None, algorithm, accuracy, workspace_limit, out)


def conv2d_input(
    input_shape: tuple[int, ...],
    weight: npt.ArrayLike,
    grad_output: npt.ArrayLike,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
    algorithm: str = "auto",
    accuracy: float | str | None = None,
    workspace_limit: int | None = None,
    out: Array | None = None,
) -> Array:
    """Return the gradient of a loss with respect to the input of ``conv2d``, from the gradient with respect to its result.

    It is the adjoint: ``sum(conv2d(x, weight) * g) == sum(x * conv2d_input(x.shape, weight, g))`` for every x and g. It is computed as
    `conv_transpose2d` is.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of the input, and so of the result, with or without the batch axis.
    weight : array_like
        ``(O, C/groups, kH, kW)`` for ``layout="NCHW"``, ``(kH, kW, C/groups, O)`` for ``"NHWC"``.
    grad_output : array_like
        Of the shape of the forward convolution's result.
    stride, padding, dilation, groups, layout, algorithm, accuracy, workspace_limit, out
        See `conv2d`.

    Returns
    -------
    ndarray
        Of the shape `input_shape` and the promoted dtype of weight and grad_output.

    Raises
    ------
    ValueError, TypeError, UnsupportedError
        See `conv2d`.

    Examples
    --------
    >>> import numpy as np
    >>> conv2d_input((1, 1, 2, 3), np.array([[[[1, 2]]]], np.float32), np.ones((1, 1, 2, 2), np.float32))
    array([[[[1., 3., 2.],
             [1., 3., 2.]]]], dtype=float32)
    """
    return _input(
        2, input_shape, weight, grad_output, stride, padding, dilation, groups, layout, algorithm, accuracy, workspace_limit, out
    )


def conv1d_input(
    input_shape: tuple[int, ...],
    weight: npt.ArrayLike,
    grad_output: npt.ArrayLike,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    layout: str = "NCL",
    algorithm: str = "auto",
    accuracy: float | str | None = None,
    workspace_limit: int | None = None,
    out: Array | None = None,
) -> Array:
    """Return the gradient of a loss with respect to the input of ``conv1d``, from the gradient with respect to its result; see `conv2d_input`.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of the input, and so of the result, with or without the batch axis.
    weight : array_like
        ``(O, C/groups, kL)`` for ``layout="NCL"``, ``(kL, C/groups, O)`` for ``"NLC"``.
    grad_output : array_like
        Of the shape of the forward convolution's result.
    stride, padding, dilation, groups, layout, algorithm, accuracy, workspace_limit, out
        See `conv1d`.

    Returns
    -------
    ndarray
        Of the shape `input_shape` and the promoted dtype of weight and grad_output.

    Raises
    ------
    ValueError, TypeError, UnsupportedError
        See `conv1d`.

    Examples
    --------
    >>> conv1d_input((1, 3), [[[1.0, 2.0]]], [[1.0, 1.0]])
    array([[1., 3., 2.]])
    """
    return _input(
        1, input_shape, weight, grad_output, stride, padding, dilation, groups, layout, algorithm, accuracy, workspace_limit, out
    )


def conv3d_input(
    input_shape: tuple[int, ...],
    weight: npt.ArrayLike,
    grad_output: npt.ArrayLike,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    layout: str = "NCDHW",
    algorithm: str = "auto",
    accuracy: float | str | None = None,
    workspace_limit: int | None = None,
    out: Array | None = None,
) -> Array:
    """Return the gradient of a loss with respect to the input of ``conv3d``, from the gradient with respect to its result; see `conv2d_input`.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of the input, and so of the result, with or without the batch axis.
    weight : array_like
        ``(O, C/groups, kD, kH, kW)`` for ``layout="NCDHW"``, ``(kD, kH, kW, C/groups, O)`` for ``"NDHWC"``.
    grad_output : array_like
        Of the shape of the forward convolution's result.
    stride, padding, dilation, groups, layout, algorithm, accuracy, workspace_limit, out
        See `conv3d`.

    Returns
    -------
    ndarray
        Of the shape `input_shape` and the promoted dtype of weight and grad_output.

    Raises
    ------
    ValueError, TypeError, UnsupportedError
        See `conv3d`.

    Examples
    --------
    >>> import numpy as np
    >>> conv3d_input((1, 2, 5, 5, 5), np.ones((4, 2, 3, 3, 3)), np.ones((1, 4, 5, 5, 5)), padding=1).shape
    (1, 2, 5, 5, 5)
    """
    return _input(
        3, input_shape, weight, grad_output, stride, padding, dilation, groups, layout, algorithm, accuracy, workspace_limit, out
    )


def _weight(
    rank: int, x: Any, weight_shape: Any, grad_output: Any, stride: Any, padding: Any, dilation: Any, groups: Any, layout: Any, padding_mode: Any,
    algorithm: Any, accuracy: Any, workspace_limit: Any, out: Any,
) -> Array:  # fmt: skip
    options = Options.parse(stride, padding, dilation, groups, layout, padding_mode, rank=rank)
    budget = Budget(algorithm, arguments.accuracy(accuracy), arguments.workspace_limit(workspace_limit))
    planner.named(algorithm)
    shape = arguments.shape("weight_shape", weight_shape)
    options.check_weight(shape)
    x, grad = arguments.array("x", x), arguments.array("grad_output", grad_output)
    dtype = arguments.result_dtype(x.dtype, grad.dtype, names="x, grad_output")
    compute = NUMPY_DTYPES[arguments.COMPUTE_DTYPES[dtype.name]]
    forward = options.problem(x.shape, shape, arguments.COMPUTE_DTYPES[dtype.name], Epilogue())
    if grad.shape != (expected := options.result_shape(forward, x.ndim == rank + 2)):
        raise ValueError(f"grad_output: shape {grad.shape} must be that of the convolution's result, {expected}")
    result = np.empty(shape, dtype) if out is None else arguments.output(out, shape, dtype, x=x, grad_output=grad)
    problem = replace(forward, pass_="weight")
    plan = planner.plan(problem, budget)
    if options.padding_mode != "zeros":
        x = arguments.pad_image(x if x.ndim == rank + 2 else x[None], options.padding_mode, options.pads(x.shape, shape), options.layout)
    x, grad = (_readable(a, compute).reshape(s) for a, s in zip((x, grad), problem.operand_shapes, strict=True))
    in_place = result.flags.carray and result.dtype == compute
    target = result if in_place else np.empty(shape, compute)
    plan.run(x, plan.pack(grad, None), None, target.reshape(problem.weight_shape), for_work(plan.cost.seconds))
    if not in_place:
        result[...] = target
    return result


def conv2d_weight(
    x: npt.ArrayLike,
    weight_shape: tuple[int, ...],
    grad_output: npt.ArrayLike,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    layout: str = "NCHW",
    padding_mode: str = "zeros",
    algorithm: str = "auto",
    accuracy: float | str | None = None,
    workspace_limit: int | None = None,
    out: Array | None = None,
) -> Array:
    """Return the gradient of ``sum(grad_output * conv2d(x, weight, ...))`` with respect to the weight.

    ``dw[o,c,u,v] = sum over n,i,j of x[n, c, i*stride + u*dilation - top, j*stride + v*dilation - left] grad_output[n,o,i,j]``:
    the adjoint of `conv2d` in its weight, as ``torch.nn.grad.conv2d_weight``.

    Parameters
    ----------
    x : array_like
        The input of the convolution, as `conv2d` takes it.
    weight_shape : tuple of int
        ``(O, C/groups, kH, kW)`` for NCHW, ``(kH, kW, C/groups, O)`` for NHWC.
    grad_output : array_like
        The gradient of a loss with respect to the convolution's output, of its shape.
    stride, padding, dilation, groups, layout, padding_mode
        Those of the convolution; see `conv2d`.
    algorithm, accuracy, workspace_limit
        See `conv2d`; `accuracy` is relative to the largest number of the gradient.
    out : ndarray of `weight_shape`, optional
        Where the result is written; must not overlap x or grad_output.

    Returns
    -------
    ndarray
        Of `weight_shape` and the inputs' promoted dtype. Its bits do not depend on the number of threads.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names it. Nothing is written to `out` then.
    UnsupportedError
        If the algorithm named cannot do the problem within the budget.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    >>> conv2d_weight(x, (1, 1, 2, 2), np.ones((1, 1, 2, 2), np.float32))
    array([[[[ 8., 12.],
             [20., 24.]]]], dtype=float32)
    """
    return _weight(
        2, x, weight_shape, grad_output, stride, padding, dilation, groups, layout, padding_mode, algorithm, accuracy, workspace_limit, out
    )


def conv1d_weight(
    x: npt.ArrayLike,
    weight_shape: tuple[int, ...],
    grad_output: npt.ArrayLike,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    layout: str = "NCL",
    padding_mode: str = "zeros",
    algorithm: str = "auto",
    accuracy: float | str | None = None,
    workspace_limit: int | None = None,
    out: Array | None = None,
) -> Array:
    """Return the gradient of a loss with respect to the weight of ``conv1d``, from that with respect to its result; see `conv2d_weight`.

    Parameters
    ----------
    x : array_like
        The input of the convolution, as `conv1d` takes it.
    weight_shape : tuple of int
        ``(O, C/groups, kL)`` for ``layout="NCL"``, ``(kL, C/groups, O)`` for ``"NLC"``.
    grad_output : array_like
        Of the shape of the convolution's result.
    stride, padding, dilation, groups, layout, padding_mode, algorithm, accuracy, workspace_limit, out
        See `conv1d` and `conv2d_weight`.

    Returns
    -------
    ndarray
        Of `weight_shape` and the promoted dtype of x and grad_output.

    Raises
    ------
    ValueError, TypeError, UnsupportedError
        See `conv1d`.

    Examples
    --------
    >>> conv1d_weight([[1.0, 2.0, 4.0]], (1, 1, 2), [[1.0, 1.0]])
    array([[[3., 6.]]])
    """
    return _weight(
        1, x, weight_shape, grad_output, stride, padding, dilation, groups, layout, padding_mode, algorithm, accuracy, workspace_limit, out
    )


def conv3d_weight(
    x: npt.ArrayLike,
    weight_shape: tuple[int, ...],
    grad_output: npt.ArrayLike,
    stride: Sizes = 1,
    padding: Any = 0,
    dilation: Sizes = 1,
    groups: int = 1,
    *,
    layout: str = "NCDHW",
    padding_mode: str = "zeros",
    algorithm: str = "auto",
    accuracy: float | str | None = None,
    workspace_limit: int | None = None,
    out: Array | None = None,
) -> Array:
    """Return the gradient of a loss with respect to the weight of ``conv3d``, from that with respect to its result; see `conv2d_weight`.

    Parameters
    ----------
    x : array_like
        The input of the convolution, as `conv3d` takes it.
    weight_shape : tuple of int
        ``(O, C/groups, kD, kH, kW)`` for ``layout="NCDHW"``, ``(kD, kH, kW, C/groups, O)`` for ``"NDHWC"``.
    grad_output : array_like
        Of the shape of the convolution's result.
    stride, padding, dilation, groups, layout, padding_mode, algorithm, accuracy, workspace_limit, out
        See `conv3d` and `conv2d_weight`.

    Returns
    -------
    ndarray
        Of `weight_shape` and the promoted dtype of x and grad_output.

    Raises
    ------
    ValueError, TypeError, UnsupportedError
        See `conv3d`.

    Examples
    --------
    >>> import numpy as np
    >>> conv3d_weight(np.ones((1, 2, 5, 5, 5)), (4, 2, 3, 3, 3), np.ones((1, 4, 5, 5, 5)), padding=1)[0, 0, 1, 1, 1]
    np.float64(125.0)
    """
    return _weight(
        3, x, weight_shape, grad_output, stride, padding, dilation, groups, layout, padding_mode, algorithm, accuracy, workspace_limit, out
    )



def _readable(value: Array, dtype: np.dtype[Any]) -> Array:
    """A plan's operand: the array itself where it is a proper view, which plans of gradients of weights read."""
    if value.dtype == dtype and value.flags.aligned and all(step > 0 for step in value.strides):
        return value
    return arguments.contiguous(value, dtype)


def conv_bias(grad_output: npt.ArrayLike, *, layout: str = "NCHW") -> Array:
    """Return the gradient of ``sum(grad_output * conv(x, weight, bias, ...))`` with respect to the bias: the sum over all but the channels.

    Parameters
    ----------
    grad_output : array_like
        Of the convolution's output shape, with batch axis: ``(N, O, ...)``, or ``(N, ..., O)`` for channels-last layouts.
    layout : "NCL", "NLC", "NCHW", "NHWC", "NCDHW" or "NDHWC"

    Returns
    -------
    ndarray of shape (O,)
        Of the dtype of `grad_output`; float16 and bfloat16 are summed in float32.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> conv_bias(np.ones((2, 3, 4, 4), np.float32))
    array([32., 32., 32.], dtype=float32)
    """
    grad = arguments.array("grad_output", grad_output)
    dtype = arguments.result_dtype(grad.dtype, names="grad_output")
    arguments.choice("layout", layout, {name: None for names in arguments.LAYOUTS.values() for name in names})
    if grad.ndim != len(layout):
        raise ValueError(f"grad_output: shape {grad.shape} must have the {len(layout)} axes of layout {layout}")
    # One axis at a time: a sum of sums errs less than one long chain.
    sums = grad if layout.endswith("C") else grad.reshape(*grad.shape[:2], math.prod(grad.shape[2:]))
    axis = -2 if layout.endswith("C") else -1
    sums = sums.sum(axis=axis, dtype=NUMPY_DTYPES[arguments.COMPUTE_DTYPES[dtype.name]])
    while sums.ndim > 2:
        sums = sums.sum(axis=axis)
    result: Array = sums.sum(axis=0).astype(dtype, copy=False)
    return result
