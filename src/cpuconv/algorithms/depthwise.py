"""`depthwise`: one input channel an output channel; any kernel size, stride and dilation, register-blocked along rows."""

from __future__ import annotations

from cpuconv._native import core
from cpuconv.algorithms import bands, native
from cpuconv.cpu import Cpu
from cpuconv.plan import Cost, Rejection
from cpuconv.problem import Problem

SCATTERED = 12 << 20  # bytes of planes, larger than L2 each, that take longer column by column than row by row


class Depthwise:
    name = "depthwise"
    version = 15
    plain = True
    strided = True
    turns = False

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        p = problem
        if rejection := native.unsupported(p):
            return rejection
        if not p.groups == p.ic == p.oc:
            return Rejection(f"groups {p.groups}, {p.ic} input and {p.oc} output channels are not all the same number")
        return None

    def blocking(self, p: Problem, cpu: Cpu) -> native.Blocking:
        far = native.far(p, cpu) and not cpu.slow_l3  # an Intel Xeon keeps track of the rows by itself: prefetching takes 1.05 to 1.2 times as long
        return native.Blocking(bands.rows(p, cpu), self._channels(p, cpu), far=far, stream=native.streams(p, cpu))

    def _traffic(self, p: Problem) -> int:
        """Bytes of an image and its result."""
        return (p.ic * p.ih * p.iw + p.oc * p.oh * p.ow) * p.itemsize

    def _channels(self, p: Problem, cpu: Cpu) -> int:
        """Channels that a block of pixels (NHWC) passes before the next: some neighbours, whose rows stay in L1 (four cache lines of a pixel come
        from L2 1.1 to 1.4 times as fast as one; more evict each other), or all, so that what comes from beyond L2 comes in the order in which it
        lies there; prefetching, a core of an Intel Xeon reads 28 GB/s in order and 13 one line in six."""
        few_products = p.kh * p.kw <= 5 * (p.stride[0] * p.stride[1] + 1)  # for each line that is read or written: else the multiply-adds bind
        return p.ic if self._traffic(p) > cpu.l2 and few_products else 256 // p.itemsize

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p = problem
        cycles, workspace = bands.work(p, cpu)
        vl = cpu.vector_length(p.dtype)
        traffic = p.n * self._traffic(p)
        seconds = 5e-7 + max(cycles / (1e9 * cpu.ghz), 0.6 * traffic / cpu.bandwidth(traffic))
        if bands.by_planes(p, vl) and p.ih * p.iw * p.itemsize > cpu.l2 and traffic > SCATTERED:
            seconds += 1.5 * traffic / (1e9 * cpu.rates.memory)
        return Cost(seconds, workspace, -(-p.ic // vl) * vl * bands.weight_bytes(p), native.plain_error(p))

    def build(self, problem: Problem, cpu: Cpu) -> native.NativePlan:
        p = problem
        convolution = core.Convolution(
            cpu.isa, p.dtype, core.DEPTHWISE, native.geometry(p, cpu), native.activation(p.epilogue.activation), self.blocking(p, cpu)
        )
        return native.NativePlan(p, self.estimate(p, cpu), (self.name, cpu.isa), convolution, rewrites=True)
