"""What the algorithms of 8-bit integers share: how zero points become constants, and the call."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from cpuconv._native import core
from cpuconv.algorithms import native
from cpuconv.cpu import Cpu
from cpuconv.plan import Array, Cost, Quantization, Rejection, plain_integers, types
from cpuconv.problem import INTEGER_DTYPES, Axis, Problem


class Packed(NamedTuple):
    """The arguments of Int8Convolution.run between x and y."""

    weight: Array
    bias: Array
    w_zero: Array | None
    scale: Array | None
    x_zero: int
    y_zero: int


class Operands(NamedTuple):
    """The weight's elements (taps, ic/groups, oc), what is added to the sums of products, and what the sums of x are multiplied by and subtracted."""

    elements: Array
    bias: Array
    w_zero: Array | None


def unsupported(p: Problem) -> Rejection | None:
    if p.dtype not in INTEGER_DTYPES or p.pass_ != "forward":
        return Rejection("it does forward convolutions of 8-bit integers")
    return None


def pace(cpu: Cpu) -> float:
    """Multiply-adds beside those of float32: without dot products of bytes, multiplication and addition are two instructions."""
    return 4.0 if core.int8_dot(cpu.isa)[0] == 4 else 1.3


def convolution(p: Problem, cpu: Cpu, kind: int, rows: int, channels: int = 0) -> core.Int8Convolution:
    depth = p.depth or Axis(1, 1)
    ints = depth.size, depth.kernel, depth.stride, depth.before, depth.dilation, depth.out
    kinds = types(p.dtype)
    signs = kinds.x == np.int8, kinds.y == np.int8, kinds.y.itemsize == 1
    return core.Int8Convolution(cpu.isa, kind, native.geometry(p, cpu), ints, rows, channels, signs)


@dataclass(frozen=True)
class Int8Plan:
    """One C `Int8Convolution`; the algorithms say how its weight is laid out."""

    problem: Problem
    cost: Cost
    cpu: Cpu
    convolution: core.Int8Convolution = field(repr=False)

    @property
    def weight_format(self) -> tuple[Hashable, ...]:
        return type(self).__name__, self.cpu.isa, self.convolution.form()

    @property
    def dot_length(self) -> int:
        return core.int8_dot(self.cpu.isa)[0]

    @property
    def subtracts(self) -> bool:
        """Whether the kernel multiplies numbers less their zero points."""
        return self.dot_length == 2

    def lanes(self, elements: Array, lasting: bool) -> Array:
        """The weight as the kernel reads it."""
        raise NotImplementedError

    def padded(self, values: Array) -> Array:
        """One value for each output channel, as the kernel reads them."""
        raise NotImplementedError

    def pack(self, weight: Array, bias: Array | None, quantization: Quantization | None = None, *, lasting: bool = False) -> Packed:
        q = quantization or plain_integers(self.problem)
        elements, sums, w_zero = self._operands(weight.reshape(self.problem.weight_shape), bias, q)
        per_channel = (self.padded(sums), None if w_zero is None else self.padded(w_zero), None if q.scale is None else self.padded(q.scale))
        return Packed(self.lanes(elements, lasting), *per_channel, q.x_zero_point, q.y_zero_point)

    def _operands(self, weight: Array, bias: Array | None, q: Quantization) -> Operands:
        p, (_, dot_signed) = self.problem, core.int8_dot(self.cpu.isa)
        w = np.moveaxis(weight, (0, 1), (-1, -2)) if p.layout == "nchw" else weight
        sums = np.zeros(p.oc, np.int64) if bias is None else bias.astype(np.int64)
        if self.subtracts:
            return Operands(w - q.w_zero_point.astype(np.int16), sums.astype(np.int32), None)
        # The instruction takes one signedness: x + x_shift and w + w_shift are of it, and so are their zero points.
        kinds = types(p.dtype)
        x_shift = 128 * (int(kinds.x == np.int8) - int(dot_signed))
        w_shift = -128 * int(kinds.weight == np.uint8)
        elements = (w ^ np.uint8(128)).view(np.int8) if w_shift else w
        x_zero, w_zero = q.x_zero_point + x_shift, q.w_zero_point.astype(np.int64) + w_shift
        sums += x_zero * (p.k * w_zero - elements.sum(axis=tuple(range(w.ndim - 1)), dtype=np.int64))
        return Operands(elements, sums.astype(np.int32), w_zero.astype(np.int32) if w_zero.any() else None)

    def run(self, x: Array, packed: Packed, residual: Array | None, out: Array, threads: int) -> None:
        if self.problem.depth is None:
            x, out = (x[:, :, None], out[:, :, None]) if self.problem.layout == "nchw" else (x[:, None], out[:, None])
        self.convolution.run(x, *packed, out, threads)
