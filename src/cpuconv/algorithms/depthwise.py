"""`depthwise`: one input channel an output channel; any kernel size, stride and dilation, register-blocked along rows."""

from __future__ import annotations

from cpuconv._native import core
from cpuconv.algorithms import native
from cpuconv.cpu import Cpu
from cpuconv.plan import Cost, Rejection
from cpuconv.problem import Problem


class Depthwise:
    name = "depthwise"
    version = 3
    plain = True
    strided = True

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        p = problem
        if rejection := native.unsupported(p):
            return rejection
        if not p.groups == p.ic == p.oc:
            return Rejection(f"groups {p.groups}, {p.ic} input and {p.oc} output channels are not all the same number")
        return None

    def _planes(self, p: Problem) -> bool:
        """Whether the kernels of depthwise_planes.h do it, in place."""
        common = p.kh == p.kw and p.stride in ((1, 1), (2, 2)) and p.dilation == (1, 1)
        return p.layout == "nchw" and common and (p.kh in (3, 5) or (p.kh == 7 and p.stride == (1, 1)))

    def blocking(self, p: Problem, cpu: Cpu) -> native.Blocking:
        """Output rows of a band: as many as half of L2 holds with their input, all channels (NHWC) or a strip; at least 4 times those that bands share."""
        vl = cpu.vector_length(p.dtype)
        channels = p.ic if p.layout == "nhwc" else vl
        halo = (p.kh - 1) * p.dilation[0] // p.stride[0]
        rows = cpu.l2 // 2 // ((p.iw * p.stride[0] + p.ow) * p.itemsize * channels)
        return native.Blocking(min(p.oh, max(rows, 4 * halo, 2)))

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p = problem
        vl = cpu.vector_length(p.dtype)
        vectors = -(-p.ic // vl)
        outputs = p.n * p.oh * p.ow * vectors
        # per output vector: its multiply-adds and some ten instructions of start, stores and loop
        cycles = outputs * (p.kh * p.kw * 1.1 + 6)
        workspace = (p.kh + p.stride[0]) * (8 * p.stride[1] + p.kw * p.dilation[1]) * 8 + p.ic * p.itemsize
        if self._planes(p):
            per_row = 0.5 if 2 * p.ow <= vl else -(-p.ow // vl)  # vectors of an output row
            cycles = p.n * p.ic * p.oh * per_row * (p.kh * p.kw * 1.1 + p.kw * (1.5 if p.stride == (1, 1) else 4) + 12)
            workspace = (7 * p.stride[0] + p.kh + 1) * (p.iw + 6 * vl) * p.itemsize + -(-p.ow // vl) * 15 * vl * p.itemsize
        elif p.layout == "nchw" or p.ic < vl:
            band = self.blocking(p, cpu).block
            in_rows = min(p.ih, (band - 1) * p.stride[0] + (p.kh - 1) * p.dilation[0] + 1)
            copied = p.n * -(-p.oh // band) * in_rows * p.iw * vectors
            cycles += 8 * (outputs + copied)
            workspace += (in_rows * p.iw + band * p.ow) * vl * p.itemsize
        traffic = p.n * (p.ic * p.ih * p.iw + p.oc * p.oh * p.ow) * p.itemsize
        seconds = 1e-6 + max(cycles / (1e9 * cpu.ghz) / cpu.isa_row.fma_per_cycle, traffic / cpu.bandwidth(traffic))
        packed = vectors * vl * (p.kh * p.kw + 1) * p.itemsize
        return Cost(seconds, workspace, packed, native.plain_error(p), native.pack_seconds(packed, 5e9))

    def build(self, problem: Problem, cpu: Cpu) -> native.NativePlan:
        p = problem
        convolution = core.Convolution(
            cpu.isa, p.dtype, core.DEPTHWISE, native.geometry(p), native.activation(p.epilogue.activation), self.blocking(p, cpu)
        )
        return native.NativePlan(p, self.estimate(p, cpu), (self.name, cpu.isa, convolution.weight_form()), convolution, rewrites=True)
