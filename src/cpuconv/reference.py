"""The oracle: convolution in float64 NumPy, one tap at a time, written for its obviousness."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from cpuconv.plan import Array, Quantization, types
from cpuconv.problem import Activation, Problem


def forward(problem: Problem, x: Array, weight: Array, bias: Array | None = None, residual: Array | None = None) -> Array:
    """``activation(conv(x, weight) + bias + residual)`` in float64, in the problem's layout.

    Formula: y[n,o,i,j] = sum over c,u,v of w[o,c,u,v] x[n, c, i sh + u dh - top, j sw + v dw - left], x being 0 outside.
    """
    p = problem
    x, weight = np.asarray(x, np.float64), np.asarray(weight, np.float64)
    if p.layout == "nhwc":
        x, weight = x.transpose(0, 3, 1, 2), weight.transpose(3, 2, 0, 1)
    (sh, sw), (dh, dw), (top, bottom, left, right) = p.stride, p.dilation, p.padding
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right))).reshape(p.n, p.groups, p.icg, p.ih + top + bottom, p.iw + left + right)
    weight = weight.reshape(p.groups, p.ocg, p.icg, p.kh, p.kw)
    y = np.zeros((p.n, p.groups, p.ocg, p.oh * p.ow))
    for u in range(p.kh):
        for v in range(p.kw):
            rows = slice(u * dh, u * dh + (p.oh - 1) * sh + 1, sh)
            columns = slice(v * dw, v * dw + (p.ow - 1) * sw + 1, sw)
            with np.errstate(invalid="ignore"):  # infinities among the data are the caller's
                y += np.matmul(weight[:, :, :, u, v], x[..., rows, columns].reshape(p.n, p.groups, p.icg, p.oh * p.ow))
    y = y.reshape(p.n, p.oc, p.oh, p.ow)
    if p.layout == "nhwc":
        y = y.transpose(0, 2, 3, 1)
    if bias is not None:
        y = y + (np.asarray(bias, np.float64) if p.layout == "nhwc" else np.asarray(bias, np.float64)[:, None, None])
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
