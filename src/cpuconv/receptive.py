"""`receptive_field`: what a unit of a stack of layers sees of the input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cpuconv import arguments
from cpuconv.layer import Layer
from cpuconv.options import TransposedOptions

FIELDS = ("kernel_size", "stride", "padding", "dilation")


class ReceptiveField(NamedTuple):
    """For each axis: output ``i`` sees the inputs ``start + i * jump`` to ``start + i * jump + size - 1``; a negative start lies in the padding."""

    size: tuple[int, ...]
    jump: tuple[int, ...]
    start: tuple[int, ...]

    def region(self, *output: int) -> tuple[slice, ...]:
        """Return the slices of the input that the output at these indices sees, without what lies in the padding before it.

        Raises
        ------
        ValueError
            If there is not one index, at least 0, for each axis.

        Examples
        --------
        >>> receptive_field([(3, 2, 1), (3, 1, 1)]).region(0, 2)
        (slice(0, 4, None), slice(1, 8, None))
        """
        if len(output) != len(self.size) or min(output) < 0:
            raise ValueError(f"output: {output} must be an index, at least 0, for each of {len(self.size)} axes")
        first = [start + i * jump for i, jump, start in zip(output, self.jump, self.start, strict=True)]
        return tuple(slice(max(f, 0), max(f + size, 0)) for f, size in zip(first, self.size, strict=True))


def receptive_field(layers: Iterable[Any]) -> ReceptiveField:
    """Return the receptive field of a stack of convolutions or poolings, first layer first.

    With ``jump`` the product of the strides before a layer, ``size = 1 + sum of (kernel_size - 1) * dilation * jump`` and
    ``start = -sum of padding * jump`` (A. Araujo, W. Norris and J. Sim, "Computing Receptive Fields of Convolutional Neural
    Networks", Distill, 2019, equations 2 and 4). Where branches meet, as in a residual block, the longest path decides the size.

    Parameters
    ----------
    layers : iterable
        Each one a layer (`Conv1d`, `Conv2d`, `Conv3d`), a tuple ``(kernel_size, stride, padding, dilation)`` of which the last ones may
        be left out, or a dict of these names. The values are those of `conv2d`; an int holds for every axis, and stacks of nothing but
        ints have two.

    Returns
    -------
    ReceptiveField
        Named tuple of ``size``, ``jump`` (the stride of the whole stack) and ``start`` (the first input that the first output sees), each with a
        number for each axis.

    Raises
    ------
    ValueError, TypeError
        If a layer breaks the rules; the message gives its index. The padding "same" of a strided layer depends on the size of
        its input, so it must be given in numbers.

    Examples
    --------
    The first layers of a ResNet (a 7x7 convolution and a 3x3 pooling, both of stride 2), and its first 3x3 convolution:

    >>> receptive_field([(7, 2, 3), (3, 2, 1), (3, 1, 1)])
    ReceptiveField(size=(19, 19), jump=(4, 4), start=(-9, -9))
    >>> receptive_field([{"kernel_size": (3, 5), "dilation": 2, "padding": "same"}])
    ReceptiveField(size=(5, 9), jump=(1, 1), start=(-2, -4))
    """
    parsed = [_layer(f"layers[{i}]", layer) for i, layer in enumerate(layers)]
    counts = {len(value) for layer in parsed for value in layer if isinstance(value, tuple)}
    if len(counts) > 1:
        raise ValueError(f"layers: must all have the same number of axes, got {' and '.join(map(str, sorted(counts)))}")
    axes = counts.pop() if counts else 2
    size, jump, start = [1] * axes, [1] * axes, [0] * axes
    for layer in parsed:
        for axis in range(axes):
            kernel, stride, before, dilation = (value[axis] if isinstance(value, tuple) else value for value in layer)
            size[axis] += (kernel - 1) * dilation * jump[axis]
            start[axis] -= before * jump[axis]
            jump[axis] *= stride
    return ReceptiveField(tuple(size), tuple(jump), tuple(start))


Numbers = int | tuple[int, ...]
"""A number for every axis, or one for each."""


class _Layer(NamedTuple):
    kernel: Numbers
    stride: Numbers
    before: Numbers
    dilation: Numbers


def _layer(name: str, layer: Any) -> _Layer:
    if isinstance(layer, Layer):
        o = layer.options
        if isinstance(o, TransposedOptions):
            raise ValueError(f"{name}: a transposed convolution has no jump in whole pixels, got {layer!r}")
        pads: Any = o.padding if isinstance(o.padding, str) else tuple(zip(o.padding[::2], o.padding[1::2], strict=True))
        return _layer(name, (o.kernel_size(layer.weight.shape), o.stride, pads, o.dilation))
    if isinstance(layer, Mapping):
        if unknown := [key for key in layer if key not in FIELDS]:
            raise ValueError(f"{name}: {unknown[0]!r} is not one of {', '.join(FIELDS)}")
        fields = dict(layer)
    elif isinstance(layer, tuple | list):
        if len(layer) > len(FIELDS):
            raise ValueError(f"{name}: {layer!r} must be ({', '.join(FIELDS)})")
        fields = dict(zip(FIELDS, layer, strict=False))
    else:
        raise TypeError(f"{name}: must be a layer, a tuple ({', '.join(FIELDS)}) or a dict of these, got {layer!r}")
    if "kernel_size" not in fields:
        raise ValueError(f"{name}: has no kernel_size")
    kernel, stride, dilation = (_numbers(f"{name} {key}", fields.get(key, 1), 1) for key in ("kernel_size", "stride", "dilation"))
    return _Layer(kernel, stride, _before(f"{name} padding", fields.get("padding", 0), kernel, stride, dilation), dilation)


def _numbers(name: str, value: Any, minimum: int) -> Numbers:
    rule = "an int, or one for each axis"
    result = tuple(arguments.integer(name, v, rule) for v in value) if isinstance(value, tuple | list) else arguments.integer(name, value, rule)
    if result == () or min(result if isinstance(result, tuple) else (result,)) < minimum:
        raise ValueError(f"{name}: {value!r} must be at least {minimum} along each axis")
    return result


def _before(name: str, value: Any, kernel: Numbers, stride: Numbers, dilation: Numbers) -> Numbers:
    """Padding at the start of each axis."""
    if isinstance(value, tuple | list) and value and all(isinstance(v, tuple | list) for v in value):
        pairs = [_numbers(name, pair, 0) for pair in value]
        if any(len(pair) != 2 for pair in value):
            raise ValueError(f"{name}: {value!r} must give a pair (before, after) for each axis")
        return tuple(pair[0] for pair in pairs if isinstance(pair, tuple))
    if not isinstance(value, str):
        return _numbers(name, value, 0)
    if value not in arguments.PADDING_NAMES:
        raise ValueError(f"{name}: {value!r} is not one of {', '.join(arguments.PADDING_NAMES)}")
    if value == "valid":
        return 0
    if np.max(stride) > 1:
        raise ValueError(f"{name}: {value!r} with stride {stride} depends on the size of the input; give it in numbers")
    before = ((np.asarray(kernel) - 1) * np.asarray(dilation) + (value == "same_lower")) // 2
    return tuple(before.tolist()) if before.ndim else int(before)
