"""Gradients of convolutions, in the argument order of ``torch.nn.grad``."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from cpuconv import arguments
from cpuconv.functional import Sizes, once
from cpuconv.options import GradientOptions, Options
from cpuconv.plan import Array


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
