"""`int8_depthwise`: one input channel of 8-bit integers an output channel, exact, by dot products along the rows of the kernel."""

from __future__ import annotations

import math

import numpy as np

from cpuconv._native import core
from cpuconv.algorithms import int8
from cpuconv.cpu import Cpu
from cpuconv.plan import Array, Cost, Rejection
from cpuconv.problem import Problem


class DepthwisePlan(int8.Int8Plan):
    def lanes(self, elements: Array) -> Array:
        """Lanes hold neighbouring taps of a row: (kh, lanes of kw, channels), channels first for NCHW."""
        p, length = self.problem, self.dot_length
        count = -(-p.kw // length)
        taps = np.zeros((p.kh, count * length, self._channels), elements.dtype)
        taps[:, : p.kw, : p.oc] = elements.reshape(p.kh, p.kw, p.oc)
        lanes = taps.reshape(p.kh, count, length, self._channels)
        return np.ascontiguousarray(np.moveaxis(lanes, 2, 3) if p.layout == "nhwc" else np.moveaxis(lanes, 3, 0))

    def padded(self, values: Array) -> Array:
        padded = np.zeros(self._channels, values.dtype)
        padded[: values.size] = values
        return padded

    @property
    def _channels(self) -> int:
        """Those of whole vectors."""
        vl = self.cpu.vector_length("f32")
        return -(-self.problem.oc // vl) * vl


class Int8Depthwise:
    name = "int8_depthwise"
    version = 1
    plain = True
    strided = False

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        p = problem
        if rejection := int8.unsupported(p):
            return rejection
        if p.depth or not p.groups == p.ic == p.oc:
            return Rejection("it does depthwise convolutions of one or two dimensions, one output channel for each input channel")
        return None

    def _rows(self, p: Problem, cpu: Cpu) -> int:
        """Output rows of a band: the lanes of its input rows stay in a quarter of L2."""
        row = self._columns(p, cpu) * (cpu.isa_row.vector_bytes if p.layout == "nhwc" else 4)
        fitting = (cpu.l2 // 4 // row - (p.kh - 1) * p.dilation[0] - 1) // p.stride[0] + 1
        return max(1, min(p.oh, fitting))

    def _columns(self, p: Problem, cpu: Cpu) -> int:
        """Lanes of an input row."""
        length, vl = core.int8_dot(cpu.isa)[0], cpu.vector_length("f32")
        lanes = -(-p.kw // length)
        if p.layout == "nhwc":
            return (p.ow - 1) * p.stride[1] + lanes * length * p.dilation[1]
        return lanes * -(-p.ow // vl) * vl

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p, vl, rows = problem, cpu.vector_length("f32"), self._rows(problem, cpu)
        length, columns = core.int8_dot(cpu.isa)[0], self._columns(problem, cpu)
        in_rows, bands = (rows - 1) * p.stride[0] + (p.kh - 1) * p.dilation[0] + 1, math.ceil(p.oh / rows)
        vectors = -(-p.ic // vl) if p.layout == "nhwc" else p.ic / vl
        made = p.n * vectors * bands * in_rows * columns * (5 if p.layout == "nhwc" else 2.5 * length)
        outputs = p.n * (vectors * p.oh * p.ow if p.layout == "nhwc" else vectors * p.oh * -(-p.ow // vl) * vl)
        cycles = made + outputs * (1.5 * p.kh * -(-p.kw // length) + 4)
        lanes = -(-p.kw // length) * p.kh * (-(-p.oc // vl) * vl)
        workspace = in_rows * columns * (4 * vl if p.layout == "nhwc" else 4) + 64 + (p.stride[1] * (columns + p.kw * p.dilation[1]))
        return Cost(2e-6 + cycles * 0.6e-9 / cpu.ghz * 2, workspace, 4 * lanes, 0.0, lanes * 1e-8)

    def build(self, problem: Problem, cpu: Cpu) -> DepthwisePlan:
        convolution = int8.convolution(problem, cpu, core.DEPTHWISE, self._rows(problem, cpu))
        return DepthwisePlan(problem, self.estimate(problem, cpu), cpu, convolution)
