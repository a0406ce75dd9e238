"""`few_channels`: few input channels in all or in each group, where a product over channels has little to sum and much to copy.

NCHW, and NHWC of a few channels, such as pictures: pixels in vectors; taps are shifts of rows that are copied once, each channel apart, or
lie so in the image (`shifted_rows.h`); one output channel (of a group) takes tiles of several rows (`row_tiles.h`).
"""

from __future__ import annotations

from dataclasses import replace

from cpuconv._native import core
from cpuconv.algorithms import native
from cpuconv.cpu import Cpu
from cpuconv.plan import Cost, Rejection
from cpuconv.problem import Problem

CHANNELS = 32  # input channels of a group, at most
PICTURE = 8  # channels of either kind, in NHWC
TILE_ROWS, TILE_VECTORS, MIXED_VECTORS = 6, 2, 3  # as in row_tiles.h


class FewChannels:
    name = "few_channels"
    version = 6
    plain = True
    strided = True
    turns = False

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        p, vl = problem, cpu.vector_length(problem.dtype)
        if rejection := native.unsupported(p):
            return rejection
        tiles = self._in_row_tiles(p, cpu)
        if p.groups == p.ic == p.oc and 2 * p.ic > vl and not tiles:  # below, those that take strips leave most of a vector empty
            return Rejection("depthwise convolutions have kernels of their own")
        if p.icg > CHANNELS and not tiles:
            return Rejection(f"{p.icg} input channels a group are more than {CHANNELS}")
        if p.layout == "nhwc" and max(p.ic, p.oc) > PICTURE:
            return Rejection(f"{p.ic} input and {p.oc} output channels are not all at most {PICTURE}")
        return None

    def _in_row_tiles(self, p: Problem, cpu: Cpu) -> bool:
        """Whether the kernels of row_tiles.h do it: tiles of some rows of one output channel."""
        return self._mixed(p, cpu) is not None or self._tall(p, TILE_VECTORS, cpu)

    def _tall(self, p: Problem, vectors: int, cpu: Cpu) -> bool:
        tall = p.kh in (3, 5) or p.kh >= TILE_ROWS
        rows = tall and p.stride[0] == p.dilation[0] == 1 and p.oh >= TILE_ROWS and 2 * p.ow >= 3 * vectors * cpu.vector_length(p.dtype)
        return p.oc == p.groups and rows

    def _mixed(self, p: Problem, cpu: Cpu) -> Problem | None:
        """The problem of one plane whose rows are those of all channels, mixed: mix_channels of row_tiles.h; None where it is not so done."""
        c = p.ic
        if p.layout == "nchw" or c == 1 or not p.groups == c == p.oc or p.stride[1] > 1 or MIXED_VECTORS * cpu.vector_length(p.dtype) % c:
            return None
        (top, bottom, left, right), (down, across) = p.padding, p.dilation
        sides = (top, bottom, left * c, right * c)
        one = replace(p, ic=1, oc=1, groups=1, iw=p.iw * c, padding=sides, dilation=(down, across * c), layout="nchw")
        return one if self._tall(one, MIXED_VECTORS, cpu) else None

    def _pitch(self, p: Problem) -> int:
        """Elements between two rows of the copy of the input, as in shifted_rows.h."""
        left, step = p.padding[2], p.stride[1]
        needed = p.ow + (p.kw - 1) * p.dilation[1] // step
        return max(p.ow, needed - max(0, left) // step, min((p.iw - 1 + left) // step + 1, needed))

    def _written_in_place(self, p: Problem, cpu: Cpu) -> bool:
        vl, row = cpu.vector_length(p.dtype), p.oh * p.ow if p.kh * p.kw == 1 and not self._moved(p) else p.ow  # of 1x1, rows are joined
        return p.layout == "nchw" and (row % vl == 0 or row >= 4 * vl) and not p.epilogue.residual

    def _moved(self, p: Problem) -> bool:
        """Whether there is padding, or a stride."""
        return any(p.padding) or p.stride != (1, 1)

    def _copied(self, p: Problem, cpu: Cpu) -> bool:
        """Whether the input is: it is not where rows of the output are written in place, and need neither padding nor phases."""
        return not self._written_in_place(p, cpu) or self._moved(p)

    def _phases(self, p: Problem) -> tuple[int, int]:
        """Rows and columns of phases in that copy."""
        down, across = (min(s, (k - 1) * d + 1) for s, k, d in zip(p.stride, (p.kh, p.kw), p.dilation, strict=True))
        return down, across

    def blocking(self, p: Problem, cpu: Cpu) -> native.Blocking:
        """Output rows of a band. Their input takes about a quarter of L2, and is mostly not shared with other bands."""
        down, across = self._phases(p)
        halo = (p.kh - 1) * p.dilation[0] // p.stride[0]
        rows = cpu.l2 // 4 // (self._together(p) * down * across * self._pitch(p) * p.itemsize)
        stream = cpu.isa_row.vector_bytes == native.LINE and native.streams(p, cpu)  # half lines (AVX2): 0.97 to 1.1 times as long
        return native.Blocking(min(p.oh, max(rows - halo, 8 * halo, 1)), stream=stream)

    def _together(self, p: Problem) -> int:
        """Input channels of a task."""
        return p.icg if p.layout == "nchw" else p.ic

    def _shifted_rows(self, p: Problem, cpu: Cpu) -> tuple[float, int]:
        """Cycles, and bytes of workspace."""
        vl, fma = cpu.vector_length(p.dtype), cpu.fma_per_cycle
        in_place = self._written_in_place(p, cpu)
        columns = -(-p.ow // vl) * vl if in_place else self._pitch(p)
        cycles = p.oc * p.oh * columns / vl * (p.k + 4) / fma
        if in_place and columns == vl:  # six sums do not hide the latency of multiply-adds
            cycles *= 1.6
        if p.k > 16:  # nor do a few, each so long that the next tile's hardly overlap; they wait by the core's own cycles
            cycles *= max(1.0, 2.5 * cpu.rates.fma_per_cycle / (min(p.ocg, 6) * max(1, min(2, columns // vl))))
        if self._copied(p, cpu):
            cycles += self._copying(p, cpu)
        else:
            cycles *= native.crowded(p, cpu)
        lines = p.icg * p.kh * self._phases(p)[1]  # rows of the copy that a tile reads: each from L2 if L1 does not hold them
        if vl * p.itemsize < 64 and lines * 24 * vl * p.itemsize > 1.5 * cpu.l1:  # measured with AVX2 only; wider tiles do more with a line
            cycles += -(-p.oc // 6) * p.oh * columns / (2 * vl) * 1.5 * lines * 64 / cpu.rates.l2 * cpu.ghz
        if not in_place:
            cycles += self._finishing(p, cpu)
        # the copy, which views whose pixels are apart need in any case
        return p.n * cycles, (self._copy_size(p, cpu) + 8 * (24 * vl + 2 * columns)) * p.itemsize + 8 * p.k

    def _copying(self, p: Problem, cpu: Cpu) -> float:
        """Cycles that copying the input takes, band by band, pixels of each channel and phase side by side."""
        vl, (down, across) = cpu.vector_length(p.dtype), self._phases(p)
        rows = self.blocking(p, cpu).block
        band = rows + (p.kh - 1) * p.dilation[0] // p.stride[0]  # rows of a phase
        apart = p.stride[1] * (1 if p.layout == "nchw" else p.ic)  # elements between pixels of a phase
        return p.ic * -(-p.oh // rows) * band * down * across * (16 + (5 if apart < 3 else 10 if apart < 5 else 1.2 * vl) * -(-p.ow // vl))

    def _finishing(self, p: Problem, cpu: Cpu) -> float:
        """Cycles in which results that were not written in place go there."""
        vl, pixel = cpu.vector_length(p.dtype), 1 if p.layout == "nchw" else p.oc  # from one to the next
        return p.oc * p.oh * (2 + (6 if pixel < 5 else 1.2 * vl) * -(-p.ow // vl))

    def _copy_size(self, p: Problem, cpu: Cpu) -> int:
        """Elements of the copy of a band."""
        down, across = self._phases(p)
        band = self.blocking(p, cpu).block + (p.kh - 1) * p.dilation[0] // p.stride[0]
        return self._together(p) * down * across * (band * self._pitch(p) + 2 * cpu.vector_length(p.dtype))

    def _row_tiles(self, p: Problem, cpu: Cpu) -> tuple[float, int]:
        """Cycles, and bytes of workspace; that for views whose pixels are apart, which are copied, and results that are not written in place."""
        vl, fma, mixed = cpu.vector_length(p.dtype), cpu.fma_per_cycle, self._mixed(p, cpu)
        views = self._copy_size(p, cpu) + TILE_ROWS * p.ow * p.oc
        p, vectors = mixed or p, MIXED_VECTORS if mixed else TILE_VECTORS
        each, start = (1.8, 150) if mixed else (1.1, 75)  # cycles of a multiply-add, most of which load their weight if channels are mixed; of a tile
        down, across = -(-p.oh // TILE_ROWS), -(-p.ow // (vectors * vl))
        cycles = p.oc * p.icg * down * across * (each * TILE_ROWS * vectors * p.kh * p.kw + start) / fma
        workspace = views + (p.oc * p.k + 2 * p.kw) * (vectors * vl if mixed else 1)
        if (p.layout == "nchw" or p.ic == 1) and p.stride[1] == 1:
            rows, columns = TILE_ROWS + p.kh - 1, vectors * vl + (p.kw - 1) * p.dilation[1]  # that a tile reads
            padded = min(down * across, 2 * (down + across)) if any(p.padding) else 0
            cycles += p.oc * p.icg * padded * rows * (9 + 2 * columns / vl)
            workspace += rows * columns
        else:
            cycles += self._copying(p, cpu)
        if p.epilogue.residual or (p.layout == "nhwc" and p.oc > 1):
            cycles += self._finishing(p, cpu)
        return p.n * cycles, workspace * p.itemsize

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p = problem
        tiles = self._in_row_tiles(p, cpu)
        cycles, workspace = self._row_tiles(p, cpu) if tiles else self._shifted_rows(p, cpu)
        weight = p.oc * p.k * p.itemsize
        traffic = p.n * (p.ic * p.ih * p.iw + p.oc * p.oh * p.ow) * p.itemsize + weight
        seconds = 1e-6 + cycles * 1e-9 / cpu.ghz + traffic / cpu.bandwidth(traffic) / (8 if tiles else 3)  # what part of the traffic is not hidden
        return Cost(seconds, workspace, weight, native.plain_error(p), native.pack_seconds(weight, 0.57, cpu))

    def build(self, problem: Problem, cpu: Cpu) -> native.NativePlan:
        p = problem
        convolution = core.Convolution(
            cpu.isa, p.dtype, core.FEW_CHANNELS, native.geometry(p, cpu), native.activation(p.epilogue.activation), self.blocking(p, cpu)
        )
        return native.NativePlan(p, self.estimate(p, cpu), (self.name, cpu.isa), convolution, rewrites=True)
