"""`implicit_gemm`: the convolution as a matrix product on packed weights, with no column buffer. 1x1 is its special case.

Pixels are rows of the product, output channels its columns, and taps that fall on padding are skipped; NHWC is read in place, NCHW in
channel-last strips. 1x1 and few output channels in NCHW are turned round: output channels are rows, pixels columns. One or two output
channels in NHWC are dot products along the input channels.
"""

from __future__ import annotations

import math
from dataclasses import replace

from cpuconv._native import core
from cpuconv.algorithms import native, taps
from cpuconv.cpu import Cpu
from cpuconv.plan import Cost, Rejection
from cpuconv.problem import Problem


def _panel_columns(p: Problem, cpu: Cpu) -> int:
    return cpu.vector_length(p.dtype) * (4 if cpu.isa_row.vector_bytes == 64 else 2)


def _unpadded_1x1(p: Problem) -> bool:
    inside = not p.padding[0] and not p.padding[2] and (p.oh - 1) * p.stride[0] < p.ih and (p.ow - 1) * p.stride[1] < p.iw
    return p.kh * p.kw == 1 and inside


FAR = 1 << 20  # bytes of a weight that does not stay in L2
PIXELS = 192  # output pixels of a block where they are rows of the product, at least
MANY_PIXELS = 4 * PIXELS  # at most, of NHWC; as many where each block packs the weight anew


