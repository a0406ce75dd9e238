"""`direct`: sums in registers over the input as it is (NHWC) or a padded copy that stays in cache (NCHW), in kernels that Numba
compiles for vector length and tile. Does every problem, and is the one that takes Python functions as activations.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from cpuconv._native import core
from cpuconv.algorithms import native, taps
from cpuconv.cpu import Cpu
from cpuconv.plan import NUMPY_DTYPES, Array, Cost, Quantization, Rejection, lasting_empty
from cpuconv.problem import Problem

BLOCK, BLOCKS = 192, 512  # pixels of a task in NHWC, unless that makes more tasks of a rectangle than these
SEGMENT = 24  # bytes of an entry in a kernel's list of taps
SPLIT = 5  # word of the context, behind the addresses of x, weight, bias, residual and y


class Tiling(NamedTuple):
    """A kernel and its tile of mr rows and nv vectors; for the forms that copy the input, the padded copy of a band of `rows`."""

    form: str  # "pixels", "channels" or "depthwise"
    vl: int
    mr: int
    nv: int
    rows: int = 0
    columns: int = 0
    pitch: int = 0
    plane: int = 0
    flat: bool = False
    scratch: int = 0

    @property
    def nr(self) -> int:
        return self.nv * self.vl


def _up(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple


def _even(total: int, most: int) -> int:
    """The smallest piece, of `most` at most, that divides a total into as few pieces as `most` does."""
    return -(-total // -(-total // most))


def _blocks(p: Problem, mr: int) -> Iterator[tuple[int, ...]]:
    """The blocks of `pixels` as the kernel reads them: rectangles of pixels that share their taps, cut into pieces of whole tiles."""
    for y, x in taps.rectangles(p):
        area = y.outputs * x.outputs
        piece = max(BLOCK, area // BLOCKS) // mr * mr
        for p0 in range(0, area, piece):
            yield y.first, x.first, x.end, p0, min(area, p0 + piece), y.first_tap, y.end_tap, x.first_tap, x.end_tap


class Packed(NamedTuple):
    weight: Array
    bias: Array


@dataclass(frozen=True)
class DirectPlan:
    problem: Problem
    cost: Cost
    weight_format: Hashable
    tiling: Tiling
    task: Any = field(repr=False)  # C callbacks
    activation: Any = field(repr=False)
    context: Array = field(repr=False)  # a record of _jit.direct.CONTEXT, but for `run`'s arguments, as words: these are quick to copy
    count: int  # blocks or bands of an image
    blocks: Array = field(repr=False)

    def pack(self, weight: Array, bias: Array | None, quantization: Quantization | None = None, *, lasting: bool = False) -> Packed:
        p, t, dtype = self.problem, self.tiling, NUMPY_DTYPES[self.problem.dtype]
        taps = p.kh * p.kw
        values = np.zeros(p.oc, dtype) if bias is None else bias
        if t.form == "channels":
            rows = _padded(weight.reshape(p.groups, p.ocg, p.icg, taps), 1, t.mr)
            ordered = rows.reshape(p.groups, -1, t.mr, p.icg, taps).transpose(0, 1, 4, 3, 2)
        else:
            groups = 1 if t.form == "depthwise" else p.groups
            columns = _padded(weight.reshape(p.k, groups, p.oc // groups), 2, t.nr)
            ordered = columns.reshape(p.k, groups, -1, t.nr).transpose(1, 2, 0, 3)
            values = _padded(values.reshape(groups, p.oc // groups), 1, t.nr)
        packed = lasting_empty(ordered.shape, dtype, lasting)
        packed[...] = ordered
        return Packed(packed, values)

    def run(self, x: Array, packed: Packed, residual: Array | None, out: Array, threads: int) -> None:
        p, t = self.problem, self.tiling
        context = self.context.copy()
        tasks = p.n * self.count
        if t.form == "depthwise":
            tasks *= -(-p.oc // t.nr)
        else:
            tasks *= p.groups
            # Enough tasks for all threads to end together; NCHW copies its input once for each part.
            copies, panel = (True, t.mr) if t.form == "channels" else (False, t.nr)
            wanted = 1 if threads == 1 else -(-(3 if copies else 6) * threads // max(1, tasks))
            context[SPLIT] = split = min(-(-p.ocg // panel), wanted)
            tasks *= split
        for i, array in enumerate((x, packed.weight, packed.bias, residual, out)):
            context[i] = core.address(array)
        status = core.run_tasks(self.task.address, core.address(context), tasks, threads)
        if status == 1:
            raise RuntimeError(f"activation: {p.epilogue.activation} raised an exception (see stderr)")
        if status:
            raise MemoryError("convolution: no memory for the workspace of a thread")


def _padded(a: Array, axis: int, multiple: int) -> Array:
    """`a` with zeros behind along an axis."""
    width = [(0, 0)] * a.ndim
    width[axis] = (0, -a.shape[axis] % multiple)
    return np.pad(a, width)


@functools.cache
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


class Direct:
    name = "direct"
    version = 1
    plain = True
    strided = False
    turns = False

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        return native.other_form(problem) or (None if _has_numba() else Rejection("numba is not installed"))

    def tiling(self, p: Problem, cpu: Cpu) -> Tiling:
        vl = cpu.vector_length(p.dtype)
        many = cpu.isa_row.vector_bytes == 64  # registers
        list_bytes = _up(p.kh * p.kw * SEGMENT, 64)
        (sh, sw), (dh, dw), size = p.stride, p.dilation, p.itemsize
        if p.layout == "nhwc" and p.icg == 1 and p.ocg < vl:
            nv = min(2, -(-p.oc // vl))
            columns = (p.ow - 1) * sw + (p.kw - 1) * dw + 1
            row = columns * nv * vl * size
            halo = (p.kh - 1) * dh + 1
            rows = _even(p.oh, max(1, min((cpu.l2 // 4 // row - halo) // sh + 1, p.oh)))
            return Tiling("depthwise", vl, 6 if many else 4, nv, rows, columns, scratch=list_bytes + ((rows - 1) * sh + halo) * row)
        if p.layout == "nhwc":
            vectors = -(-p.ocg // vl)
            nv = min(range(1, 5 if many else 3), key=lambda nv: (_up(vectors, nv), -nv))
            return Tiling("pixels", vl, 8 if nv < 3 and many else 6, nv, scratch=list_bytes)
        mr = _even(p.ocg, 6)
        nv = {1: 8, 2: 6, 3: 4, 4: 4, 5: 4, 6: 4}[mr] // (1 if many else 2)
        columns = p.ow + (p.kw - 1) * dw // sw
        flat = columns < _up(p.ow, nv * vl)
        phases = min(sh, (p.kh - 1) * dh + 1) * min(sw, (p.kw - 1) * dw + 1)
        halo = (p.kh - 1) * dh // sh
        rows = _even(p.oh, max(1, min(cpu.l2 // 2 // (phases * columns * p.icg * size) - halo, p.oh)))
        # An odd number of cache lines, so that the channels spread over the sets of L1.
        plane = (-(-phases * (rows + halo) * columns * size // 64) | 1) * 64
        scratch = list_bytes + p.icg * plane + nv * vl * size
        return Tiling("channels", vl, mr, nv, rows, columns, rows + halo, plane, flat, scratch)

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p, t = problem, self.tiling(problem, cpu)
        rows, columns = taps.axes(p)
        share = taps.axis_share(rows, p.kh)
        if t.form == "channels":
            line, pixels = (t.rows * t.columns, t.rows * p.ow) if t.flat else (p.ow, p.ow)
            # loads that cross cache lines cost twice
            waste = _up(p.ocg, t.mr) / p.ocg * _up(line, t.nr) / pixels * (1 + 0.6 / t.mr)
            copied = p.ic * -(-p.oh // t.rows) * t.plane / p.itemsize * (4 / t.vl if p.stride[1] == 1 else 4)
        elif t.form == "depthwise":
            share, waste = 1.0, _up(p.oc, t.nr) / p.oc
            copied = -(-p.oh // t.rows) * (t.scratch / p.itemsize) * (_up(p.oc, t.nr) / t.nr) * (4 / t.vl if p.ocg == 1 else 4)
        else:
            share *= taps.axis_share(columns, p.kw)
            waste, copied = _up(p.ocg, t.nr) / p.ocg, p.groups * -(-p.ocg // t.nr) * taps.lost_cycles(p)
        # What a tap and what storing a tile cost beside the multiply-adds, in steps of the sum
        length = p.icg * (p.kw if t.form == "pixels" and p.groups == p.dilation[1] == 1 else 1)
        overhead = (1 + 6 / (length * t.mr * t.nv)) * (1 + 14 / max(1.0, p.k * share))
        compute = p.flops / cpu.peak(p.dtype) * share * waste * overhead + p.n * copied / (1e9 * cpu.ghz)
        if t.form != "channels" and p.oc < t.nr:  # lanes that store nothing are masked: 1.2 to 1.5 times the time
            compute *= 1.35
        if t.form == "pixels" and t.mr * t.nv < 8:  # six sums do not hide the latency of multiply-adds
            compute *= 1.5
        weight = p.oc * p.k * p.itemsize
        if weight > cpu.l2 // 2:  # all of it passes for each row of tiles
            compute *= 1.2
        traffic = p.n * (p.ic * p.ih * p.iw + p.oc * p.oh * p.ow) * p.itemsize + weight
        seconds = 3e-6 + max(compute / 0.97, traffic / cpu.bandwidth(traffic))
        return Cost(seconds, t.scratch, weight, native.plain_error(p), 3e-5 + native.pack_seconds(weight, 3.7, cpu))

    def build(self, problem: Problem, cpu: Cpu) -> DirectPlan:
        from cpuconv._jit import activations, direct

        p, t = problem, self.tiling(problem, cpu)
        task = direct.KERNELS[t.form](p.itemsize, t.vl, t.mr, t.nv)
        blocks = np.array(list(_blocks(p, t.mr)) if t.form == "pixels" else [], np.int64)
        context = np.zeros(1, direct.CONTEXT)
        c = context[0]
        keys = ("n", "ic", "ih", "iw", "oc", "kh", "kw", "sh", "sw", "pt", "pl", "dh", "dw", "groups", "oh", "ow")
        for key, value in zip(keys, native.geometry(p, cpu), strict=False):
            c[key] = value
        for key in ("rows", "columns", "pitch", "plane", "flat", "scratch"):
            c[key] = getattr(t, key)
        c["blocks"], c["arena"] = blocks.ctypes.data, core.arena_address()
        c["count"] = count = len(blocks) if t.form == "pixels" else -(-p.oh // t.rows)
        activation = None
        if a := p.epilogue.activation:
            activation = activations.from_python(a.function, p.itemsize) if a.function else activations.named(a.name, p.itemsize)
            c["activation"] = activation.address
            _, c["a"], c["b"] = native.activation(None if a.function else a)
        return DirectPlan(p, self.estimate(p, cpu), (self.name, t.form, t.vl, t.mr, t.nv), t, task, activation, context.view(np.int64), count, blocks)
