"""The oracle: convolution in float64 NumPy, one tap at a time, written for its obviousness."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from cpuconv.plan import Array
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
