"""`winograd_f2x3`, `winograd_f4x3`, `winograd_f6x3`: 3x3 stride 1 with 2.25, 4 or 5.06 times fewer multiplications.

Blocks of tiles are transformed into scratch that stays in L2, multiplied by the transformed weight in n*n matrix products, and
transformed back. NaN and infinity may spread over the tile that they fall in.
"""

from __future__ import annotations

import math

from cpuconv._native import core
from cpuconv.algorithms import cook_toom, native
from cpuconv.cpu import Cpu
from cpuconv.plan import Cost, Rejection
from cpuconv.problem import Problem

SCRATCH = 3 << 20  # bytes that a block's transformed tiles may take

SUM = 256  # input channels summed in one chain: more would err more

# Largest error seen, relative to max|y| and in units of rounding, of 1 channel and its growth with the root of their number,
# on random data, with a margin.
ERROR = {2: (10.0, 0.8), 4: (40.0, 3.5), 6: (200.0, 20.0)}


class Winograd:
    version = 1
    plain = False

    def __init__(self, m: int) -> None:
        self.m = m
        self.name = f"winograd_f{m}x3"

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        p = problem
        if (p.kh, p.kw) != (3, 3):
            return Rejection(f"kernel size {p.kh}x{p.kw} is not 3x3")
        if p.stride != (1, 1):
            return Rejection(f"stride {p.stride} is not 1")
        if p.dilation != (1, 1):
            return Rejection(f"dilation {p.dilation} is not 1")
        return native.unsupported_epilogue(problem)

    def blocking(self, p: Problem, cpu: Cpu) -> native.Blocking:
        n = self.m + 2
        vl = cpu.vector_length(p.dtype)
        channels = math.ceil(p.icg / vl) * vl
        tile_bytes = n * n * channels * p.itemsize
        # V in half of L2, but never so few tiles that reading the weight from memory binds
        tiles = max(cpu.l2 // 2 // tile_bytes, 32)
        tiles = max(1, min(tiles, 128, SCRATCH // tile_bytes))
        points = tuple(map(float, cook_toom.POINTS[n]))
        return native.Blocking(tiles, kc=SUM, mh=self.m, mw=self.m, points=points)

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p, n = problem, self.m + 2
        vl = cpu.vector_length(p.dtype)
        convolution = self._convolution(p, cpu)
        tiles = p.n * p.groups * math.ceil(p.oh / self.m) * math.ceil(p.ow / self.m)
        lanes = core.packed_columns(cpu.isa, p.dtype, p.ocg)
        weight = convolution.packed_size() * p.itemsize
        gemm = 2 * tiles * n * n * p.icg * lanes / cpu.peak(p.dtype) * (1 + 10 / p.icg)
        # the weight is read once for each block of tiles
        blocks = math.ceil(tiles / self.blocking(p, cpu).block)
        gemm = max(gemm / 0.9, blocks * weight / cpu.bandwidth(weight))
        # n*n loads and stores and 2n one-dimensional transforms of n elements, per vector of channels
        ic_vectors, oc_vectors = math.ceil(p.icg / vl), math.ceil(lanes / vl)
        passes = 1 if p.layout == "nhwc" else 1.6  # NCHW: and the transposes
        transforms = passes * tiles * (ic_vectors + oc_vectors) * n * n * 5 / (1e9 * cpu.ghz)
        traffic = p.n * (p.ic * p.ih * p.iw + p.oc * p.oh * p.ow) * p.itemsize
        seconds = 2e-6 + gemm + max(transforms, traffic / cpu.bandwidth(traffic))
        unit = 2.0**-24 if p.dtype == "f32" else 2.0**-53
        one, growth = ERROR[self.m]
        error = unit * (one + growth * math.sqrt(min(p.icg, SUM)))
        return Cost(seconds, convolution.workspace(), weight, error, p.icg * p.oc * n * n * 1.3e-9)

    def _convolution(self, p: Problem, cpu: Cpu) -> core.Convolution:
        return core.Convolution(
            cpu.isa, p.dtype, core.WINOGRAD, native.geometry(p), native.activation(p.epilogue.activation), self.blocking(p, cpu)
        )

    def build(self, problem: Problem, cpu: Cpu) -> native.NativePlan:
        g = cook_toom.weight_transform(self.m + 2, 3)
        return native.NativePlan(
            problem, self.estimate(problem, cpu), (self.name, cpu.isa), self._convolution(problem, cpu), transforms=(g, g)
        )


WINOGRADS = tuple(Winograd(m) for m in (2, 4, 6))
