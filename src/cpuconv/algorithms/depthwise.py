"""`depthwise`: one input channel an output channel; any kernel size, stride and dilation, register-blocked along rows."""

from __future__ import annotations

import math

from cpuconv._native import core
from cpuconv.algorithms import native
from cpuconv.cpu import Cpu
from cpuconv.plan import Cost, Rejection
from cpuconv.problem import Problem

PAGE = 4096  # bytes of one way of L1


class Depthwise:
    name = "depthwise"
    version = 12
    plain = True
    strided = True

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        p = problem
        if rejection := native.unsupported(p):
            return rejection
        if not p.groups == p.ic == p.oc:
            return Rejection(f"groups {p.groups}, {p.ic} input and {p.oc} output channels are not all the same number")
        return None

    def _planes(self, p: Problem, vl: int) -> bool:
        """Whether the kernels of depthwise_planes.h do it, in place."""
        kernel = (p.kh, p.kw) == (3, 3) and p.stride in ((1, 1), (2, 2)) and p.dilation == (1, 1)
        return (p.layout == "nchw" or p.ic == 1) and kernel and (2 * p.ow > vl or self._narrow(p, vl))

    def _narrow(self, p: Problem, vl: int) -> bool:
        """Whether a vector holds rows of two planes."""
        return vl * p.itemsize == 64 and 2 * p.ow <= vl <= 4 * p.ow and p.iw <= vl and p.ih <= 4 * vl and p.ic > 1

    def _row(self, p: Problem, vl: int) -> int:
        """Bytes of an output row and its input that stay in cache together: of all channels, of a strip or of one plane."""
        channels = p.ic if p.layout == "nhwc" else 1 if self._planes(p, vl) else vl
        return (p.iw * p.stride[0] + p.ow) * p.itemsize * channels

    def blocking(self, p: Problem, cpu: Cpu) -> native.Blocking:
        """Output rows of a band: as many as half of L2 holds with their input, at least 4 times those that bands share."""
        halo = (p.kh - 1) * p.dilation[0] // p.stride[0]
        vl = cpu.vector_length(p.dtype)
        rows = cpu.l2 // 2 // self._row(p, vl)
        if self._planes(p, vl):
            rows = min(rows, self._column(p, cpu))
        return native.Blocking(min(p.oh, max(rows, 4 * halo, 2)), self._channels(p, cpu))

    def _column(self, p: Problem, cpu: Cpu) -> int:
        """Output rows whose lines L1 keeps with those of their input, for the next column of a plane: where rows lie a power of two apart, they meet
        in few sets (on a Zen 5, planes of 512 and 1024 pixels a side take half of the time, or two thirds)."""
        sets = PAGE // max(native.LINE, math.gcd(p.iw * p.itemsize, PAGE))
        return sets * (cpu.l1 // PAGE) // (p.stride[0] + 1)

    def _channels(self, p: Problem, cpu: Cpu) -> int:
        """Channels that a block of pixels (NHWC) passes before the next: some neighbours, whose rows stay in L1 (four cache lines of a pixel come
        from L2 1.1 to 1.4 times as fast as one; more evict each other), or all, so that what comes from beyond L2 comes in the order in which it
        lies there; prefetching, a core of an Intel Xeon reads 28 GB/s in order and 13 one line in six."""
        traffic = (p.ic * p.ih * p.iw + p.oc * p.oh * p.ow) * p.itemsize
        few_products = p.kh * p.kw <= 5 * (p.stride[0] * p.stride[1] + 1)  # for each line that is read or written: else the multiply-adds bind
        return p.ic if traffic > cpu.l2 and few_products else 256 // p.itemsize

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p = problem
        vl, (sh, sw), fma = cpu.vector_length(p.dtype), p.stride, cpu.fma_per_cycle
        vectors = -(-p.ic // vl)
        band = self.blocking(p, cpu).block
        in_rows = min(p.ih, (band - 1) * sh + (p.kh - 1) * p.dilation[0] + 1)
        taps = (p.kh * p.kw + 1) * p.itemsize
        if self._planes(p, vl):
            blocks = 0.5 if self._narrow(p, vl) else -(-p.ow // vl)
            cycles = p.n * p.ic * p.oh * blocks * (9 / fma + (3 if sh == 1 else 13))
            in_rows *= 2 if self._narrow(p, vl) else 1
            workspace = (in_rows * (p.iw + 2) + 3 * vl) * p.itemsize + (p.oh + 4 * -(-p.ow // vl)) * vl * p.itemsize
        else:
            outputs = p.n * p.oh * p.ow * vectors
            inside = _inside(p.ih, p.oh, p.kh, sh, p.padding[0], p.dilation[0]) * _inside(p.iw, p.ow, p.kw, sw, p.padding[2], p.dilation[1])
            unrolled = p.dilation == (1, 1) and sh == sw <= p.kh and ((p.kw in (3, 5) and sw <= 2) or (p.kw, sw) == (7, 1))
            # a vector's multiply-adds, and its share of loads, stores and loops
            cycles = p.n * vectors * inside * (1 / fma if unrolled else 2) + outputs * (2 + 1.5 * sh * sw)
            workspace = (taps + (in_rows * p.iw + band * p.ow) * p.itemsize) * vl  # with strips, which NHWC rarely needs
            if p.layout == "nchw" or p.ic < vl:
                cycles += (6 if p.ic >= vl else 15 if p.layout == "nchw" else 24) * (outputs + p.n * -(-p.oh // band) * in_rows * p.iw * vectors)
        traffic = p.n * (p.ic * p.ih * p.iw + p.oc * p.oh * p.ow) * p.itemsize
        seconds = 5e-7 + max(cycles / (1e9 * cpu.ghz), 0.6 * traffic / cpu.bandwidth(traffic))
        return Cost(seconds, workspace, vectors * vl * taps, native.plain_error(p))

    def build(self, problem: Problem, cpu: Cpu) -> native.NativePlan:
        p = problem
        convolution = core.Convolution(
            cpu.isa, p.dtype, core.DEPTHWISE, native.geometry(p), native.activation(p.epilogue.activation), self.blocking(p, cpu)
        )
        return native.NativePlan(p, self.estimate(p, cpu), (self.name, cpu.isa), convolution, rewrites=True)


def _inside(size: int, out: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    """Pairs of an output and a tap of one axis whose input is not padding."""
    starts = [k * dilation - pad for k in range(kernel)]
    return sum(max(0, min(out, -(-(size - s) // stride)) - max(0, -(s // stride))) for s in starts)
