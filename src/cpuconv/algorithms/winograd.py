"""`winograd_f4x3` and its kin: stride 1 (and 3x3 of stride 2) with up to 5 times fewer multiplications, by Cook-Toom interpolation.

F(m,r) makes m outputs of r taps along an axis; an axis of one tap has no transform. Blocks of tiles are transformed into scratch that stays in
L2, multiplied by the transformed weight in a batch of matrix products, and transformed back. Dilated convolutions are interleaved ones without
dilation. NaN and infinity may spread over the tile that they fall in.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from cpuconv._native import core
from cpuconv.algorithms import cook_toom, native
from cpuconv.cpu import Cpu
from cpuconv.plan import Array, Cost, Rejection
from cpuconv.problem import Problem

SCRATCH = 5 << 20  # bytes that a block's transformed tiles may take
MANY_CHANNELS = 64  # whose sums take longer than their results

SUM = {4: 256, 6: 256, 7: 128, 8: 256}  # input channels summed in one chain, by points along an axis: more would err more

# Largest error seen, relative to max|y| and in units of rounding, of 1 channel and its growth with the root of their number,
# on random data, with a margin; by points along an axis, for both axes and for one.
ERROR = {4: (10.0, 0.8), 6: (40.0, 4.0), 7: (62.0, 9.0), 8: (200.0, 20.0)}
ERROR_ONE_AXIS = {4: (10.0, 0.8), 6: (15.0, 1.6), 7: (20.0, 2.2), 8: (30.0, 3.0)}


class Winograd:
    """F(m,r) along the axes of r taps; the other axis may have one tap. Stride 2 is for 3x3: F(m,2) on the even samples, the odd ones as they are."""

    version = 10
    plain = False
    strided = True
    turns = True

    def __init__(self, m: int, r: int, stride: int = 1) -> None:
        self.m, self.r, self.stride = m, r, stride
        self.name = f"winograd_f{m}x{r}" + ("s2" if stride == 2 else "")
        self.points = m + (2 if stride == 2 else r) - 1

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        p, r = problem, self.r
        if rejection := native.unsupported(p):
            return rejection
        if (p.kh, p.kw) not in ([(r, r)] if self.stride == 2 else [(r, r), (1, r), (r, 1)]):
            kinds = f"{r}x{r}" if self.stride == 2 else f"{r}x{r}, 1x{r} or {r}x1"
            return Rejection(f"kernel size {p.kh}x{p.kw} is not {kinds}")
        if p.stride != (self.stride, self.stride):
            return Rejection(f"stride {p.stride} is not {self.stride}")
        if self.stride == 2 and p.dilation != (1, 1):
            return Rejection(f"dilation {p.dilation} is not 1")
        return None

    def _tile(self, taps: int) -> tuple[int, int, int]:
        """Of an axis: outputs of a tile, elements of a tile, points of the weight."""
        if taps == 1:
            return 1, 1, 1
        return self.m, self.stride * (self.m - 1) + taps, self.points + (self.stride - 1)

    def _weight_bytes(self, p: Problem) -> int:
        return self._tile(p.kh)[2] * self._tile(p.kw)[2] * p.icg * p.oc * p.itemsize

    def _light(self, p: Problem, cpu: Cpu) -> bool:
        """Whether L2 holds the transformed weight beside small blocks, which pays where L3 is slow."""
        return cpu.slow_l3 and self._weight_bytes(p) < cpu.l2 // 2

    def blocking(self, p: Problem, cpu: Cpu) -> native.Blocking:
        (mh, nh, _), (mw, nw, _) = self._tile(p.kh), self._tile(p.kw)
        vl = cpu.vector_length(p.dtype)
        channels = math.ceil(p.icg / vl) * vl
        tile_bytes = nh * nw * channels * p.itemsize
        rows, row = math.ceil(math.ceil(p.oh / p.dilation[0]) / mh), math.ceil(math.ceil(p.ow / p.dilation[1]) / mw)
        light = self._light(p, cpu)
        # from a slow L3 what was written comes back late: V and M in a quarter of L2, beside the weight or an image (0.85 to 1.0 of the time)
        if light or (cpu.slow_l3 and not native.far(replace(p, n=1), cpu)):
            least = 32 if not light else 16 if p.layout == "nhwc" else max(16, row)
            tiles = max(cpu.l2 // 4 // (tile_bytes + nh * nw * min(4 * vl, p.ocg) * p.itemsize), least)
        else:  # V in half of L2, but never so few tiles that reading the weight from L3, or from memory, binds
            tiles = max(cpu.l2 // 2 // tile_bytes, 64 if self._weight_bytes(p) > native.shared(cpu) // 2 else 32)
        tiles = max(1, min(tiles, 128, SCRATCH // tile_bytes))
        image = rows * row
        if tiles < image <= tiles * 5 // 4 and image * tile_bytes <= 2 * cpu.l2:  # one block that is a little too large reads the weight once
            tiles = image
        points = tuple(map(float, cook_toom.POINTS[self.points]))
        near = native.near_sum(p.icg, 4 * cpu.vector_length(p.dtype), p.itemsize, cpu)
        # an Intel Xeon fetches images by itself: to do so during the products made those of 224x224 take 1.05 times as long there
        far = p.layout == "nhwc" and native.far(p, cpu) and not cpu.slow_l3
        # from a slow L3, results would take the place of V and of the weight in L2: past it, chains of layers take 0.91 to 0.96 of the time on a Xeon
        costly = cpu.slow_l3 and p.icg >= MANY_CHANNELS and native.far(p, cpu)
        stream = p.layout == "nhwc" and (costly or native.streams(p, cpu))
        return native.Blocking(tiles, kc=min(SUM[self.points], near or p.icg), far=far, stream=stream, mh=mh, mw=mw, points=points)

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p = problem
        (mh, nh, _), (mw, nw, _) = self._tile(p.kh), self._tile(p.kw)
        vl = cpu.vector_length(p.dtype)
        convolution = self._convolution(p, cpu)
        (dh, dw), n = p.dilation, nh * nw
        tiles = p.n * p.groups * dh * math.ceil(math.ceil(p.oh / dh) / mh) * dw * math.ceil(math.ceil(p.ow / dw) / mw)
        lanes = cpu.packed_columns(p.dtype, p.ocg)
        weight = convolution.packed_size() * p.itemsize
        gemm = 2 * tiles * n * p.icg * lanes / cpu.peak(p.dtype) * (1 + 4 * cpu.quickness / p.icg)
        # the weight is read once for each block of tiles: from L3 during the products; from memory half of it besides, all of one that fills L3
        blocks = math.ceil(tiles / self.blocking(p, cpu).block)
        gemm = max(gemm, blocks * weight / (1e9 * cpu.rates.l3))
        gemm += blocks * weight * min(1.0, max(0.0, 2 * weight / cpu.l3 - 1)) / (2e9 * cpu.rates.memory)
        if cpu.slow_l3:  # whose reading shows beside the products: with half of one read regret falls from 1.03 to 1.02 over 52 cases on a busy Xeon
            gemm += weight / (2e9 * cpu.rates.l3)
        # one-dimensional transforms of a tile, per vector of channels, grow with the points of either axis
        ic_vectors, oc_vectors = math.ceil(p.icg / vl), math.ceil(lanes / vl)
        transforms = tiles * n * self.points * (1.1 * ic_vectors + 0.85 * oc_vectors) / (1e9 * cpu.ghz)
        if self._light(p, cpu):  # V and M stay in L2
            transforms *= 0.75
        traffic = p.n * (p.ic * p.ih * p.iw + p.oc * p.oh * p.ow) * p.itemsize
        # NCHW transposes besides; NHWC is prefetched during the products, of which few channels make too few: else each line takes some cycles
        passes = 1.0 if p.layout == "nhwc" else 1.4
        cycles = 0 if p.layout == "nhwc" and p.icg >= 4 * vl else 8
        waiting = 0.3 * traffic / cpu.bandwidth(traffic) + cycles * traffic / native.LINE / (1e9 * cpu.ghz)
        seconds = 2e-6 + gemm + passes * transforms + waiting + native.shared_lines(p, cpu)
        unit = 2.0**-24 if p.dtype == "f32" else 2.0**-53
        one, growth = (ERROR if min(p.kh, p.kw) > 1 else ERROR_ONE_AXIS)[self.points]
        error = unit * (one + growth * math.sqrt(min(p.icg, SUM[self.points])))
        # numbers a cycle: along one axis, and of four points, few are made of each read, which in NHWC are far apart
        few = 0.15 if p.layout == "nhwc" and weight > 8 * cpu.l2 else 0.26
        rate = min(few, 0.23) if 1 in (p.kh, p.kw) else few if self.points == 4 else 0.37
        packing = native.pack_seconds(weight, rate * p.itemsize, cpu)
        return Cost(seconds, convolution.workspace(), weight, error, packing)

    def _convolution(self, p: Problem, cpu: Cpu) -> core.Convolution:
        return core.Convolution(
            cpu.isa, p.dtype, core.WINOGRAD, native.geometry(p, cpu), native.activation(p.epilogue.activation), self.blocking(p, cpu)
        )

    def _weight_transform(self, taps: int) -> Array:
        """G of an axis. Stride 2: the outer taps meet the even samples, the middle one the odd samples."""
        if taps == 1:
            return np.ones((1, 1))
        if self.stride == 1:
            return cook_toom.weight_transform(self.points, taps)
        g = np.zeros((self.points + 1, taps))
        g[:-1, ::2] = cook_toom.weight_transform(self.points, 2)
        g[-1, 1] = 1
        return g

    def build(self, problem: Problem, cpu: Cpu) -> native.NativePlan:
        transforms = self._weight_transform(problem.kh), self._weight_transform(problem.kw)
        return native.NativePlan(
            problem, self.estimate(problem, cpu), (self.name, cpu.isa), self._convolution(problem, cpu), views=True, transforms=transforms
        )


WINOGRADS = (
    Winograd(2, 3), Winograd(4, 3), Winograd(5, 3), Winograd(6, 3), Winograd(5, 3, stride=2),
    Winograd(5, 2), Winograd(3, 4), Winograd(2, 5), Winograd(4, 5), Winograd(2, 7),
)  # fmt: skip
"""Tiles of 4, 6 and 8 points: more would err too much in float32."""
