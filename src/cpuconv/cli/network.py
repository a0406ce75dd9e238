"""The demo's stack of ResNet-like layers, and the same layers the NumPy way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from cpuconv.cli import measure
from cpuconv.layers import Conv2d
from cpuconv.plan import Array
from cpuconv.planner import DEFAULT_ACCURACY

SIZE = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's photos
NUMPY = "NumPy"


@dataclass(frozen=True)
class Layer:
    """A square convolution with bias and ReLU, then max-pooling by `pool`."""

    channels: int
    kernel: int
    stride: int = 1
    depthwise: bool = False
    pool: int = 1


STACK = (
    Layer(64, 7, stride=2, pool=2),
    Layer(64, 1),
    Layer(64, 3),
    Layer(256, 1),
    Layer(256, 3, depthwise=True),
    Layer(128, 1),
    Layer(128, 3, stride=2),
    Layer(128, 3),
    Layer(256, 1),
    Layer(256, 3, stride=2),
    Layer(256, 3),
    Layer(256, 5, depthwise=True),
    Layer(512, 1),
    Layer(512, 3, stride=2),
    Layer(512, 3),
)


@dataclass(frozen=True)
class Comparison:
    """All that was measured of one layer. `chosen` is the planner's, `others` are fastest first."""

    label: str
    flops: int
    chosen: measure.Measured
    others: list[measure.Measured]
    numpy: measure.Measured
    output: Array

    @property
    def all(self) -> list[measure.Measured]:
        return [self.chosen, *self.others, self.numpy]

    @property
    def fastest(self) -> float:
        return min(m.seconds for m in (self.chosen, *self.others))

    def speedup(self, m: measure.Measured) -> float:
        return self.numpy.seconds / m.seconds


def first_input(photo: Array, layout: str) -> Array:
    """A photo of SIZE x SIZE x 3 from 0 to 1, normalised as networks are fed."""
    x = ((photo - MEAN) / DEVIATION).astype(np.float32)[None]
    return x if layout == "NHWC" else np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def compare(layer: Layer, x: Array, layout: str, rng: np.random.Generator, seconds: float) -> Comparison:
    """Run one layer in every way there is: check each result, then time them all."""
    channels, size = (x.shape[1], x.shape[2]) if layout == "NCHW" else (x.shape[3], x.shape[1])
    groups = channels if layer.depthwise else 1
    shape = (layer.channels, channels // groups, layer.kernel, layer.kernel)
    weight = rng.normal(0, math.sqrt(2 / math.prod(shape[1:])), shape).astype(np.float32)  # He et al., 2015
    weight = weight if layout == "NCHW" else np.ascontiguousarray(weight.transpose(2, 3, 1, 0))
    bias = rng.normal(0, 0.1, layer.channels).astype(np.float32)
    options: dict[str, Any] = {"stride": layer.stride, "padding": layer.kernel // 2, "groups": groups, "layout": layout, "activation": "relu"}

    auto = Conv2d(weight, bias, **options)
    rows = [row for row in measure.candidates(auto, x) if row.algorithm.name != "reference"]
    calls: dict[str, Callable[[Array], Array]] = {row.algorithm.name: Conv2d(weight, bias, **options, algorithm=row.algorithm.name) for row in rows}
    bounds = {row.algorithm.name: row.cost.error for row in rows if row.cost}
    chosen = rows[0].algorithm.name
    calls |= {chosen: auto, NUMPY: numpy_way(weight, bias, layer.stride, layer.kernel // 2, groups, layout)}
    bounds[NUMPY] = DEFAULT_ACCURACY["f32"]

    expected = measure.reference(x, weight, bias, **options)
    scale = float(np.abs(expected).max())
    errors = {name: measure.error(call(x), expected, scale) for name, call in calls.items()}
    times = measure.best_times({name: lambda call=call: call(x) for name, call in calls.items()}, seconds)  # type: ignore[misc]
    measured = {name: measure.Measured(name, times[name], errors[name], bounds[name]) for name in calls}
    others = sorted((m for name, m in measured.items() if name not in (chosen, NUMPY)), key=lambda m: m.seconds)
    label = f"{layer.kernel}x{layer.kernel}{f'/{layer.stride}' if layer.stride > 1 else ''} "
    label += f"depthwise {channels}" if layer.depthwise else f"{channels}→{layer.channels}"
    flops = 2 * expected.size * math.prod(shape[1:])
    return Comparison(f"{label}, {size}x{size}", flops, measured[chosen], others, measured[NUMPY], max_pool(auto(x), layer.pool, layout))


def numpy_way(weight: Array, bias: Array, stride: int, padding: int, groups: int, layout: str) -> Callable[[Array], Array]:
    """The convolution as one writes it in NumPy: windows as the columns of a matrix (im2col), and a matrix product per group."""
    nchw = layout == "NCHW"
    kernel = weight.shape[2] if nchw else weight.shape[0]
    oc = len(bias)
    if nchw:
        matrix, offset = weight.reshape(groups, oc // groups, -1), bias[:, None]
    else:
        matrix, offset = np.ascontiguousarray(weight.reshape(-1, groups, oc // groups).swapaxes(0, 1)), bias
    axes = (2, 3) if nchw else (1, 2)
    pads = [(padding, padding) if axis in axes else (0, 0) for axis in range(4)]
    step = tuple(slice(None, None, stride) if axis in axes else slice(None) for axis in range(4))

    def call(x: Array) -> Array:
        x = np.pad(x, pads) if padding else x
        windows = sliding_window_view(x, (kernel, kernel), axes)[step]
        n = len(x)
        if nchw:
            _, c, oh, ow, *_ = windows.shape
            columns = windows.transpose(0, 1, 4, 5, 2, 3).reshape(n, groups, c // groups * kernel**2, oh * ow)
            y = np.matmul(matrix, columns).reshape(n, oc, oh * ow)
        else:
            _, oh, ow, c, *_ = windows.shape
            by_group = windows.reshape(n, oh, ow, groups, c // groups, kernel, kernel)
            columns = by_group.transpose(0, 3, 1, 2, 5, 6, 4).reshape(n, groups, oh * ow, -1)
            y = np.matmul(columns, matrix).swapaxes(1, 2).reshape(n, oh * ow, oc)
        y += offset
        np.maximum(y, 0, out=y)
        return y.reshape((n, oc, oh, ow) if nchw else (n, oh, ow, oc))

    return call


def max_pool(x: Array, factor: int, layout: str) -> Array:
    if factor == 1:
        return x
    n, *rest = x.shape
    if layout == "NCHW":
        c, h, w = rest
        return np.ascontiguousarray(x.reshape(n, c, h // factor, factor, w // factor, factor).max(axis=(3, 5)))
    h, w, c = rest
    return np.ascontiguousarray(x.reshape(n, h // factor, factor, w // factor, factor, c).max(axis=(2, 4)))
