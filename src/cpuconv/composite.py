"""Plans of 3-D convolutions and of gradients of the input, made of plans of the 2-D forward convolutions that `pieces` finds.

The pieces read and write views of the operand and the result where their plan can, and add up the taps of a depth axis in the result itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from cpuconv import pieces, reference
from cpuconv.cpu import Cpu
from cpuconv.errors import UnsupportedError
from cpuconv.pieces import Spatial
from cpuconv.plan import Algorithm, Array, Cost, Plan, Quantization, Rejection
from cpuconv.problem import INTEGER_DTYPES, Epilogue, Problem
from cpuconv.threads import for_work

# Seconds of an element, measured:
COPY = 1e-9  # from or to a view, for a plan that takes none
TURN = 3.5e-9  # of a weight, likewise
PUT = {"nchw": 0.5e-9, "nhwc": 2e-9}  # of joined phases to their places
GAP = 0.9e-9  # written by a plan to planes with gaps between the pixels


class Piece(NamedTuple):
    """A 2-D forward convolution, by the algorithm chosen for it. It opens and closes the sum of its outputs: the residual comes first, bias and
    activation last."""

    problem: Problem
    algorithm: Algorithm
    spatial: Spatial
    tap: int  # of the depth
    source: slice  # planes of the operand
    target: slice  # planes of the result
    opens: bool
    closes: bool


class Step(NamedTuple):
    """A piece made ready."""

    piece: Piece
    plan: Plan

    @property
    def weight_key(self) -> Hashable:
        return self.piece.tap, self.piece.spatial.taps, self.plan.weight_format, self.plan.problem.epilogue.bias


class Fill(NamedTuple):
    """Part of the result that no tap reaches."""

    spatial: Spatial
    target: slice


class Packed(NamedTuple):
    weights: dict[Hashable, Any]
    bias: Array | None


@dataclass(frozen=True)
class CompositePlan:
    problem: Problem
    cost: Cost
    steps: tuple[Step, ...] = field(repr=False)
    fills: tuple[Fill, ...] = field(repr=False)
    by_image: bool

    @property
    def weight_format(self) -> Hashable:
        return "pieces", frozenset(step.weight_key for step in self.steps)

    def pack(self, weight: Array, bias: Array | None, quantization: Quantization | None = None, *, lasting: bool = False) -> Packed:
        weights: dict[Hashable, Any] = {}
        for step in self.steps:
            if step.weight_key not in weights:
                tiled = np.tile(bias, len(step.piece.spatial.cells)) if bias is not None and step.piece.problem.epilogue.bias else None
                weights[step.weight_key] = step.plan.pack(_weight(self.problem, weight, step.piece), tiled, lasting=lasting)
        return Packed(weights, bias)

    def run(self, x: Array, packed: Packed, residual: Array | None, out: Array, threads: int) -> None:
        for images in self._stacks(x, residual, out):
            if self.fills:
                self._fill(packed.bias, *images[1:])
            for step in self.steps:
                self._step(step, packed.weights[step.weight_key], *images, threads)

    def _stacks(self, x: Array, residual: Array | None, out: Array) -> Iterator[tuple[Array, Array | None, Array]]:
        """Operand, residual and result as stacks of planes: the batch, or image by image the planes along the depth."""
        if not self.by_image:
            yield x, residual, out
            return
        for i in range(self.problem.n):
            y = self._stack(out, i)
            yield self._stack(x, i), None if residual is None else y if residual is out else self._stack(residual, i), y

    def _stack(self, a: Array, i: int) -> Array:
        if self.problem.depth is None:
            return a[i : i + 1]
        image: Array = a[i]
        return image.swapaxes(0, 1) if self.problem.layout == "nchw" else image

    def _step(self, step: Step, packed: Any, x: Array, residual: Array | None, out: Array, threads: int) -> None:
        plan, piece, spatial = step.plan, step.piece, step.piece.spatial
        source = _cut(x, self.problem.layout, piece.source, spatial.height.source, spatial.width.source)
        threads = min(threads, for_work(plan.cost.seconds))
        added = residual if piece.opens else out
        y = _view(self.problem, out, piece.target, spatial)
        if y is not None and piece.algorithm.strided:
            z = None if added is None else y if added is out else _view(self.problem, added, piece.target, spatial)
            plan.run(source, packed, z, y, threads)
            return
        dtype, shape = out.dtype, plan.problem.y_shape
        y = np.empty(shape, dtype)
        z = None if added is None else y
        if added is not None:
            for block, view in _blocks(self.problem, added, y, piece.target, spatial):
                block[...] = view
        plan.run(source if piece.algorithm.strided else np.ascontiguousarray(source), packed, z, y, threads)
        for block, view in _blocks(self.problem, out, y, piece.target, spatial):
            view[...] = block

    def _fill(self, bias: Array | None, residual: Array | None, out: Array) -> None:
        p = self.problem
        constant = np.zeros(1) if bias is None else bias.astype(np.float64)
        constant = constant if p.layout == "nhwc" else constant[:, None, None]
        if residual is None:
            # all of it, in one sweep: what the pieces make comes over that
            out[...] = reference.activate(p.epilogue.activation, constant).astype(out.dtype)
            return
        for fill in self.fills:
            for rows, columns in fill.spatial.cells:
                value = _cut(residual, p.layout, fill.target, rows, columns) + constant
                _cut(out, p.layout, fill.target, rows, columns)[...] = reference.activate(p.epilogue.activation, value)


def _cut(stack: Array, layout: str, planes: slice, rows: slice, columns: slice) -> Array:
    return stack[planes, :, rows, columns] if layout == "nchw" else stack[planes, rows, columns]


def _view(p: Problem, stack: Array, planes: slice, s: Spatial) -> Array | None:
    """The part of the result (or residual) that a piece makes, as one view; None where there is none."""
    if not pieces.side_by_side(p, s):
        return None
    view = _cut(stack, p.layout, planes, *s.cells[0])
    blocks = len(s.cells)
    if blocks == 1:
        return view
    shape, strides = list(view.shape), list(view.strides)
    channel = 1 if p.layout == "nchw" else 3
    shape[channel] *= blocks
    strides[channel] = stack.itemsize
    return as_strided(view, shape, strides)


def _blocks(p: Problem, stack: Array, y: Array, planes: slice, s: Spatial) -> Iterator[tuple[Array, Array]]:
    """Blocks of channels of `y`, where a piece puts its phases, with the parts of the stack that they stand for."""
    channels = y.shape[1 if p.layout == "nchw" else 3] // len(s.cells)
    for i, (rows, columns) in enumerate(s.cells):
        part = slice(i * channels, (i + 1) * channels)
        view = _cut(stack, p.layout, planes, rows, columns)
        if p.layout == "nchw":
            yield y[:, part, : view.shape[2], : view.shape[3]], view
        else:
            yield y[:, : view.shape[1], : view.shape[2], part], view


def _weight(p: Problem, weight: Array, piece: Piece) -> Array:
    """The weight of a piece, in the layout; a view where it is of one phase and one group."""
    w = weight if p.layout == "nchw" else np.moveaxis(weight, (-1, -2), (0, 1))
    if p.depth:
        w = w[:, :, piece.tap]
    if p.pass_ == "input":
        w = w.reshape(p.groups, p.ocg, p.icg, p.kh, p.kw).swapaxes(1, 2).reshape(p.ic, p.ocg, p.kh, p.kw)
    phases = [_taken(_taken(w, rows, 2), columns, 3) for rows, columns in piece.spatial.taps]
    w = phases[0] if len(phases) == 1 else np.concatenate(phases)
    return w if p.layout == "nchw" else np.moveaxis(w, (0, 1), (-1, -2))


def _taken(w: Array, taps: tuple[int, ...], axis: int) -> Array:
    """Taps of an axis: a view, but for those with zeros between."""
    before: tuple[Any, ...] = (slice(None),) * axis
    if pieces.ZERO in taps:
        w = np.take(w, taps, axis)
        w[(*before, [t == pieces.ZERO for t in taps])] = 0
        return w
    step = taps[1] - taps[0] if len(taps) > 1 else 1
    end = taps[-1] + step
    return w[(*before, slice(taps[0], None if end < 0 else end, step))]


def copying(algorithm: Algorithm, piece: Problem) -> float:
    """Seconds for a piece's weight, a view, that the algorithm's plans would have contiguous."""
    return 0.0 if algorithm.turns else math.prod(piece.weight_shape) * TURN


class Pieces:
    """The algorithm of problems that other ones do not know: 2-D pieces, each by the algorithm that `choose` finds for it.

    `choose` is told, too, among how many packed weights the memory is to be divided. Only `build` makes plans: to weigh a way that is not taken
    must not compile kernels.

    `joined`: all phases of a gradient are one convolution, whose blocks of channels are then put in their places.
    """

    version = 2
    strided = False
    turns = False

    def __init__(self, choose: Callable[[Problem, int], Algorithm], joined: bool = False) -> None:
        self.name = "joined" if joined else "pieces"
        self.plain = not joined  # as far as the plans of the pieces are; a joined tap of zero makes NaN of infinity
        self.choose, self.joined = functools.cache(choose), joined

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        if not applies(problem):
            return Rejection("it is for 3-D and for gradients of the input")
        if not pieces.spatial(problem, self.joined):
            return Rejection("there are no phases to be joined")
        try:
            self._pieces(problem.per_image)
        except UnsupportedError as e:
            return Rejection(str(e))
        return None

    def problems(self, problem: Problem) -> list[Problem]:
        """The problems of the pieces, as often as they come."""
        return [piece.problem for piece in self._pieces(problem)[0]] * (problem.n if self._by_image(problem) else 1)

    def _by_image(self, p: Problem) -> bool:
        return p.depth is not None or not all(pieces.side_by_side(p, s) for s in pieces.spatial(p, self.joined) if not s.empty)

    def _pieces(self, p: Problem) -> tuple[list[Piece], list[Fill]]:
        e, found, fills = p.epilogue, list[Piece](), list[Fill]()
        images = 1 if self._by_image(p) else p.n
        runs = pieces.depth(p) if p.depth else [pieces.Planes(slice(0, images, 1), ((0, slice(0, images, 1)),))]
        spatials = pieces.spatial(p, self.joined)
        weights = len({spatial.taps for spatial in spatials}) * (p.depth.kernel if p.depth else 1)
        for spatial in spatials:
            for target, taps in runs:
                if spatial.empty or not taps:
                    fills.append(Fill(spatial, target))
                    continue
                count = len(range(target.start, target.stop, target.step))
                for i, (tap, source) in enumerate(taps):
                    opens, closes = i == 0, i == len(taps) - 1
                    epilogue = Epilogue(closes and e.bias, not opens or e.residual, e.activation if closes else None)
                    q = spatial.problem(p, count, epilogue)
                    found.append(Piece(q, self.choose(q, weights), spatial, tap, source, target, opens, closes))
        return found, fills

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p = problem
        images = p.n if self._by_image(p) else 1
        seconds, workspace, error = 1e-6, 0, 1e-16
        packed: dict[Hashable, Cost] = {}
        for piece in self._pieces(p)[0]:
            q, cost = piece.problem, piece.algorithm.estimate(piece.problem, cpu)
            x, y, in_place = math.prod(q.x_shape), math.prod(q.y_shape), pieces.side_by_side(p, piece.spatial)
            if not piece.algorithm.strided:
                copied, moving = x + y, (x + y) * COPY
            elif not in_place:
                copied, moving = y, y * PUT[p.layout]
            else:
                gaps = p.layout == "nchw" and piece.spatial.width.targets[0].step > 1
                copied, moving = 0, y * GAP if gaps else 0.0
            seconds += images * (cost.seconds + 2e-6 + moving)
            workspace = max(workspace, cost.workspace + copied * p.itemsize)
            error = max(error, cost.error + (0 if piece.opens else 2.0 ** (-24 if p.dtype == "f32" else -53)))
            cost = replace(cost, pack_seconds=cost.pack_seconds + copying(piece.algorithm, q))
            packed[piece.tap, piece.spatial.taps, piece.algorithm.name, q.epilogue.bias] = cost
        return Cost(seconds, workspace, sum(c.packed for c in packed.values()), error, sum(c.pack_seconds for c in packed.values()))

    def build(self, problem: Problem, cpu: Cpu) -> CompositePlan:
        found, fills = self._pieces(problem)
        steps = tuple(Step(piece, piece.algorithm.build(piece.problem, cpu)) for piece in found)
        return CompositePlan(problem, self.estimate(problem, cpu), steps, tuple(fills), self._by_image(problem))


def applies(problem: Problem) -> bool:
    """Whether a problem comes down to 2-D forward convolutions, and is not one."""
    if problem.dtype in INTEGER_DTYPES:
        return False
    return problem.pass_ == "input" or (problem.pass_ == "forward" and problem.depth is not None)
