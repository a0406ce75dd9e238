"""`implicit_gemm`: the convolution as a matrix product on packed weights, with no column buffer. 1x1 is its special case.

NHWC reads the input in place and skips the taps that fall on padding; NCHW turns the product round (output channels in rows,
pixels in vectors) and packs panels of pixels that stay in L2.
"""

from __future__ import annotations

from cpuconv._native import core
from cpuconv.algorithms import native
from cpuconv.cpu import Cpu
from cpuconv.plan import Cost, Rejection
from cpuconv.problem import Problem


def valid_tap_share(p: Problem) -> float:
    """The share of all (output, tap) pairs whose tap reads the image and not padding."""

    def axis(out: int, stride: int, pad: int, dilation: int, taps: int, size: int) -> float:
        return sum(0 <= o * stride - pad + t * dilation < size for o in range(out) for t in range(taps)) / (out * taps)

    top, _, left, _ = p.padding
    if not any(p.padding):
        return 1.0
    return axis(p.oh, p.stride[0], top, p.dilation[0], p.kh, p.ih) * axis(p.ow, p.stride[1], left, p.dilation[1], p.kw, p.iw)


class ImplicitGemm:
    name = "implicit_gemm"
    version = 1
    plain = True

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        return native.unsupported_epilogue(problem)

    def blocking(self, p: Problem, cpu: Cpu) -> native.Blocking:
        vl = cpu.vector_length(p.dtype)
        nr = 4 * vl if cpu.isa_row.vector_bytes == 64 else 2 * vl
        if p.layout == "nhwc":
            kc = max(64, min(512, cpu.l2 // 5 // (nr * p.itemsize)))  # a panel's piece stays in L2; a longer sum would err more
            block = 192
        else:
            block = 4 * nr
            kc = max(64, cpu.l2 // 3 // (block * p.itemsize))  # all panels of a block stay in L2
        return native.Blocking(block, kc)

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p = problem
        vl = cpu.vector_length(p.dtype)
        b = self.blocking(p, cpu)
        peak = cpu.peak(p.dtype)
        if p.layout == "nhwc":
            lanes = core.packed_columns(cpu.isa, p.dtype, p.ocg) / p.ocg
            share = valid_tap_share(p)
            flops = p.flops * lanes * share
            # visiting the accumulators costs about four steps of the summation
            compute = flops / peak * (1 + 4 / max(1.0, p.k * share))
            workspace = 16 * b.block + 48 * (p.kh * p.kw + 1)
        else:
            pixels = p.oh * p.ow
            lanes = core.packed_columns(cpu.isa, p.dtype, pixels) / pixels
            compute = p.flops * lanes / peak * (1 + 4 / p.k)
            if p.kh * p.kw > 1 or p.stride != (1, 1) or any(p.padding):  # packing: a load and a store a vector, or element by element
                steps = 3 / vl + 8 / p.ow if p.stride[1] == 1 else 1
                compute += p.n * p.groups * pixels * p.k * steps / (1e9 * cpu.ghz)
            workspace = (b.kc + 1) * b.block * p.itemsize
        weight = p.oc * p.k * p.itemsize
        traffic = (p.n * (p.ic * p.ih * p.iw + p.oc * p.oh * p.ow)) * p.itemsize + weight
        seconds = 1e-6 + max(compute / 0.97, traffic / cpu.bandwidth(traffic))
        return Cost(seconds, workspace, weight, native.plain_error(p), weight / 5e9)

    def build(self, problem: Problem, cpu: Cpu) -> native.NativePlan:
        p = problem
        convolution = core.Convolution(
            cpu.isa, p.dtype, core.IMPLICIT_GEMM, native.geometry(p), native.activation(p.epilogue.activation), self.blocking(p, cpu)
        )
        padded = core.packed_columns(cpu.isa, p.dtype, p.ocg) if p.layout == "nhwc" else 0
        return native.NativePlan(p, self.estimate(p, cpu), (self.name, cpu.isa), convolution, padded_bias=padded)
