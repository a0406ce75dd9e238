"""`weight_gemm`: the gradient of a weight as matrix products whose sum runs over pixels, on packed blocks of x and y's gradient.

The sum over pixels is cut into blocks, and where a weight is small for the number of pixels into chunks that are computed apart and added in
order; neither depends on the number of threads.
"""

from __future__ import annotations

import math

from cpuconv.algorithms import native
from cpuconv.cpu import Cpu
from cpuconv.plan import Cost, Rejection
from cpuconv.problem import Problem

# Pixels of a block, and channels of a task, of either kind: both blocks and the accumulators fit in L2, and those are visited once for so many
# products. What packing costs grows with 1 / channels, and where there is one tap only it is not shared.
PIXELS, CHANNELS = 224, 128
PIXELS_OF_1X1, CHANNELS_OF_1X1 = 160, 256
TASKS = 8  # wanted, so that a few threads end together
LINE = 64  # bytes


class WeightGemm:
    name = "weight_gemm"
    version = 1
    plain = True
    strided = True
    turns = False

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        return None if problem.pass_ == "weight" else Rejection("it makes gradients of weights")

    def _tasks(self, p: Problem, cpu: Cpu, channels: int) -> tuple[int, int]:
        """Parts of a group's input channels, and of its output channels."""
        columns = cpu.packed_columns(p.dtype, p.ocg)
        return math.ceil(p.icg / channels), math.ceil(columns / channels)

    def blocking(self, p: Problem, cpu: Cpu) -> native.WeightBlocking:
        taps = math.prod(a.kernel for a in p.axes)
        pixels, channels = (PIXELS, CHANNELS) if taps > 1 else (PIXELS_OF_1X1, CHANNELS_OF_1X1)
        while channels > 32 and channels**2 * taps * p.itemsize > cpu.l2:  # the accumulators stay in L2
            channels //= 2
        tasks = p.groups * math.prod(self._tasks(p, cpu, channels))
        return native.WeightBlocking(pixels, channels, max(1, min(math.ceil(p.k / pixels), math.ceil(TASKS / tasks))))

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p, b = problem, self.blocking(problem, cpu)
        vl, cycle = cpu.vector_length(p.dtype), 1e-9 / cpu.ghz
        m, n = self._tasks(p, cpu, b.channels)
        columns = cpu.packed_columns(p.dtype, p.ocg)
        taps = math.prod(a.kernel for a in p.axes)
        rows = p.icg if p.icg * p.itemsize >= LINE else p.icg * p.kw
        # a step loads its vectors and rows besides multiplying them
        compute = p.flops * columns / p.ocg / cpu.peak(p.dtype) * (1 + 1 / min(rows, 6))
        halo = math.prod(a.stride + (a.kernel - 1) * a.dilation / a.out for a in p.axes)
        packed = p.groups * p.k * (math.ceil(p.icg / vl) * halo * n + columns / vl * m)
        compute += packed * (4 if p.layout == "nhwc" else 6) * cycle
        weight = taps * p.icg * p.oc * p.itemsize
        accumulators = taps * min(p.icg, b.channels) * min(columns, b.channels) * p.itemsize
        blocks = b.block * p.itemsize * (min(p.icg, b.channels) * halo + min(columns, b.channels))
        traffic = weight * b.chunks + (math.prod(p.x_shape) + math.prod(p.y_shape)) * p.itemsize
        seconds = 2e-6 + max(compute, traffic / cpu.bandwidth(traffic)) + weight * b.chunks / 4e9
        error = native.chained_error(p, min(p.k, b.block), p.k / b.block / b.chunks, b.chunks)
        return Cost(seconds, int(accumulators + blocks) + (b.chunks - 1) * weight, 0, error)

    def build(self, problem: Problem, cpu: Cpu) -> native.WeightPlan:
        return native.weight_plan(problem, cpu, self.estimate(problem, cpu), self.blocking(problem, cpu), depthwise=False)
