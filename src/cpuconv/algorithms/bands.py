"""How depthwise convolutions in floating point go over an image: planes, strips of VL channels or NHWC, in bands of rows that stay in cache; and what
that takes. Those of 8-bit integers share it in NCHW."""

from __future__ import annotations

import math

from cpuconv.algorithms import native
from cpuconv.cpu import Cpu
from cpuconv.problem import Problem

PAGE = 4096  # bytes of one way of L1


def by_planes(p: Problem, vl: int) -> bool:
    """Whether the kernels of depthwise_planes.h do it, in place."""
    kernel = (p.kh, p.kw) == (3, 3) and p.stride in ((1, 1), (2, 2)) and p.dilation == (1, 1)
    return (p.layout == "nchw" or p.ic == 1) and kernel and (2 * p.ow > vl or _narrow(p, vl))


def _narrow(p: Problem, vl: int) -> bool:
    """Whether a vector holds rows of two planes."""
    return vl * p.itemsize == 64 and 2 * p.ow <= vl <= 4 * p.ow and p.iw <= vl and p.ih <= 4 * vl and p.ic > 1


def row_bytes(p: Problem, vl: int) -> int:
    """Bytes of an output row and its input that stay in cache together: of all channels, of a strip or of one plane."""
    channels = p.ic if p.layout == "nhwc" else 1 if by_planes(p, vl) else vl
    return (p.iw * p.stride[0] + p.ow) * p.itemsize * channels


def rows(p: Problem, cpu: Cpu) -> int:
    """Output rows of a band: as many as half of L2 holds with their input, at least 4 times those that bands share."""
    halo = (p.kh - 1) * p.dilation[0] // p.stride[0]
    vl = cpu.vector_length(p.dtype)
    fitting = cpu.l2 // 2 // row_bytes(p, vl)
    if by_planes(p, vl):
        fitting = min(fitting, _column(p, cpu))
    return min(p.oh, max(fitting, 4 * halo, 2))


def _column(p: Problem, cpu: Cpu) -> int:
    """Output rows whose lines L1 keeps with those of their input, for the next column of a plane: where rows lie a power of two apart, they meet
    in few sets (on a Zen 5, planes of 512 and 1024 pixels a side take half of the time, or two thirds)."""
    sets = PAGE // max(native.LINE, math.gcd(p.iw * p.itemsize, PAGE))
    return sets * (cpu.l1 // PAGE) // (p.stride[0] + 1)


def work(p: Problem, cpu: Cpu) -> tuple[float, int]:
    """Cycles of computation, and bytes of workspace."""
    vl, (sh, sw), fma = cpu.vector_length(p.dtype), p.stride, cpu.fma_per_cycle
    vectors = -(-p.ic // vl)
    band = rows(p, cpu)
    in_rows = min(p.ih, (band - 1) * sh + (p.kh - 1) * p.dilation[0] + 1)
    if by_planes(p, vl):
        blocks = 0.5 if _narrow(p, vl) else -(-p.ow // vl)
        in_rows *= 2 if _narrow(p, vl) else 1
        workspace = (in_rows * (p.iw + 2) + 3 * vl) * p.itemsize + (p.oh + 4 * -(-p.ow // vl)) * vl * p.itemsize
        again = 1 + (6 / band if band < p.oh else 0)  # each band begins anew
        return p.n * p.ic * p.oh * blocks * (9 / fma + (3 if sh == 1 else 13)) * again, workspace
    outputs = p.n * p.oh * p.ow * vectors
    inside = _inside(p.ih, p.oh, p.kh, sh, p.padding[0], p.dilation[0]) * _inside(p.iw, p.ow, p.kw, sw, p.padding[2], p.dilation[1])
    unrolled = p.dilation == (1, 1) and sh == sw <= p.kh and ((p.kw in (3, 5) and sw <= 2) or (p.kw, sw) == (7, 1))
    # a vector's multiply-adds, and its share of loads, stores and loops
    cycles = p.n * vectors * inside * (1 / fma if unrolled else 2) + outputs * (2 + 1.5 * sh * sw)
    if p.layout == "nchw" or p.ic < vl:
        cycles += (6 if p.ic >= vl else 15 if p.layout == "nchw" else 24) * (outputs + p.n * -(-p.oh // band) * in_rows * p.iw * vectors)
    # with strips, which NHWC rarely needs
    return cycles, (weight_bytes(p) + (in_rows * p.iw + band * p.ow) * p.itemsize) * vl


def weight_bytes(p: Problem) -> int:
    """Of a channel, with its bias."""
    return (p.kh * p.kw + 1) * p.itemsize


def _inside(size: int, out: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    """Pairs of an output and a tap of one axis whose input is not padding."""
    starts = [k * dilation - pad for k in range(kernel)]
    return sum(max(0, min(out, -(-(size - s) // stride)) - max(0, -(s // stride))) for s in starts)
