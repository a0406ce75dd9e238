"""Which taps of a kernel read the image and not padding: pixels in rectangles that share theirs, and what cost models count with them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from cpuconv.problem import Problem

CALL = 500  # cycles that a call of implicit_gemm or direct costs for a block of pixels and a panel


class Run(NamedTuple):
    """Outputs [first, end) along an axis for which exactly the taps [first_tap, end_tap) lie inside the image."""

    first: int
    end: int
    first_tap: int
    end_tap: int

    @property
    def outputs(self) -> int:
        return self.end - self.first

    @property
    def taps(self) -> int:
        return self.end_tap - self.first_tap


@lru_cache(maxsize=128)  # of a choice's candidates several ask, and of a layer's images most have the same width
def runs(out: int, stride: int, pad: int, dilation: int, taps: int, size: int) -> tuple[Run, ...]:
    """The outputs along an axis in runs."""
    found: list[Run] = []
    o = 0
    while o < out:
        start = o * stride - pad
        low = min(taps, max(0, -(start // dilation)))
        high = max(low, min(taps, (size - 1 - start) // dilation + 1))
        end = o + 1
        if (low, high) == (0, taps):  # so have all up to the last that reads inside
            end = max(end, min(out, (size - 1 - (taps - 1) * dilation + pad) // stride + 1))
        if found and found[-1][2:] == (low, high):
            found[-1] = found[-1]._replace(end=end)
        else:
            found.append(Run(o, end, low, high))
        o = end
    return tuple(found)


def axes(p: Problem) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    """The runs of rows, and of columns."""
    top, _, left, _ = p.padding
    return (
        runs(p.oh, p.stride[0], top, p.dilation[0], p.kh, p.ih),
        runs(p.ow, p.stride[1], left, p.dilation[1], p.kw, p.iw),
    )


def rectangles(p: Problem) -> Iterator[tuple[Run, Run]]:
    """The rectangles of pixels that share their taps."""
    return product(*axes(p))


def axis_share(axis: tuple[Run, ...], taps: int) -> float:
    """The share of all (output, tap) pairs along an axis whose tap reads the image."""
    return sum(run.outputs * run.taps for run in axis) / (axis[-1].end * taps)


def valid_share(p: Problem) -> float:
    """The same of both axes."""
    rows, columns = axes(p)
    return axis_share(rows, p.kh) * axis_share(columns, p.kw)


def read_share(p: Problem) -> float:
    """The share of the taps that read the image for any output."""
    rows, columns = (len({tap for run in axis for tap in range(run.first_tap, run.end_tap)}) for axis in axes(p))
    return rows * columns / (p.kh * p.kw)


def lost_cycles(p: Problem) -> float:
    """Cycles that a panel of output channels loses at the rectangles: a call for each, and sums of few pixels wait for multiply-adds to end."""
    few = 4
    return sum(CALL + max(0, few - y.outputs * x.outputs) * y.taps * x.taps * p.icg for y, x in rectangles(p))
