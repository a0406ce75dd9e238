"""`weight_depthwise`: the gradient of a depthwise weight. Vectors hold channels; the sums of a row of taps stay in registers along a row of pixels.

The rows of all images are summed in chunks that are added in order; their number does not depend on that of the threads.
"""

from __future__ import annotations

from cpuconv.algorithms import native
from cpuconv.cpu import Cpu
from cpuconv.plan import Cost, Rejection
from cpuconv.problem import Problem

CHUNKS = 8


class WeightDepthwise:
    name = "weight_depthwise"
    version = 1
    plain = True
    strided = True
    turns = False

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        p = problem
        if p.pass_ != "weight" or p.depth:
            return Rejection("it makes gradients of weights in two dimensions")
        if not p.groups == p.ic == p.oc:
            return Rejection(f"groups {p.groups}, {p.ic} input and {p.oc} output channels are not all the same number")
        return None

    def blocking(self, p: Problem) -> native.WeightBlocking:
        return native.WeightBlocking(0, 0, max(1, min(CHUNKS, p.n * p.oh)))

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p, vl = problem, cpu.vector_length(problem.dtype)
        vectors, rows, taps = -(-p.ic // vl), p.n * p.oh, p.kh * p.kw
        chunks = self.blocking(p).chunks
        # a step loads x and multiplies; a row of taps begins and ends, and its edges are done tap by tap
        cycles = vectors * rows * (p.ow * (taps + p.kh) + 40 * p.kh)
        workspace = chunks * vectors * vl * taps * p.itemsize
        if p.layout == "nchw" or p.ic < vl:
            cycles += 8 * vectors * rows * (p.ow + p.kh * p.iw)
            workspace += (p.iw + p.ow + 2 * vl) * vl * p.itemsize
        traffic = p.n * p.ic * (p.ih * p.iw + p.oh * p.ow) * p.itemsize
        seconds = 2e-6 + max(cycles / (1e9 * cpu.ghz), traffic / cpu.bandwidth(traffic))
        return Cost(seconds, workspace, 0, native.chained_error(p, p.ow, rows / chunks, chunks))

    def build(self, problem: Problem, cpu: Cpu) -> native.WeightPlan:
        return native.weight_plan(problem, cpu, self.estimate(problem, cpu), self.blocking(problem), depthwise=True)
