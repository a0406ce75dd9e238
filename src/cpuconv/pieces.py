"""How 3-D convolutions and gradients of the input come down to 2-D forward convolutions: which part of which array meets which taps.

Along an axis, the input's gradient at position ``q stride + phase`` sums the taps t with ``t dilation = phase + before (mod stride)``. These are
every ``stride / gcd(stride, dilation)``-th tap, and they meet outputs ``dilation / gcd`` apart: a forward convolution of stride 1
with its taps turned round (Dumoulin and Visin 2016, section 4, without their zeros between the pixels). A depth axis is taken tap by tap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby, product
from typing import NamedTuple

from cpuconv.problem import Axis, Epilogue, Problem

ZERO = -1
"""Stands for a tap that no product needs."""

CACHED = 1 << 20  # bytes of a band of joined phases
TILES = 12  # whole tiles of rows for each Winograd


class Part(NamedTuple):
    """Positions of one axis of the result, and the forward convolution along it that makes them from part of the operand's axis.

    Several phases may be joined: they come out as blocks of channels. `axis` is None where no tap reaches.
    """

    axis: Axis | None
    source: slice
    targets: tuple[slice, ...]
    taps: tuple[tuple[int, ...], ...]


class Planes(NamedTuple):
    """Planes of the result that share their taps along the depth, and the planes of the operand that each tap meets."""

    target: slice
    taps: tuple[tuple[int, slice], ...]


def whole(axis: Axis) -> Part:
    """A forward convolution's axis."""
    return Part(axis, slice(0, axis.size), (slice(0, axis.out, 1),), (tuple(range(axis.kernel)),))


def phases(axis: Axis) -> list[Part]:
    """The input's gradient along an axis, each phase apart."""
    return [_phase(axis, phase) for phase in range(min(axis.stride, axis.size))]


