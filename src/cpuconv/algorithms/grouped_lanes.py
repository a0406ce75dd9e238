"""`grouped_lanes`: groups of few channels, of which vectors hold whole ones: lanes of input channels are permuted to meet the output channels.

NHWC is read in place, NCHW passes through strips of one vector of channels.
"""

from __future__ import annotations

from cpuconv._native import core
from cpuconv.algorithms import native
from cpuconv.cpu import Cpu
from cpuconv.plan import Cost, Rejection
from cpuconv.problem import Problem


class GroupedLanes:
    name = "grouped_lanes"
    version = 1
    plain = True
    strided = True
    turns = False

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        p, vl = problem, cpu.vector_length(problem.dtype)
        if rejection := native.unsupported(p):
            return rejection
        if p.groups == 1:
            return Rejection("there is one group")
        if p.groups == p.ic == p.oc:
            return Rejection("depthwise convolutions have kernels of their own")
        if min(p.ic, p.oc) < vl:
            return Rejection(f"{p.ic} input and {p.oc} output channels do not both fill a vector of {vl}")
        if vl % p.ocg or vl // p.ocg * p.icg > vl:
            return Rejection(f"vectors of {vl} channels do not hold whole groups of {p.icg} input and {p.ocg} output channels")
        return None

    def blocking(self, p: Problem, cpu: Cpu) -> native.Blocking:
        """Output rows of a band; the strips of NCHW take a quarter of L2."""
        strip = (p.iw * p.stride[0] + p.ow) * cpu.vector_length(p.dtype) * p.itemsize  # of an output row
        return native.Blocking(2 if p.layout == "nhwc" else min(p.oh, max(2, cpu.l2 // 4 // strip)))

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p, vl, fma = problem, cpu.vector_length(problem.dtype), cpu.fma_per_cycle
        pixels = 8 if cpu.isa_row.vector_bytes == 64 else 4
        columns = (pixels - 1) * p.stride[1] + (p.kw - 1) * p.dilation[1] + 1
        rows = p.kh + p.stride[0]
        taps = p.kh * p.kw
        common = p.dilation == (1, 1) and (p.kw, p.stride) in ((1, (1, 1)), (3, (1, 1)), (3, (2, 2))) and p.kh >= p.stride[0]
        permutes = rows * columns / (2 * pixels) if common else taps  # for each output vector and input channel
        outputs = p.n * p.oh * -(-p.ow // pixels) * pixels * -(-p.oc // vl)
        permute = 1.0 if cpu.quickness > 1.5 else 0.4  # of a multiply-add; on an Intel Xeon both start at the same port
        cycles = outputs * (p.icg * (taps + permute * permutes) + 5) / fma
        workspace = p.ic * p.itemsize + rows * p.dilation[0] * columns * 8
        if p.layout == "nchw":
            cycles += 5 / vl * p.n * (p.ic * p.ih * p.iw + p.oc * p.oh * p.ow)  # the transposes
            band = self.blocking(p, cpu).block
            below = min(p.ih, (band - 1) * p.stride[0] + (p.kh - 1) * p.dilation[0] + 1)
            workspace += (below * p.iw + band * p.ow) * vl * p.itemsize
        weight = p.oc * p.k * p.itemsize
        traffic = p.n * (p.ic * p.ih * p.iw + p.oc * p.oh * p.ow) * p.itemsize + weight
        seconds = 1e-6 + cycles * 1e-9 / cpu.ghz + traffic / cpu.bandwidth(traffic) / 3  # what part of the traffic is not hidden
        return Cost(seconds, workspace, weight, native.plain_error(p), native.pack_seconds(weight, 0.57, cpu))

    def build(self, problem: Problem, cpu: Cpu) -> native.NativePlan:
        p = problem
        convolution = core.Convolution(
            cpu.isa, p.dtype, core.GROUPED_LANES, native.geometry(p, cpu), native.activation(p.epilogue.activation), self.blocking(p, cpu)
        )
        return native.NativePlan(p, self.estimate(p, cpu), (self.name, cpu.isa), convolution, rewrites=True)
