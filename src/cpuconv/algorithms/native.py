"""What the plans of all native algorithms share: the C object, the packed weight and bias, the call."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from cpuconv._native import core
from cpuconv.cpu import Cpu
from cpuconv.plan import NUMPY_DTYPES, Array, Cost, Quantization, Rejection, lasting_empty
from cpuconv.problem import Activation, Axis, Problem

LINE = 64  # bytes of a cache line, nearly everywhere
AS_IT_IS = "as it is"  # the format of a weight that needs no packing
LONG_SUM = 128  # products, beside which the visit of a tile's outputs weighs little
CACHED = 8 << 20  # bytes of images that caches hold until the next call
SHARED = 64 << 20  # bytes of an L3 that many cores share, perhaps with other machines, that are counted on
LARGE = 32 << 20  # bytes that the allocator (glibc's) never keeps when they are freed


class Packed(NamedTuple):
    weight: Array
    bias: Array


class Blocking(NamedTuple):
    """conv_blocking of conv.h: pixels, tiles or output rows a task; input channels of a strip; longest piece of the sum; whether it is done on bands
    of an image, reads an unpacked weight, reads images beyond the caches, writes past them, and completes row after row; Winograd's tile, points."""

    block: int
    channels: int = 0
    kc: int = 0
    band: bool = False
    unpacked: bool = False
    far: bool = False
    stream: bool = False
    across: bool = False
    mh: int = 1
    mw: int = 1
    points: tuple[float, ...] = ()


def geometry(p: Problem, cpu: Cpu) -> tuple[int, ...]:
    """The ints of conv_geometry, in order."""
    top, _, left, _ = p.padding
    flags = int(p.layout == "nhwc"), int(cpu.halves)
    return (p.n, p.ic, p.ih, p.iw, p.oc, p.kh, p.kw, *p.stride, top, left, *p.dilation, p.groups, p.oh, p.ow, *flags)


def activation(a: Activation | None) -> tuple[int, float, float]:
    """conv_activation: kind and two parameters."""
    if a is None:
        return 0, 0.0, 0.0
    first, second, *_ = (*a.params, 0.0, 0.0)
    return core.ACTIVATIONS.index(a.name), first, second


def other_form(p: Problem) -> Rejection | None:
    if p.dtype not in NUMPY_DTYPES:
        return Rejection("it computes in floating point")
    if p.pass_ != "forward" or p.depth:
        return Rejection("by itself it does forward convolutions in two dimensions")
    return None


def unsupported(p: Problem) -> Rejection | None:
    """Forms and epilogues that need another algorithm."""
    if form := other_form(p):
        return form
    if p.epilogue.activation and p.epilogue.activation.function:
        return Rejection("a Python function as activation needs a kernel compiled at run time")
    return None


def plain_error(p: Problem) -> float:
    """Largest error to expect of plain summation of k products, relative to max|y|: roundings add up like a random walk."""
    unit = 2.0**-24 if p.dtype == "f32" else 2.0**-53
    return unit * (8 + 1.5 * math.sqrt(p.k))


def chained_error(p: Problem, *chains: float) -> float:
    """As `plain_error`, of sums of sums of sums ..., by the numbers of their terms."""
    unit = 2.0**-24 if p.dtype == "f32" else 2.0**-53
    return unit * (8 + 1.5 * sum(map(math.sqrt, chains)))