def _phase(a: Axis, phase: int) -> Part:
    target = slice(phase, a.size, a.stride)
    common = math.gcd(a.stride, a.dilation)
    taps = [t for t in range(a.kernel) if (phase + a.before - t * a.dilation) % a.stride == 0]
    if taps:
        dilation = a.dilation // common
        reach = dilation * (len(taps) - 1)
        before = reach - (phase + a.before - taps[0] * a.dilation) // a.stride
        part = _cropped(a.out, -(-(a.size - phase) // a.stride), len(taps), before, dilation)
        if part:
            return Part(*part, (target,), (tuple(reversed(taps)),))
    return Part(None, slice(0, 0), (target,), ((),))


def _cropped(size: int, count: int, kernel: int, before: int, dilation: int) -> tuple[Axis, slice] | None:
    """The axis of stride 1 that makes `count` outputs; what would be negative padding is cut off the operand."""
    after = count - size - before + dilation * (kernel - 1)
    source = slice(max(0, -before), size - max(0, -after))
    left = source.stop - source.start
    return (Axis(left, kernel, 1, max(0, before), max(0, after), dilation), source) if left > 0 else None


def neighbours_joined(parts: list[Part]) -> list[Part]:
    """Neighbouring phases of equal geometry as one part: their channels lie side by side in the result where pixels' channels do."""
    joined: list[Part] = []
    for (axis, source), group in groupby(parts, key=lambda part: (part.axis, (part.source.start, part.source.stop))):
        same = list(group)
        counts = {len(range(t.start, t.stop, t.step)) for part in same for t in part.targets}
        if axis is None or len(counts) > 1:
            joined += same
        else:
            joined.append(Part(axis, slice(*source), tuple(p.targets[0] for p in same), tuple(p.taps[0] for p in same)))
    return joined


def all_joined(a: Axis) -> Part | None:
    """All phases as one part, whose taps span those of each, zeros between; None for one phase, or where some phase has no taps."""
    parts = phases(a)
    if len(parts) < 2 or any(part.axis is None for part in parts):
        return None
    dilation = a.dilation // math.gcd(a.stride, a.dilation)
    # the outputs that phase and taps meet, relative to the position: from last - reach to last
    last = [(phase + a.before - part.taps[0][-1] * a.dilation) // a.stride for phase, part in enumerate(parts)]
    first = [end - dilation * (len(part.taps[0]) - 1) for end, part in zip(last, parts, strict=True)]
    if len({end % dilation for end in last}) > 1:
        return None
    kernel = (max(last) - min(first)) // dilation + 1
    taps = []
    for start, part in zip(first, parts, strict=True):
        leading = (start - min(first)) // dilation
        row = (ZERO,) * leading + part.taps[0]
        taps.append(row + (ZERO,) * (kernel - len(row)))
    cropped = _cropped(a.out, -(-a.size // a.stride), kernel, -min(first), dilation)
    return Part(*cropped, tuple(part.targets[0] for part in parts), tuple(taps)) if cropped else None


def planes(part: Part) -> Iterator[Planes]:
    """The runs of positions of a depth axis whose taps all fall inside the operand."""
    a, (target,), (taps,) = part.axis, part.targets, part.taps
    count = len(range(target.start, target.stop, target.step))
    if a is None:
        yield Planes(target, ())
        return

    def valid(q: int) -> tuple[int, ...]:
        return tuple(j for j in range(a.kernel) if 0 <= q * a.stride + j * a.dilation - a.before < a.size)

    for js, group in groupby(range(count), key=valid):
        run = list(group)
        first, length = run[0], len(run)
        begin = target.start + first * target.step
        met = []
        for j in js:
            start = part.source.start + first * a.stride + j * a.dilation - a.before
            met.append((taps[j], slice(start, start + (length - 1) * a.stride + 1, a.stride)))
        yield Planes(slice(begin, begin + (length - 1) * target.step + 1, target.step), tuple(met))


class Spatial(NamedTuple):
    """One 2-D forward convolution: a part of the height and one of the width; each pair of their phases is a block of channels."""

    height: Part
    width: Part

    @property
    def empty(self) -> bool:
        return self.height.axis is None or self.width.axis is None

    @property
    def cells(self) -> list[tuple[slice, slice]]:
        """Rows and columns of the result, by block of channels."""
        return list(product(self.height.targets, self.width.targets))

    @property
    def taps(self) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
        """Taps of height and width, by block of channels."""
        return tuple(product(self.height.taps, self.width.taps))

    def problem(self, p: Problem, n: int, epilogue: Epilogue) -> Problem:
        """The convolution on n planes."""
        h, w = self.height.axis, self.width.axis
        assert h and w
        ic, oc = (p.ic, p.oc) if p.pass_ == "forward" else (p.oc, p.ic)
        return Problem(
            n=n, ic=ic, ih=h.size, iw=w.size, oc=oc * len(self.cells), kh=h.kernel, kw=w.kernel, stride=(h.stride, w.stride),
            padding=(h.before, h.after, w.before, w.after), dilation=(h.dilation, w.dilation), groups=p.groups,
            dtype=p.dtype, layout=p.layout, epilogue=epilogue,
        )  # fmt: skip


def side_by_side(p: Problem, s: Spatial) -> bool:
    """Whether joined phases are channels of a view: pixels of one row that all have their like, and nothing else between their numbers."""
    if len(s.cells) == 1:
        return True
    counts = {len(range(t.start, t.stop, t.step)) for t in s.width.targets}
    return len(s.height.targets) == 1 and len(counts) == 1 and (p.layout == "nhwc" or p.ic == 1)


def _bands(p: Problem, s: Spatial) -> list[Spatial]:
    """Bands of rows so few that what a band makes stays in cache until it is put in its place."""
    a, w = s.height.axis, s.width.axis
    assert a and w
    rows = max(1, CACHED // (p.ic * len(s.cells) * w.out * p.itemsize))
    if a.kernel > 1:
        rows = -(-rows // TILES) * TILES
    found = []
    for q0 in range(0, a.out, rows):
        q1 = min(a.out, q0 + rows)
        targets = tuple(slice(t.start + q0 * t.step, min(t.stop, t.start + q1 * t.step), t.step) for t in s.height.targets)
        cropped = _cropped(a.size, q1 - q0, a.kernel, a.before - q0, a.dilation)
        axis, source = cropped or (None, slice(0, 0))
        found.append(Spatial(Part(axis, _shifted(source, s.height.source.start), targets, s.height.taps), s.width))
    return found


def _shifted(s: slice, by: int) -> slice:
    return slice(s.start + by, s.stop + by)


def spatial(p: Problem, joined: bool) -> list[Spatial]:
    """The 2-D convolutions of each plane of the result. `joined`: all phases in one, if that can be; else only where it costs nothing."""
    if p.pass_ == "forward":
        return [] if joined else [Spatial(whole(p.height), whole(p.width))]
    if joined:
        height, width = (all_joined(a) or (phases(a)[0] if min(a.stride, a.size) == 1 else None) for a in (p.height, p.width))
        apart = p.groups > 1 or height is None or width is None or len(height.targets) == len(width.targets) == 1
        if apart or height is None or width is None:
            return []
        one = Spatial(height, width)
        return [one] if side_by_side(p, one) else _bands(p, one)
    widths = phases(p.width)
    if p.groups == 1 and (p.layout == "nhwc" or p.ic == 1):
        widths = neighbours_joined(widths)
    return [Spatial(height, width) for height in phases(p.height) for width in widths]


def depth(p: Problem) -> list[Planes]:
    """The runs of planes of a 3-D problem."""
    assert p.depth
    parts = phases(p.depth) if p.pass_ == "input" else [whole(p.depth)]
    return [run for part in parts for run in planes(part)]
