"""`int8_depthwise`: one input channel of 8-bit integers an output channel, exact, by dot products along the columns of the kernel."""

from __future__ import annotations

import math

import numpy as np

from cpuconv._native import core
from cpuconv.algorithms import int8
from cpuconv.cpu import Cpu
from cpuconv.plan import Array, Cost, Rejection
from cpuconv.problem import Problem

PIXELS = 256  # outputs of a band, in NHWC
LANES = 16384  # bytes of input in lanes, to stay in L1


def rows_together(p: Problem, cpu: Cpu) -> int:
    """Rows of outputs that share lanes in NHWC."""
    length = core.int8_dot(cpu.isa)[0]
    return -(-p.kh // length) * length - p.kh + 1 if p.layout == "nhwc" and p.stride[0] == p.dilation[0] == 1 else 1


class DepthwisePlan(int8.Int8Plan):
    def lanes(self, elements: Array) -> Array:
        """Lanes hold neighbouring taps of a column. NCHW: (channels, lanes of kh, kw). NHWC: (blocks of channels, rows, lanes of kh, kw, channels),
        moved on for each row of outputs that shares them."""
        p, length = self.problem, self.dot_length
        w = elements.reshape(p.kh, p.kw, p.oc)
        count = -(-p.kh // length)
        together = rows_together(p, self.cpu)
        taps = np.zeros((together, count * length, p.kw, p.oc), elements.dtype)
        for row in range(together):
            taps[row, row : row + p.kh] = w
        lanes = np.moveaxis(taps.reshape(together, count, length, p.kw, p.oc), 2, 3)
        if p.layout == "nchw":
            return np.ascontiguousarray(np.moveaxis(lanes[0], -1, 0))
        return np.ascontiguousarray(np.moveaxis(self.padded(lanes), (3, 4), (5, 0)))

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
    version = 2
    plain = True
    strided = False

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        p = problem
        if rejection := int8.unsupported(p):
            return rejection
        if p.depth or not p.groups == p.ic == p.oc:
            return Rejection("it does depthwise convolutions of one or two dimensions, one output channel for each input channel")
        return None

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p, block = problem, cpu.isa_row.vector_bytes
        lanes = -(-p.kh // core.int8_dot(cpu.isa)[0])
        (sh, sw), across = p.stride, (p.kw - 1) * p.dilation[1]
        # cycles of so many outputs as a vector has bytes: making bytes, products, and bringing elements into lanes
        making, products = 16, 7 * lanes * p.kw
        if p.layout == "nhwc":
            vectors = p.n * p.oh * p.ow * (math.ceil(2 * p.ic / block) / 2)
            cycles = vectors * (making + products + 22 * lanes * sw / rows_together(p, cpu))
            piece = 4 * block * lanes * (3 * sw + across + 1)
        else:
            pitch, phases = p.ow + across // sw, min(sw, across + 1)
            vectors = p.n * p.ic * math.ceil(p.oh * pitch / block)
            cycles = vectors * (making + products + 22 * lanes * phases) + p.n * p.ic * (p.ih * phases + p.oh) * 12
            piece = 4 * pitch * lanes * phases
        traffic = math.prod(p.x_shape) + math.prod(p.y_shape) * (4 if p.dtype.endswith("s32") else 1)
        seconds = 2e-6 + max(cycles * 1e-9 / cpu.ghz, traffic / cpu.bandwidth(traffic))
        weight = 4 * lanes * p.kw * rows_together(p, cpu) * -(-p.oc // block) * block
        return Cost(seconds, max(LANES, piece) * (1 if p.layout == "nhwc" else 2 + sh), weight, 0.0, weight * 2e-9)

    def build(self, problem: Problem, cpu: Cpu) -> DepthwisePlan:
        convolution = int8.convolution(problem, cpu, core.DEPTHWISE, max(1, min(problem.oh, PIXELS // problem.ow)))
        return DepthwisePlan(problem, self.estimate(problem, cpu), cpu, convolution)
