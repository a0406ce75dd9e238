"""`int8_gemm`: convolutions of 8-bit integers, exact, by dot products of 8 (or widened to 16) bits on packed weights.

The blocking is that of `implicit_gemm`, with 32-bit lanes of a few channels for elements; images become channel-last strips first, whose padding is
the zero point, unless they can be read in place.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from cpuconv._native import core
from cpuconv.algorithms import native
from cpuconv.cpu import Cpu
from cpuconv.plan import Array, Cost, Quantization, Rejection, aligned_empty, plain_integers, types
from cpuconv.problem import INTEGER_DTYPES, Axis, Problem

PIXELS = 192  # output pixels of a band, at least


class Packed(NamedTuple):
    """The arguments of Int8Convolution.run between x and y, `bias`, `w_zero` and `scale` padded to whole panels."""

    weight: Array
    bias: Array
    w_zero: Array | None
    scale: Array | None
    x_zero: int
    y_zero: int


@dataclass(frozen=True)
class Int8Plan:
    """One C `Int8Convolution`, and what its weight becomes."""

    problem: Problem
    cost: Cost
    weight_format: Hashable
    convolution: core.Int8Convolution = field(repr=False)
    dot_length: int
    dot_signed: bool
    vector_length: int
    strided: bool = False

    def pack(self, weight: Array, bias: Array | None, quantization: Quantization | None = None) -> Packed:
        p, q = self.problem, quantization or plain_integers(self.problem)
        weight = weight.reshape(p.weight_shape)
        w = np.moveaxis(weight, (0, 1), (-1, -2)) if p.layout == "nchw" else weight
        sums = np.zeros(p.oc, np.int64) if bias is None else bias.astype(np.int64)
        w_zero: Array | None = None
        if self.dot_length == 4:
            # The instruction takes one signedness: e = x + x_shift and v = w + w_shift are of it, as are their zero points.
            kind = types(p.dtype)
            x_shift = 128 * (int(kind.x == np.int8) - int(self.dot_signed))
            w_shift = -128 * int(kind.weight == np.uint8)
            elements = (w ^ np.uint8(128)).view(np.int8) if w_shift else w
            x_zero, zero = q.x_zero_point + x_shift, q.w_zero_point.astype(np.int64) + w_shift
            sums += x_zero * (p.k * zero - elements.sum(axis=tuple(range(w.ndim - 1)), dtype=np.int64))
            w_zero = zero.astype(np.int32) if zero.any() else None
        else:
            elements = w - q.w_zero_point.astype(np.int16)
        lanes = self._lanes(elements)
        packed = aligned_empty(self.convolution.packed_size(), np.dtype(np.int32))
        self.convolution.pack(lanes, packed)
        bias_and_zeros = self._padded(sums.astype(np.int32)), None if w_zero is None else self._padded(w_zero)
        return Packed(packed, *bias_and_zeros, None if q.scale is None else self._padded(q.scale), q.x_zero_point, q.y_zero_point)

    def _lanes(self, elements: Array) -> Array:
        """(taps, ic/groups, oc) to (groups, taps, lanes of ic/groups, oc/groups, elements of a lane)."""
        p, *taps = self.problem, *elements.shape[:-2]
        count = -(-p.icg // self.dot_length)
        lanes = np.zeros((p.groups, *taps, count * self.dot_length, p.ocg), elements.dtype)
        lanes[:, ..., : p.icg, :] = np.moveaxis(elements.reshape(*taps, p.icg, p.groups, p.ocg), -2, 0)
        return np.ascontiguousarray(lanes.reshape(p.groups, *taps, count, self.dot_length, p.ocg).swapaxes(-1, -2))

    def _padded(self, values: Array) -> Array:
        p = self.problem
        padded = np.zeros((p.groups, -(-p.ocg // self.vector_length) * self.vector_length), values.dtype)
        padded[:, : p.ocg] = values.reshape(p.groups, p.ocg)
        return padded

    def run(self, x: Array, packed: Packed, residual: Array | None, out: Array, threads: int) -> None:
        if self.problem.depth is None:
            axis = 2 if self.problem.layout == "nchw" else 1
            x, out = np.expand_dims(x, axis), np.expand_dims(out, axis)
        self.convolution.run(x, *packed, out, threads)


class Int8Gemm:
    name = "int8_gemm"
    version = 1
    plain = True

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        return None if problem.dtype in INTEGER_DTYPES and problem.pass_ == "forward" else Rejection("it does forward convolutions of 8-bit integers")

    def _rows(self, p: Problem, cpu: Cpu) -> int:
        """Output rows of a band: its strip stays in half of L2."""
        width = (p.ow - 1) * p.stride[1] + (p.kw - 1) * p.dilation[1] + 1
        row = width * p.icg * (1 if core.int8_dot(cpu.isa)[0] == 4 else 2)
        fitting = (cpu.l2 // 2 // row - (p.kh - 1) * p.dilation[0] - 1) // p.stride[0] + 1
        return max(1, min(p.oh, math.ceil(PIXELS / p.ow), fitting))

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p = problem
        length, _ = core.int8_dot(cpu.isa)
        vl, rows = cpu.vector_length("f32"), self._rows(p, cpu)
        icg, ocg = -(-p.icg // length) * length, -(-p.ocg // vl) * vl
        in_rows, width = (rows - 1) * p.stride[0] + (p.kh - 1) * p.dilation[0] + 1, (p.ow - 1) * p.stride[1] + (p.kw - 1) * p.dilation[1] + 1
        strip, sums, bands = in_rows * width * icg, rows * p.ow * min(ocg, 4 * vl), math.ceil(p.oh / rows)
        pace = {4: 4.0, 2: 1.3}[length]  # multiply-adds beside those of float32; without dot products of bytes, multiplication and addition are two
        outputs, slices = math.prod(p.y_shape), p.depth.out * p.depth.kernel if p.depth else 1
        compute = p.flops * (icg / p.icg) * (ocg / p.ocg) / (pace * cpu.peak("f32"))
        moved = p.n * p.groups * slices * bands * strip * 0.15 + outputs * (6 if p.layout == "nchw" or p.dtype[4:] != "s32" else 3) / vl
        seconds = 2e-6 + compute / 0.95 + moved * 1e-9 / cpu.ghz
        taps = p.depth.kernel if p.depth else 1
        weight = p.k // p.icg * p.groups * icg * ocg * 4 // length
        return Cost(seconds, taps * strip * 4 // length + 8 * sums, weight, 0.0, weight / 0.5e9)

    def build(self, problem: Problem, cpu: Cpu) -> Int8Plan:
        p = problem
        kind = types(p.dtype)
        signs = kind.x == np.int8, kind.y == np.int8
        d = p.depth or Axis(1, 1)
        depth = d.size, d.kernel, d.stride, d.before, d.dilation, d.out
        convolution = core.Int8Convolution(cpu.isa, native.geometry(p), depth, self._rows(p, cpu), signs)
        return Int8Plan(p, self.estimate(p, cpu), (self.name, cpu.isa), convolution, *core.int8_dot(cpu.isa), cpu.vector_length("f32"))