def near_sum(k: int, columns: int, itemsize: int, cpu: Cpu) -> int | None:
    """The longest piece of a sum of k products for which L1 keeps the panel of so many columns, if that is enough to repay the visits of the output.

    It is for AVX-512, whose tiles read more of a panel for each multiply-add than L2 gives beside the rest: on an Intel Xeon it is worth 2 to 10 %.
    """
    rows = min(256, cpu.l1 * 2 // 3 // (columns * itemsize))  # longer sums would err more
    return math.ceil(k / max(1, k // rows)) if cpu.isa_row.vector_bytes == 64 and rows >= LONG_SUM else None


def shared_lines(p: Problem, cpu: Cpu) -> float:
    """Seconds that it costs to do one group after the other where their channels share cache lines, which each visits anew."""
    if p.layout != "nhwc" or p.groups == 1 or p.icg * p.itemsize >= LINE:
        return 0.0
    return p.n * p.groups * (p.ih * p.iw + p.oh * p.ow) * 14e-9 / cpu.ghz


def _images(p: Problem) -> tuple[int, int]:
    """Bytes of the input and of the result."""
    return p.n * p.ic * p.ih * p.iw * p.itemsize, p.n * p.oc * p.oh * p.ow * p.itemsize


def far(p: Problem, cpu: Cpu) -> bool:
    """Whether images are more than the quick caches hold until the next call."""
    return sum(_images(p)) > (cpu.l2 if cpu.slow_l3 else CACHED)


def shared(cpu: Cpu) -> int:
    """Bytes of L3 that are counted on."""
    return min(cpu.l3, SHARED)


def streams(p: Problem, cpu: Cpu) -> bool:
    """Whether results, which the caches would lose before they are read, go past them: depthwise layers in batches then take half as long (Zen 4).

    Those that, with the input, take less than half of L3 stay in it (past it they take up to 1.2 times as long); so do small ones of large inputs.
    """
    x, y = _images(p)
    cache = max(shared(cpu), CACHED)  # systems may not tell of L3
    return 4 * y >= cache and 2 * (x + y) >= cache


def crowded(p: Problem, cpu: Cpu) -> float:
    """How many times as long a 1x1 of many planes takes to read them in place where they lie whole pages apart: their lines meet in one set of L1."""
    crowd = p.kh * p.kw == 1 and p.icg >= 8 and p.ih * p.iw * p.itemsize % 4096 == 0
    return 1.5 if crowd and cpu.isa_row.vector_bytes < 64 else 1.0  # measured with AVX2, and for 1x1, only


def pack_seconds(size: float, rate: float, cpu: Cpu) -> float:
    """Packing a weight into so many bytes of new memory, at a rate of bytes a cycle of a usual core; large memory comes from the system, by pages.

    A slow L3 is not hidden: what L2 does not hold comes from there, and goes there.
    """
    far = max(0.0, 2 * size - cpu.l2) / (1e9 * cpu.rates.l3) if cpu.slow_l3 else 0.0
    return 3e-6 + size / (rate * 1e9 * cpu.ghz * cpu.quickness) + far + (size / 6e9 if size >= LARGE else 0.0)


@dataclass(frozen=True)
class NativePlan:
    """One C `Convolution` and how its weight and bias are packed."""

    problem: Problem
    cost: Cost
    weight_format: Hashable
    convolution: core.Convolution = field(repr=False)
    packs: bool = True  # the kernel reads the weight in a form of its own
    views: bool = False  # which is made of any view of it
    rewrites: bool = False  # blocks overlap, so that some outputs are computed and written twice
    padded_bias: int = 0  # columns to which each group's bias is padded; 0 for none
    transforms: tuple[Array, Array] | None = None  # Winograd's weight transforms per axis

    def pack(self, weight: Array, bias: Array | None, quantization: Quantization | None = None, *, lasting: bool = False) -> Packed:
        p, dtype = self.problem, NUMPY_DTYPES[self.problem.dtype]
        values = np.zeros(p.oc, dtype) if bias is None else bias
        if self.padded_bias > p.ocg:
            padded = np.zeros((p.groups, self.padded_bias), dtype)
            padded[:, : p.ocg] = values.reshape(p.groups, p.ocg)
            values = padded
        weight = (weight if self.views else np.ascontiguousarray(weight)).reshape(p.weight_shape)
        if not self.packs and weight.flags.c_contiguous:
            return Packed(weight, values)
        packed = lasting_empty(self.convolution.packed_size(), dtype, lasting)
        self.convolution.pack(weight, values, packed, *(self.transforms or ()))
        return Packed(packed, values)

    def run(self, x: Array, packed: Packed, residual: Array | None, out: Array, threads: int) -> None:
        y = np.empty(out.shape, out.dtype) if self.rewrites and residual is out else out
        if y is not out:
            residual = out.copy(order="C")
        self.convolution.run(x, packed.weight, packed.bias, residual, y, threads)
        if y is not out:
            out[...] = y

    def bind(self, packed: Packed, x_shape: tuple[int, ...], y_shape: tuple[int, ...]) -> core.Bound:
        return core.Bound(self.convolution, packed.weight, packed.bias, x_shape, y_shape)


class WeightBlocking(NamedTuple):
    """Of conv_blocking: pixels of a block; channels of a task, of either kind; chunks of the sum."""

    block: int
    channels: int
    chunks: int


@dataclass(frozen=True)
class WeightPlan:
    """One C `WeightGradient`, which reads x and y's gradient as they are."""

    problem: Problem
    cost: Cost
    gradient: core.WeightGradient = field(repr=False)
    weight_format: Hashable = AS_IT_IS

    def pack(self, weight: Array, bias: Array | None, quantization: Quantization | None = None, *, lasting: bool = False) -> Array:
        return weight

    def run(self, x: Array, packed: Array, residual: Array | None, out: Array, threads: int) -> None:
        self.gradient.run(x, packed, out, threads)


def weight_plan(p: Problem, cpu: Cpu, cost: Cost, blocking: WeightBlocking, depthwise: bool) -> WeightPlan:
    a = p.depth or Axis(1, 1)
    depth = (a.size, a.out, a.kernel, a.stride, a.before, a.dilation)
    return WeightPlan(p, cost, core.WeightGradient(cpu.isa, p.dtype, geometry(p, cpu), depth, blocking, depthwise))
