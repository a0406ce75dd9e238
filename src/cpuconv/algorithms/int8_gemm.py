"""`int8_gemm`: convolutions of 8-bit integers, exact, by dot products of 8 (or widened to 16) bits on packed weights.

The blocking is that of `implicit_gemm`, with 32-bit lanes of a few channels for elements; images become channel-last strips first, whose padding is
the zero point, unless they can be read in place.
"""

from __future__ import annotations

import math

import numpy as np

from cpuconv._native import core
from cpuconv.algorithms import int8
from cpuconv.cpu import Cpu
from cpuconv.plan import Array, Cost, Rejection, lasting_empty
from cpuconv.problem import Problem

PIXELS = 192  # output pixels of a band, at least


class GemmPlan(int8.Int8Plan):
    def lanes(self, elements: Array, lasting: bool) -> Array:
        """Lanes hold neighbouring channels: (groups, taps, lanes of ic/groups, oc/groups), and these in panels."""
        p, *taps = self.problem, *elements.shape[:-2]
        count = -(-p.icg // self.dot_length)
        lanes = np.zeros((p.groups, *taps, count * self.dot_length, p.ocg), elements.dtype)
        lanes[..., : p.icg, :] = np.moveaxis(elements.reshape(*taps, p.icg, p.groups, p.ocg), -2, 0)
        lanes = np.ascontiguousarray(lanes.reshape(p.groups, *taps, count, self.dot_length, p.ocg).swapaxes(-1, -2))
        packed = lasting_empty(self.convolution.packed_size(), np.dtype(np.int32), lasting)
        self.convolution.pack(lanes, packed)
        return packed

    def padded(self, values: Array) -> Array:
        p, vl = self.problem, self.cpu.vector_length("f32")
        padded = np.zeros((p.groups, -(-p.ocg // vl) * vl), values.dtype)
        padded[:, : p.ocg] = values.reshape(p.groups, p.ocg)
        return padded


class Int8Gemm:
    name = "int8_gemm"
    version = 4
    plain = True
    strided = False
    turns = False

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        return int8.unsupported(problem)

    def _rows(self, p: Problem, cpu: Cpu) -> int:
        """Output rows of a band: its strip stays in half of L2."""
        width = (p.ow - 1) * p.stride[1] + (p.kw - 1) * p.dilation[1] + 1
        row = width * p.icg * (1 if core.int8_dot(cpu.isa)[0] == 4 else 2)
        fitting = (cpu.l2 // 2 // row - (p.kh - 1) * p.dilation[0] - 1) // p.stride[0] + 1
        halo = (p.kh - 1) * p.dilation[0] - p.stride[0]
        return max(1, min(p.oh, max(math.ceil(PIXELS / p.ow), 2 * halo // p.stride[0]), fitting))

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p = problem
        length, _ = core.int8_dot(cpu.isa)
        vl, rows = cpu.vector_length("f32"), self._rows(p, cpu)
        icg, ocg = -(-p.icg // length) * length, -(-p.ocg // vl) * vl
        in_rows, width = (rows - 1) * p.stride[0] + (p.kh - 1) * p.dilation[0] + 1, (p.ow - 1) * p.stride[1] + (p.kw - 1) * p.dilation[1] + 1
        strip, sums, bands = in_rows * width * icg, rows * p.ow * min(ocg, 4 * vl), math.ceil(p.oh / rows)
        outputs, slices = math.prod(p.y_shape), p.depth.out * p.depth.kernel if p.depth else 1
        compute = p.flops * (icg / p.icg) * (ocg / p.ocg) / (int8.pace(cpu) * cpu.peak("f32"))
        moved = p.n * p.groups * slices * bands * strip * 0.15 + outputs * (6 if p.layout == "nchw" or p.dtype[4:] != "s32" else 3) / vl
        seconds = 2e-6 + compute / 0.95 + moved * 1e-9 / cpu.ghz
        taps = p.depth.kernel if p.depth else 1
        weight = p.k // p.icg * p.groups * icg * ocg * 4 // length
        return Cost(seconds, taps * strip * 4 // length + 8 * sums, weight, 0.0, weight / 0.5e9)

    def build(self, problem: Problem, cpu: Cpu) -> GemmPlan:
        convolution = int8.convolution(problem, cpu, core.IMPLICIT_GEMM, self._rows(problem, cpu))
        return GemmPlan(problem, self.estimate(problem, cpu), cpu, convolution)
