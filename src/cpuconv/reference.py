"""The oracle: convolution and its gradients in float64 NumPy, one tap at a time, written for its obviousness."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

from cpuconv.plan import Array, Quantization, types
from cpuconv.problem import Activation, Problem


def compute(problem: Problem, first: Array, second: Array, bias: Array | None = None, residual: Array | None = None) -> Array:
    """The result of the problem's pass in float64, from its two operands, in the problem's layout."""
    if problem.pass_ == "weight":
        return weight_gradient(problem, first, second)
    return (input_gradient if problem.pass_ == "input" else forward)(problem, first, second, bias, residual)


def forward(problem: Problem, x: Array, weight: Array, bias: Array | None = None, residual: Array | None = None) -> Array:
    """``activation(conv(x, weight) + bias + residual)`` in float64, in the problem's layout.

    Formula: y[n,o,i,j] = sum over c,u,v of w[o,c,u,v] x[n, c, i sh + u dh - top, j sw + v dw - left], x being 0 outside; 3-D likewise.
    """
    p = problem
    w, padded = _weight(p, weight), _padded(p, x)
    out = tuple(a.out for a in p.axes)
    y = np.zeros((p.n, p.groups, p.ocg, math.prod(out)))
    for tap, window in _taps(p):
        with np.errstate(invalid="ignore"):  # infinities among the data are the caller's
            y += np.matmul(w[tap], padded[window].reshape(p.n, p.groups, p.icg, math.prod(out)))
    return _finish(p, y.reshape(p.n, p.oc, *out), bias, residual)


def input_gradient(problem: Problem, grad: Array, weight: Array, bias: Array | None = None, residual: Array | None = None) -> Array:
    """The adjoint of `forward` in x: every product goes back to the x that it was made of. Then the epilogue, over x's channels."""
    p = problem
    w, padded = _weight(p, weight), _padded(p, np.zeros(p.x_shape))
    g = _channels_first(p, grad).reshape(p.n, p.groups, p.ocg, math.prod(a.out for a in p.axes))
    for tap, window in _taps(p):
        with np.errstate(invalid="ignore"):
            padded[window] += np.matmul(w[tap].swapaxes(1, 2), g).reshape(padded[window].shape)
    inside: Any = (..., *(slice(max(a.before, 0), max(a.before, 0) + a.size) for a in p.axes))
    return _finish(p, padded[inside].reshape(p.n, p.ic, *(a.size for a in p.axes)), bias, residual)


def weight_gradient(problem: Problem, x: Array, grad: Array) -> Array:
    """The adjoint of `forward` in weight: for each tap the products of all pairs of x and y's gradient that it joins."""
    p = problem
    pixels = math.prod(a.out for a in p.axes)
    padded, g = _padded(p, x), _channels_first(p, grad).reshape(p.n, p.groups, p.ocg, pixels)
    w = np.zeros((p.groups, p.ocg, p.icg, *(a.kernel for a in p.axes)))
    for tap, window in _taps(p):
        with np.errstate(invalid="ignore"):
            window_rows = padded[window].reshape(p.n, p.groups, p.icg, pixels)
            w[tap] = np.matmul(g, window_rows.swapaxes(2, 3)).sum(axis=0)
    w = w.reshape(p.oc, *w.shape[2:])
    return np.ascontiguousarray(w if p.layout == "nchw" else np.moveaxis(w, (0, 1), (-1, -2)))


def _channels_first(p: Problem, image: Array) -> Array:
    image = np.asarray(image, np.float64)
    return image if p.layout == "nchw" else np.moveaxis(image, -1, 1)


def _weight(p: Problem, weight: Array) -> Array:
    """(groups, ocg, icg, taps of each axis)"""
    weight = np.asarray(weight, np.float64)
    if p.layout == "nhwc":
        weight = np.moveaxis(weight, (-1, -2), (0, 1))
    return weight.reshape(p.groups, p.ocg, p.icg, *(a.kernel for a in p.axes))


def _padded(p: Problem, x: Array) -> Array:
    """(n, groups, icg, padded sizes)"""
    widths = [(max(a.before, 0), max(a.after, 0)) for a in p.axes]
    padded = np.pad(_channels_first(p, x), [(0, 0), (0, 0), *widths])
    return padded.reshape(p.n, p.groups, p.icg, *padded.shape[2:])


def _taps(p: Problem) -> Iterator[tuple[Any, Any]]:
    """Each tap as an index of `_weight`, and the window of `_padded` that it meets."""
    for tap in product(*(range(a.kernel) for a in p.axes)):
        starts = [t * a.dilation + max(-a.before, 0) for t, a in zip(tap, p.axes, strict=True)]
        windows = (slice(start, start + (a.out - 1) * a.stride + 1, a.stride) for start, a in zip(starts, p.axes, strict=True))
        yield (..., *tap), (..., *windows)


def _finish(p: Problem, y: Array, bias: Array | None, residual: Array | None) -> Array:
    if p.layout == "nhwc":
        y = np.moveaxis(y, 1, -1)
    if bias is not None:
        channel = -1 if p.layout == "nhwc" else (-1, *(1 for _ in p.axes))
        y = y + np.asarray(bias, np.float64).reshape(channel)
    if residual is not None:
        y = y + np.asarray(residual, np.float64)
    return activate(p.epilogue.activation, y)


def integers(problem: Problem, x: Array, weight: Array, bias: Array | None, q: Quantization) -> Array:
    """``conv(x - x_zero_point, weight - w_zero_point) + bias`` modulo 2^32; for 8-bit results scaled (in float32), rounded half to even, y's zero
    point added, and saturated. Exact but for the float32 product: sums of integers stay below 2^53.
    """
    p, y_type = problem, types(problem.dtype).y
    channel = (-1, *(1 for _ in x.shape[2:])) if p.layout == "nchw" else (-1,)
    w_zero_point = q.w_zero_point.reshape(-1, *(1 for _ in weight.shape[1:])) if p.layout == "nchw" else q.w_zero_point
    sums = forward(p, x.astype(np.int64) - q.x_zero_point, weight.astype(np.int64) - w_zero_point).astype(np.int64)
    if bias is not None:
        sums = sums + bias.reshape(channel)
    y: Array = sums.astype(np.int32)
    if q.scale is None:
        return y
    scaled = np.rint(y.astype(np.float32) * q.scale.reshape(channel)) + q.y_zero_point
    saturated: Array = np.clip(scaled, np.iinfo(y_type).min, np.iinfo(y_type).max).astype(y_type)
    return saturated


_erf = np.vectorize(math.erf, otypes=[np.float64])

ACTIVATIONS: dict[str, Callable[..., Array]] = {
    "clip": lambda y, low, high: np.clip(y, low, high),
    "leaky_relu": lambda y, slope: np.where(y > 0, y, slope * y),
    "sigmoid": lambda y: 0.5 * (1 + np.tanh(0.5 * y)),
    "tanh": np.tanh,
    "silu": lambda y: y * 0.5 * (1 + np.tanh(0.5 * y)),
    "hardsigmoid": lambda y: np.clip(y / 6 + 0.5, 0, 1),
    "hardswish": lambda y: y * np.clip(y / 6 + 0.5, 0, 1),
    "gelu": lambda y: 0.5 * y * (1 + _erf(y / math.sqrt(2))),
}


def activate(activation: Activation | None, y: Array) -> Array:
    """Apply a named activation or a Python function, elementwise."""
    if activation is None:
        return np.ascontiguousarray(y)
    function = np.vectorize(activation.function, otypes=[y.dtype]) if activation.function else ACTIVATIONS[activation.name]
    result: Array = function(y, *activation.params)
    return result
