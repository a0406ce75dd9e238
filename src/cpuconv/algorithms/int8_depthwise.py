"""`int8_depthwise`: one input channel of 8-bit integers an output channel, exact.

NHWC: dot products along the columns of the kernel. NCHW: the kernels of `depthwise` on planes brought to float32, in which such sums are exact.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import replace

import numpy as np

from cpuconv._native import core
from cpuconv.algorithms import bands, int8
from cpuconv.cpu import Cpu
from cpuconv.plan import Array, Cost, Rejection
from cpuconv.problem import Problem

PIXELS = 256  # outputs of a band, in NHWC
LANES = 16384  # bytes of input in lanes, to stay in L1, in NHWC
EXACT = 258  # products of differences of bytes, 255 x 255 at most, whose sum has 24 bits


def rows_together(p: Problem, cpu: Cpu) -> int:
    """Rows of outputs that share lanes, in NHWC."""
    length = core.int8_dot(cpu.isa)[0]
    return -(-p.kh // length) * length - p.kh + 1 if p.stride[0] == p.dilation[0] == 1 else 1


def float_part(p: Problem, cpu: Cpu) -> Problem:
    """The rows and channels of planes that are floats at a time, in NCHW: as many as half of L2 holds."""
    whole, vl = replace(p, n=1, dtype="f32"), cpu.vector_length("f32")
    rows = bands.rows(whole, cpu)
    fitting = max(1, cpu.l2 // 2 // bands.row_bytes(whole, vl) // rows)
    channels = min(vl, 1 << fitting.bit_length() - 1) if bands.by_planes(whole, vl) else vl
    part = replace(whole, ic=channels, oc=channels, groups=channels)
    if rows == p.oh:
        return part
    return replace(part, ih=(rows - 1) * p.stride[0] + (p.kh - 1) * p.dilation[0] + 1, padding=(0, 0, *p.padding[2:]))


class DepthwisePlan(int8.Int8Plan):
    @property
    def weight_format(self) -> tuple[Hashable, ...]:
        return *super().weight_format, self.problem.ow > 1  # on which the order of channels depends (`padded`)

    @property
    def subtracts(self) -> bool:
        return self.problem.layout == "nchw" or super().subtracts

    def lanes(self, elements: Array, lasting: bool) -> Array:
        return self._columns(elements) if self.problem.layout == "nhwc" else self._floats(elements)

    def _columns(self, elements: Array) -> Array:
        """Lanes hold neighbouring taps of a column: (blocks of channels, rows, lanes of kh, kw, channels), moved on for each row of outputs that
        shares them."""
        p, length = self.problem, self.dot_length
        w = elements.reshape(p.kh, p.kw, p.oc)
        count = -(-p.kh // length)
        together = rows_together(p, self.cpu)
        taps = np.zeros((together, count * length, p.kw, p.oc), elements.dtype)
        for row in range(together):
            taps[row, row : row + p.kh] = w
        lanes = np.moveaxis(taps.reshape(together, count, length, p.kw, p.oc), 2, 3)
        return np.ascontiguousarray(np.moveaxis(self.padded(lanes), (3, 4), (5, 0)))

    def _floats(self, elements: Array) -> Array:
        """The form of `depthwise`, (blocks of channels, taps and no bias, channels of a vector); what is read beyond the last row does not count."""
        p, vl = self.problem, self.cpu.vector_length("f32")
        blocks, taps = -(-p.oc // vl), p.kh * p.kw
        w = np.zeros((taps + 1, blocks * vl), np.float32)
        w[:taps, : p.oc] = elements.reshape(taps, p.oc)
        packed = np.zeros((blocks * (taps + 1) + 1, vl), np.float32)
        packed[:-1] = w.reshape(taps + 1, blocks, vl).swapaxes(0, 1).reshape(-1, vl)
        return packed

    def padded(self, values: Array) -> Array:
        """(..., channels) in the order of the kernels: in NHWC, (..., blocks, their channels), the last block overlapping the one before."""
        p, block = self.problem, self.cpu.isa_row.vector_bytes
        if p.layout == "nchw":
            return values
        starts, offsets = np.arange(0, p.oc, block), np.arange(block)
        channels = np.minimum(starts, max(0, p.oc - block))[:, None] + offsets
        if p.oc - starts[-1] <= block // 2 <= p.oc and p.ow > 1:
            channels[-1] = p.oc - block // 2 + offsets % (block // 2)  # twice
        channels = channels.reshape(-1, block // 4, 4).swapaxes(1, 2).reshape(-1, block)
        found: Array = np.where(channels < p.oc, values[..., np.minimum(channels, p.oc - 1)], 0)
        return found.astype(values.dtype)


class Int8Depthwise:
    name = "int8_depthwise"
    version = 3
    plain = True
    strided = False
    turns = False

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        p = problem
        if rejection := int8.unsupported(p):
            return rejection
        if p.depth or not p.groups == p.ic == p.oc:
            return Rejection("it does depthwise convolutions of one or two dimensions, one output channel for each input channel")
        if p.layout == "nchw" and p.kh * p.kw > EXACT:
            return Rejection(f"float32, in which it computes in NCHW, does not hold every sum of more than {EXACT} products")
        return None

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p = problem
        work, workspace, weight = (self._in_lanes if p.layout == "nhwc" else self._in_floats)(p, cpu)
        traffic = math.prod(p.x_shape) + math.prod(p.y_shape) * (4 if p.dtype.endswith("s32") else 1)
        return Cost(2e-6 + max(work, traffic / cpu.bandwidth(traffic)), workspace, weight, 0.0, weight * 2e-9)

    def _in_lanes(self, p: Problem, cpu: Cpu) -> tuple[float, int, int]:
        """Seconds of computation, bytes of workspace and of the packed weight."""
        block, (_, sw), together = cpu.isa_row.vector_bytes, p.stride, rows_together(p, cpu)
        lanes = -(-p.kh // core.int8_dot(cpu.isa)[0])
        vectors = p.n * p.oh * p.ow * (math.ceil(2 * p.ic / block) / 2)
        # cycles of so many outputs as a vector has bytes: making bytes, products, and bringing elements into lanes
        cycles = vectors * (16 + 7 * lanes * p.kw + 22 * lanes * sw / together)
        piece = 4 * block * lanes * (3 * sw + (p.kw - 1) * p.dilation[1] + 1)
        return cycles * 1e-9 / cpu.ghz, max(LANES, piece), 4 * lanes * p.kw * together * -(-p.oc // block) * block

    def _in_floats(self, p: Problem, cpu: Cpu) -> tuple[float, int, int]:
        """The same: beside the floating kernels' work, 2 cycles to make a vector of floats, 5 to make results of one, and 500 for a call."""
        part, vl = float_part(p, cpu), cpu.vector_length("f32")
        cycles, workspace = bands.work(part, cpu)
        cycles += 500 + (2 * math.prod(part.x_shape) + 5 * math.prod(part.y_shape)) / vl
        parts = p.n * -(-p.ic // part.ic) * -(-p.oh // part.oh)
        between = 4 * (math.prod(part.x_shape) + math.prod(part.y_shape) + 12 * vl)
        return parts * cycles * 1e-9 / cpu.ghz, between + workspace, -(-p.oc // vl) * vl * bands.weight_bytes(part)

    def build(self, problem: Problem, cpu: Cpu) -> DepthwisePlan:
        p = problem
        rows, channels = max(1, min(p.oh, PIXELS // p.ow)), 0
        if p.layout == "nchw":
            part = float_part(p, cpu)
            rows, channels = part.oh, part.ic
        convolution = int8.convolution(p, cpu, core.DEPTHWISE, rows, channels)
        return DepthwisePlan(problem, self.estimate(problem, cpu), cpu, convolution)
