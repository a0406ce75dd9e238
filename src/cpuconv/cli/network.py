"""The demo's stack of ResNet-like layers, each computed in every way there is."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cpuconv.cli import measure, numpy_way
from cpuconv.layers import Conv2d
from cpuconv.plan import Array
from cpuconv.planner import DEFAULT_ACCURACY
from cpuconv.threads import get_num_threads

SIZE = 224
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's photos


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

    label: str  # kernel and channels
    size: str  # of the input
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
        """Seconds of the best algorithm that the planner might have chosen."""
        return min(m.seconds for m in (self.chosen, *self.others) if m.eligible)

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
    chosen = rows[0].algorithm.name
    calls: dict[str, Callable[[Array], Array]] = {row.algorithm.name: Conv2d(weight, bias, **options, algorithm=row.algorithm.name) for row in rows}
    bounds = {row.algorithm.name: row.cost.error for row in rows if row.cost}
    calls[chosen] = auto
    numpy_calls = _numpy_calls(weight, bias, layer.stride, layer.kernel // 2, layer.depthwise, layout)
    calls |= numpy_calls
    bounds |= dict.fromkeys(numpy_calls, DEFAULT_ACCURACY["f32"])

    expected = measure.reference(x, weight, bias, **options)
    scale = float(np.abs(expected).max())
    errors = {name: measure.error(call(x), expected, scale) for name, call in calls.items()}
    times = measure.best_times({name: functools.partial(call, x) for name, call in calls.items()}, seconds)
    rejected = {row.algorithm.name for row in rows if row.rejection}
    measured = {name: measure.Measured(name, times[name], errors[name], bounds[name], name not in rejected) for name in calls}
    fastest_first = sorted(measured.values(), key=lambda m: m.seconds)
    others = [m for m in fastest_first if m.name != chosen and m.name not in numpy_calls]
    numpys = next(m for m in fastest_first if m.name in numpy_calls)
    label = f"{layer.kernel}x{layer.kernel}{f'/{layer.stride}' if layer.stride > 1 else ''} "
    label += f"{channels} depthwise" if layer.depthwise else f"{channels}→{layer.channels}"
    flops = 2 * expected.size * math.prod(shape[1:])
    return Comparison(label, f"{size}x{size}", flops, measured[chosen], others, numpys, max_pool(auto(x), layer.pool, layout))


def _numpy_calls(*arguments: Any) -> dict[str, Callable[[Array], Array]]:
    """NumPy with as many threads as cpuconv has, and with one, for its BLAS may lose by threads: the better one counts."""
    call = numpy_way.convolution(*arguments)
    set_threads = numpy_way.blas_thread_setter()
    if set_threads is None:
        return {"NumPy": call}

    def limited(n: int, x: Array) -> Array:
        set_threads(n)
        return call(x)

    return {f"NumPy, {n} thread{'s' * (n > 1)}": functools.partial(limited, n) for n in {1, get_num_threads()}}


def max_pool(x: Array, factor: int, layout: str) -> Array:
    if factor == 1:
        return x
    n, *rest = x.shape
    if layout == "NCHW":
        c, h, w = rest
        return np.ascontiguousarray(x.reshape(n, c, h // factor, factor, w // factor, factor).max(axis=(3, 5)))
    h, w, c = rest
    return np.ascontiguousarray(x.reshape(n, h // factor, factor, w // factor, factor, c).max(axis=(2, 4)))
