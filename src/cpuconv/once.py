"""A convolution whose weight is given for one call. It is packed each time, so all that follows from options, shapes and types alone is kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from cpuconv import arguments, planner
from cpuconv.layer import Bind, Layer, Planned, empty
from cpuconv.options import Options
from cpuconv.plan import NUMPY_DTYPES, Array
from cpuconv.threads import for_work


def once(
    options: Options, x: Any, weight: Any, bias: Any, activation: Any, residual: Any, algorithm: str, accuracy: Any, workspace_limit: Any, out: Any
) -> Array:
    """A layer's only call: it borrows the weight, and counts the time of packing it."""
    settings = activation, algorithm, accuracy, workspace_limit

    def layer() -> Layer:
        return Layer(options, weight, bias, *settings, one_shot=True)

    if residual is None and all(map(_settled, settings)) and _as_they_are(x, weight, bias, out):
        shapes = x.shape, weight.shape, None if bias is None else bias.shape
        planned = planner.kept((options, settings, shapes, x.dtype), lambda: layer().planned(x))
        if planned.bind and (result := _run(planned, planned.bind, x, weight, bias, out)) is not None:
            return result
    arguments.check_apart(out, weight=weight, bias=bias)
    return layer()(x, residual, out)


def _settled(value: Any) -> bool:
    """Whether a setting may be looked up: it is equal to none that another rule holds for, as True is to 1, and 1.0."""
    return value is None or type(value) in (str, float)


def _as_they_are(x: Any, weight: Any, bias: Any, out: Any) -> bool:
    """Whether the arrays need no conversion, and out is apart from weight and bias."""
    if type(x) is not np.ndarray or x.dtype not in NUMPY_DTYPES.values() or not x.flags.c_contiguous:
        return False
    inputs = (x, weight) if bias is None else (x, weight, bias)
    for a in inputs if out is None else (*inputs, out):  # a loop: a generator takes a third of a microsecond more
        if type(a) is not np.ndarray or a.dtype is not x.dtype:
            return False
    return out is None or not any(np.may_share_memory(out, a) for a in inputs)


def _run(planned: Planned, bind: Bind, x: Array, weight: Array, bias: Array | None, out: Array | None) -> Array | None:
    """The result, or None where the plan does not take the arrays as they are."""
    seconds = planned.plan.cost.seconds
    packed = planned.plan.pack(arguments.contiguous(weight, x.dtype), None if bias is None else arguments.contiguous(bias, x.dtype))
    result = empty(planned.shape, x.dtype, seconds) if out is None else out
    return result if bind(packed, x.shape, planned.shape).run(x, result, for_work(seconds)) else None
