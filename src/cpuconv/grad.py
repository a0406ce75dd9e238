"""Gradients of convolutions: what a framework calls backward, as functions of arrays."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cpuconv import arguments, planner
from cpuconv.options import Options
from cpuconv.plan import NUMPY_DTYPES, Array
from cpuconv.planner import Budget
from cpuconv.problem import Epilogue
from cpuconv.threads import for_work

LAYOUTS = ("NCL", "NLC", "NCHW", "NHWC", "NCDHW", "NDHWC")


def conv2d_weight(
    x: npt.ArrayLike,
    weight_shape: tuple[int, ...],
    grad_output: npt.ArrayLike,
    stride: int | tuple[int, int] = 1,
    padding: Any = 0,
    dilation: int | tuple[int, int] = 1,
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
    options = Options.parse(stride, padding, dilation, groups, layout, padding_mode)
    budget = Budget(algorithm, arguments.accuracy(accuracy), arguments.workspace_limit(workspace_limit))
    return _weight(x, arguments.shape("weight_shape", weight_shape), grad_output, options, budget, out)


def _weight(x: Any, shape: tuple[int, ...], grad_output: Any, options: Options, budget: Budget, out: Array | None) -> Array:
    planner.named(budget.algorithm)
    options.check_weight(shape)
    x, grad = arguments.array("x", x), arguments.array("grad_output", grad_output)
    dtype = arguments.result_dtype(x.dtype, grad.dtype, names="x, grad_output")
    compute = arguments.COMPUTE_DTYPES[dtype.name]
    problem = replace(options.problem(x.shape, shape, compute, Epilogue()), pass_="weight")
    batched = len(problem.x_shape) == x.ndim
    expected = problem.y_shape if batched else problem.y_shape[1:]
    if grad.shape != expected:
        raise ValueError(f"grad_output: shape {grad.shape} must be that of the convolution's output, {expected}")
    result = np.empty(shape, dtype) if out is None else arguments.output(out, shape, dtype, x=x, grad_output=grad)
    plan = planner.plan(problem, budget)
    if not batched:
        x, grad = x[None], grad[None]
    if options.padding_mode != "zeros":
        x = arguments.pad_image(x, options.padding_mode, options.pads(x.shape, shape), options.layout)
    x, grad = (_readable(a, NUMPY_DTYPES[compute], plan.strided) for a in (x, grad))
    in_place = result.flags.carray and result.dtype == NUMPY_DTYPES[compute]
    target = result if in_place else np.empty(shape, NUMPY_DTYPES[compute])
    plan.run(x, plan.pack(grad, None), None, target, for_work(plan.cost.seconds))
    if not in_place:
        result[...] = target
    return result


def _readable(value: Array, dtype: np.dtype[Any], strided: bool) -> Array:
    """A plan's operand: the array itself where the plan reads views and it is a proper one."""
    if strided and value.dtype == dtype and value.flags.aligned and all(step > 0 for step in value.strides):
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
    arguments.choice("layout", layout, dict.fromkeys(LAYOUTS))
    if grad.ndim != len(layout):
        raise ValueError(f"grad_output: shape {grad.shape} must have the {len(layout)} axes of layout {layout}")
    # One axis at a time: a sum of sums errs less than one long chain.
    sums = grad if layout.endswith("C") else grad.reshape(*grad.shape[:2], math.prod(grad.shape[2:]))
    axis = -2 if layout.endswith("C") else -1
    sums = sums.sum(axis=axis, dtype=NUMPY_DTYPES[arguments.COMPUTE_DTYPES[grad.dtype.name]])
    while sums.ndim > 2:
        sums = sums.sum(axis=axis)
    result: Array = sums.sum(axis=0).astype(grad.dtype.newbyteorder("="), copy=False)
    return result