class ImplicitGemm:
    name = "implicit_gemm"
    version = 13
    plain = True
    strided = True
    turns = True

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        return native.unsupported(problem)

    def _read(self, p: Problem) -> Problem:
        """Of a strided 1x1 in NCHW without padding, the problem on the pixels that it reads: skip_pixels of implicit_gemm.h."""
        return replace(p, ih=p.oh, iw=p.ow, stride=(1, 1), padding=(0, 0, 0, 0)) if p.layout == "nchw" and _unpadded_1x1(p) else p

    def _few_pixels(self, p: Problem, cpu: Cpu) -> int:
        """Last pixels of a plane that are dot products by channel rows: few_pixels of implicit_gemm.h."""
        few = 4 if cpu.isa_row.vector_bytes == 64 else 2
        vl = cpu.vector_length(p.dtype)
        rest = p.oh * p.ow % vl
        return rest if _unpadded_1x1(p) and p.icg % vl == 0 and rest <= few else 0

    def _in_panels(self, p: Problem, cpu: Cpu, pixels: int) -> int:
        """So many pixels with padding: pixel_columns of geometry.h."""
        return core.packed_columns(cpu.isa, p.dtype, True, pixels)

    def _channel_rows(self, p: Problem, cpu: Cpu) -> bool:
        rest = p.oh * p.ow - self._few_pixels(p, cpu)
        near = p.ocg * p.k * p.itemsize <= FAR
        full = rest == 0 or (near and 16 * self._in_panels(p, cpu, rest) <= 17 * rest)  # pixels in vectors must fill them
        return p.layout == "nchw" and ((p.kh * p.kw == 1 and full) or p.ocg <= cpu.vector_length(p.dtype) // 2)

    def _few_outputs(self, p: Problem, cpu: Cpu) -> bool:
        return p.layout == "nhwc" and p.ocg <= 2 and p.icg % cpu.vector_length(p.dtype) == 0

    def _as_it_is(self, p: Problem, cpu: Cpu) -> bool:
        """Whether the kernels read the weight itself: the form of channel rows and of few outputs is [O][kh kw C]."""
        return (self._channel_rows(p, cpu) and 1 in (p.kh * p.kw, p.icg)) or (self._few_outputs(p, cpu) and p.oc == 1)

    def _sums(self, p: Problem) -> float:
        """In how many an output is added up."""
        return 1.0

    def _lost_cycles(self, p: Problem) -> float:
        """What a panel's calls cost beside its multiply-adds."""
        return taps.lost_cycles(p)

    def _streamed(self, p: Problem, cpu: Cpu) -> bool:
        """Whether the weight comes from L3, and an L2 gives a tile its panel as fast as it multiplies: pieces that stay in L1 gain nothing then, and
        each begins anew (on a Zen 5, layers of 1 to 19 MB take 1.01 to 1.04 times as long in such pieces)."""
        return p.ocg * p.k * p.itemsize > FAR and cpu.rates.l2 > 40 * cpu.rates.ghz

    def blocking(self, p: Problem, cpu: Cpu) -> native.Blocking:
        nr = _panel_columns(p, cpu)
        if self._channel_rows(p, cpu):
            pixels = 4 * nr
            if cpu.isa_row.vector_bytes < 64:
                pixels = max(pixels, min(16 * nr, cpu.l2 // 4 // (p.k * p.itemsize) // nr * nr))
            near = native.near_sum(p.k, min(nr, p.oh * p.ow), p.itemsize, cpu)
            kc = near or max(64, min(512, cpu.l2 // 3 // (pixels * p.itemsize)))  # else all panels of a block stay in L2
            return native.Blocking(pixels, kc=kc, stream=native.streams(p, cpu))
        columns = min(nr, cpu.packed_columns(p.dtype, p.ocg))
        near = None if self._streamed(p, cpu) else native.near_sum(p.k, columns, p.itemsize, cpu)
        kc = near or max(64, min(512, cpu.l2 // 5 // (nr * p.itemsize)))  # else a panel's piece stays in L2
        if p.layout == "nhwc":
            pixels = cpu.l2 // 2 // (p.k * p.itemsize)  # whose columns would stay in L2
            far, stream = native.far(p, cpu), native.streams(p, cpu)
            return native.Blocking(max(PIXELS, min(MANY_PIXELS, pixels)), kc=kc, far=far, stream=stream, across=far and cpu.slow_l3)
        p = self._read(p)
        rows = min(p.oh, math.ceil(PIXELS / p.ow))
        while rows < p.oh and self._strip_rows(p, rows) > 2 * rows * p.stride[0]:  # else bands transpose the rows that they share too often
            rows = min(p.oh, 2 * rows)
        share = 4 if cpu.slow_l3 else 2  # so that the results' strip stays in L2, too: dilated layers of 2048 channels take 0.92 of the time so
        channels = max(64, cpu.l2 // share // (self._strip_rows(p, rows) * p.iw * p.itemsize) // 64 * 64)
        return native.Blocking(rows, channels, kc)

    def _strip_rows(self, p: Problem, rows: int) -> int:
        return min(p.ih, (rows - 1) * p.stride[0] + (p.kh - 1) * p.dilation[0] + 1)

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p = problem
        vl = cpu.vector_length(p.dtype)
        b = self.blocking(p, cpu)
        cycle = 1e-9 / cpu.ghz
        offsets = 16 * MANY_PIXELS + 48 * (p.kh * p.kw + 1)
        if self._channel_rows(p, cpu):
            pixels = p.oh * p.ow
            few = self._few_pixels(p, cpu)
            waste = (few + (self._in_panels(p, cpu, pixels - few) if pixels > few else 0)) / pixels
            height = p.ocg / math.ceil(p.ocg / 6)  # of a tile, beside whose multiply-adds count those that its begin and end cost
            begin = 24 if cpu.isa_row.vector_bytes == 64 else 60
            compute = p.flops * waste / cpu.peak(p.dtype) * (1 + begin * cpu.quickness / (p.k * height))
            if p.kh * p.kw > 1 or p.stride != (1, 1) or any(p.padding):  # packing: a load and a store a vector, or element by element
                steps = (3 / vl if p.stride[1] == 1 else 1) + 8 / p.ow
                compute += p.n * p.groups * pixels * p.k * steps * cycle
            elif p.ocg < 24:  # rows of more channels read copies of such planes
                compute *= native.crowded(p, cpu)
            workspace = b.kc * b.block * p.itemsize
        elif self._few_outputs(p, cpu):
            run, runs = (p.kw * p.icg, p.kh) if p.dilation[1] == 1 else (p.icg, p.kh * p.kw)  # side by side in memory
            parts = 11 * runs if run % vl else 0  # of vectors
            compute = p.n * p.oc * p.oh * p.ow * (p.k * taps.valid_share(p) / vl + parts + 3.5) * cycle  # adding up the lanes of a sum
            workspace = offsets + vl * p.k * p.itemsize
        else:
            waste = cpu.packed_columns(p.dtype, p.ocg) / p.ocg
            share = taps.valid_share(p)
            # visiting the accumulators costs some steps of the summation; in tiles of 16 registers the more, the narrower they are
            width = math.ceil(p.ocg / vl) / max(1, math.ceil(p.ocg / vl) // 2)
            visits = self._sums(p) * (2 if cpu.isa_row.vector_bytes == 64 else max(4.0, 6 / width))
            compute = p.flops * waste * share / cpu.peak(p.dtype) * (1 + visits * cpu.quickness / max(1.0, p.k * share)) + native.shared_lines(p, cpu)
            if p.ocg <= vl / 2:  # half a vector takes as long as a whole one if two of those start in a cycle; eight sums hardly hide their latency
                compute *= 1.25 * min(2.0, cpu.fma_per_cycle)
            elif p.ocg <= vl and cpu.isa_row.vector_bytes == 32:  # a load for each multiply-add; measured with AVX2 only
                compute *= 1.25
            if p.ocg not in (vl // 2, vl) and p.ocg < vl:  # such tiles are computed apart, and copied
                compute += p.n * p.groups * p.oh * p.ow * 14 * self._sums(p) * cycle
            panels = math.ceil(cpu.packed_columns(p.dtype, p.ocg) / _panel_columns(p, cpu))
            compute += p.n * p.groups * panels * self._lost_cycles(p) * cycle
            workspace = offsets
            if p.layout == "nchw":
                read = self._read(p)
                strip = self._strip_rows(read, b.block) * read.iw
                bands = math.ceil(p.oh / b.block)
                compute += p.n * (bands * strip * p.ic + p.oc * p.oh * p.ow) * 10 / vl * cycle  # the transposes
                workspace += (strip * min(p.icg, b.channels) + b.block * p.ow * cpu.packed_columns(p.dtype, p.ocg)) * p.itemsize
        weight = p.oc * p.k * p.itemsize
        traffic = (p.n * (p.ic * p.ih * p.iw + p.oc * p.oh * p.ow)) * p.itemsize + weight
        seconds = 1e-6 + max(compute / 0.97, traffic / cpu.bandwidth(traffic))
        packing = 5e-8 * p.groups
        if p.layout == "nhwc" and not cpu.slow_l3:  # what does not stay in L2 goes back and forth
            packing += 3e-6 + (2.6 * weight + 2 * max(0, weight - 2 * cpu.l2)) / cpu.bandwidth(4 * weight)
        else:
            packing += native.pack_seconds(weight, 5.4 if p.layout == "nhwc" else 3.7, cpu)
        if self._as_it_is(p, cpu):
            packing = 0.0
        return Cost(seconds, workspace, weight, native.plain_error(p), packing)

    def build(self, problem: Problem, cpu: Cpu) -> native.NativePlan:
        p = problem
        convolution = core.Convolution(
            cpu.isa, p.dtype, core.IMPLICIT_GEMM, native.geometry(p, cpu), native.activation(p.epilogue.activation), self.blocking(p, cpu)
        )
        packs, bias_columns = not self._as_it_is(p, cpu), convolution.bias_columns()
        weight_format = (self.name, cpu.isa, convolution.weight_form()) if packs else (native.AS_IT_IS, bias_columns)
        return native.NativePlan(p, self.estimate(p, cpu), weight_format, convolution, packs=packs, views=self.turns, padded_bias=bias_columns)


class UnpackedGemm(ImplicitGemm):
    """On a weight that is used once, so that it does not pay to pack it first: pieces are packed for each block of pixels, when their turn comes."""

    name = "unpacked_gemm"
    version = 8
    turns = False

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        if rejection := super().supports(problem, cpu):
            return rejection
        if problem.layout == "nchw" and problem.kh * problem.kw > 1:
            return Rejection("it packs rows of the weight, which are side by side in NHWC and 1x1")
        return Rejection("one or two output channels are dot products") if self._few_outputs(problem, cpu) else None

    def _as_it_is(self, p: Problem, cpu: Cpu) -> bool:
        return True

    def _sums(self, p: Problem) -> float:
        return p.kh * p.kw * taps.valid_share(p) if p.layout == "nhwc" else 1.0  # tap by tap

    def _lost_cycles(self, p: Problem) -> float:
        return taps.CALL * p.kh * p.kw * self._bands(p) if p.layout == "nhwc" else super()._lost_cycles(p)

    def _bands(self, p: Problem) -> int:
        """Bands of whole rows of an NHWC image, in one thread."""
        return min(p.oh, math.ceil(p.oh * p.ow / MANY_PIXELS))

    def blocking(self, p: Problem, cpu: Cpu) -> native.Blocking:
        blocking = super().blocking(p, cpu)._replace(unpacked=True)
        return blocking._replace(block=MANY_PIXELS, stream=False) if p.layout == "nhwc" else blocking  # taps after the first add to results

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p, vl, b = problem, cpu.vector_length(problem.dtype), self.blocking(problem, cpu)
        cost = super().estimate(p, cpu)
        if super()._as_it_is(p, cpu):
            return cost
        if p.layout == "nhwc":
            blocks, step = self._bands(p), 3
            rows = math.ceil(p.oh / blocks)
            offsets = 16 * max(0, rows * p.ow - MANY_PIXELS)  # beyond those of a block
        else:
            blocks, step, offsets = math.ceil(p.oh * p.ow / PIXELS), 8, 0
        copies = p.n * blocks * taps.read_share(p)
        cycles = p.groups * p.k * math.ceil(p.ocg / vl) * (2 + step * copies)  # a load, from beyond L1, and a store of each vector
        workspace = cost.workspace + b.kc * 4 * vl * p.itemsize + offsets
        return replace(cost, seconds=cost.seconds + 1e-9 * cycles / cpu.ghz, workspace=workspace, packed=0)
