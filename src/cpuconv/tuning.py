"""`tune`: times the algorithms on problems, and keeps the figures as wisdom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cpuconv import cpu as cpu_module
from cpuconv import planner, wisdom
from cpuconv.cpu import Cpu
from cpuconv.layer import Layer
from cpuconv.plan import Algorithm, Array, plain_integers, types
from cpuconv.planner import Budget
from cpuconv.problem import INTEGER_DTYPES, Problem
from cpuconv.wisdom import Measured

ROUNDS = 5
ENOUGH = 0.5  # seconds for one algorithm on one problem: more finds no shorter time
HOPELESS = 5.0  # an algorithm predicted to be so many times slower is not timed

Progress = Callable[[float, int, str], object]


class Tuned(NamedTuple):
    """The fastest algorithm on a problem, and its seconds for one image in one thread."""

    algorithm: str
    seconds: float


def tune(
    what: str | Problem | Layer | Iterable[str | Problem],
    x_shape: tuple[int, ...] | None = None,
    *,
    dtype: npt.DTypeLike = np.float32,
    time_limit: float = 10.0,
    progress: Progress | None = None,
) -> dict[str, Tuned]:
    """Time the algorithms on problems, so that from then on the planner takes what was fastest here.

    What is measured is saved after each problem (see `cpuconv.wisdom`) and serves all later processes on this CPU. It holds for
    every accuracy and workspace_limit, which are applied when an algorithm is chosen. Plans made before are not used again: layers,
    too, choose anew at their next call. Results may then differ in their last bits, as after any change of algorithm, but
    never between numbers of threads or sizes of batch: all is measured on one image and one thread.

    Parameters
    ----------
    what : str, Problem, list of these, or a layer such as Conv2d
        Specs such as ``n1_ic64_ih56_iw56_oc64_kh3_kw3_s1_p1_d1_g1_f32_nchw``, or a layer. A layer's method `problem` makes problems of it.
    x_shape : tuple of int
        With a layer, and only then: the shape of its input.
    dtype : dtype
        With a layer: the type of its input.
    time_limit : float
        Seconds for all problems together, divided fairly. An algorithm under way is not broken off, nor is its compilation, which for
        short limits is tried once.
    progress : callable, optional
        Called now and then as ``progress(done, total, spec)``: how many of `total` problems are done, with the fraction of
        that under way, and which it is.

    Returns
    -------
    dict of str to Tuned
        For each spec the algorithm now chosen and its seconds. Problems for which no time was left are missing.

    Raises
    ------
    ValueError, TypeError
        If an argument breaks its rule; nothing is measured then.
    UnsupportedError
        If no algorithm that the layer allows can do its problem.

    Warns
    -----
    RuntimeWarning
        If the figures cannot be saved; they are used in this process all the same.

    Examples
    --------
    >>> spec = "n1_ic8_ih16_iw16_oc8_kh3_kw3_s1_p1_d1_g1_f32_nchw"
    >>> tune(spec, time_limit=0.1)
    {'n1_ic8_ih16_iw16_oc8_kh3_kw3_s1_p1_d1_g1_f32_nchw': Tuned(algorithm=..., seconds=...)}
    >>> from cpuconv import Conv2d
    >>> conv = Conv2d(np.ones((8, 8, 3, 3), np.float32), padding=1)
    >>> len(tune(conv, (4, 8, 16, 16), time_limit=0.1))
    1
    """
    problems, budget = _problems(what, x_shape, dtype)
    if not time_limit > 0:
        raise ValueError(f"time_limit: {time_limit} must be a positive number of seconds")
    cpu = cpu_module.detect()
    images = list(dict.fromkeys(q.per_image for p in problems for q in _with_pieces(p, budget, cpu)))
    for image in images:
        planner.choose(image, budget, cpu)  # or raise, before any time is spent
    deadline = time.perf_counter() + time_limit
    done: set[Problem] = set()
    preparation: dict[str, float] = {}
    for i, image in enumerate(images):
        left = deadline - time.perf_counter()
        if left <= 0:
            break
        for fraction in _tune_one(image, budget, cpu, left / (len(images) - i), preparation):
            if progress:
                progress(i + fraction, len(images), str(image))
        done.add(image)
    return {str(p): _winner(p, budget, cpu) for p in problems if p.per_image in done}


def _problems(what: object, x_shape: tuple[int, ...] | None, dtype: npt.DTypeLike) -> tuple[list[Problem], Budget]:
    if isinstance(what, Layer):
        if x_shape is None:
            raise TypeError("x_shape: must be given with a layer")
        problems, budget = [what.problem(x_shape, dtype)], what.budget
    else:
        if x_shape is not None:
            raise TypeError("x_shape: goes with a layer; a spec or Problem has its shape")
        listed = [what] if isinstance(what, str | Problem) else what
        if not isinstance(listed, Iterable):
            raise TypeError(f"what: must be a spec, a Problem, a list of these or a layer, got {type(what).__name__}")
        problems, budget = [_problem(item) for item in listed], Budget()
    for problem in problems:
        if not wisdom.nameable(problem):
            raise ValueError(f"what: {problem} has a Python function as activation, by which wisdom cannot be found again")
    return problems, budget


def _with_pieces(problem: Problem, budget: Budget, cpu: Cpu) -> list[Problem]:
    """The 2-D problems that a problem may come down to, then itself: the choice among ways to divide it rests on the choice for each piece."""
    ways = [way for way in planner.composites(problem, budget, cpu) if not way.supports(problem, cpu)]
    return [*(piece for way in ways for piece in way.problems(problem.per_image)), problem]


def _problem(item: object) -> Problem:
    if isinstance(item, str):
        return Problem.parse(item)
    if not isinstance(item, Problem):
        raise TypeError(f"what: must hold specs and Problems, got {type(item).__name__}")
    item.check()
    return item


def _winner(problem: Problem, budget: Budget, cpu: Cpu) -> Tuned:
    best = planner.choose(problem, budget, cpu)
    return Tuned(best.algorithm.name, best.seconds)


def contestants(problem: Problem, budget: Budget, cpu: Cpu) -> list[Algorithm]:
    """The algorithms worth timing, the most promising first.

    Those over the accuracy or workspace that is asked for now are among them: with the next call it may be another. For the
    same reason plain summation is called hopeless only beside plain summation.
    """
    rows = [row for row in planner.candidates(problem, budget, cpu) if row.cost]
    rows = [row for row in rows if row.algorithm.name != "reference"] or rows
    seconds = {row.algorithm.name: row.cost.seconds for row in rows if row.cost}
    eligible = [row.algorithm for row in rows if not row.rejection]

    def hopeless(a: Algorithm) -> bool:
        return any(HOPELESS * seconds[b.name] < seconds[a.name] and b.plain >= a.plain for b in eligible)

    return sorted((row.algorithm for row in rows if not hopeless(row.algorithm)), key=lambda a: seconds[a.name])


def _tune_one(problem: Problem, budget: Budget, cpu: Cpu, seconds: float, preparation: dict[str, float]) -> Iterator[float]:
    """Time the contestants and record their shortest times; yields the fraction done.

    `preparation` says, from problem to problem, how long algorithms take to get ready: one that compiles for longer than a problem's whole
    share of time would leave none for the others.
    """
    end = time.perf_counter() + seconds
    arrays = _Arrays(problem)
    best: dict[str, Measured] = {}
    calls: list[tuple[Algorithm, Callable[[], None]]] = []
    for algorithm in contestants(problem, budget, cpu):
        start = time.perf_counter()
        if calls and (start > end or preparation.get(algorithm.name, 0.0) > seconds):
            continue
        calls.append((algorithm, arrays.call(algorithm, cpu)))
        preparation[algorithm.name] = min(preparation.get(algorithm.name, math.inf), time.perf_counter() - start)
        yield 0.0
    turn = min(seconds / len(calls), ENOUGH) / ROUNDS
    for i in range(ROUNDS):
        # Interleaved, for the machine's speed drifts; repeated, for the first call finds the caches of the one before.
        for algorithm, call in calls:
            elapsed = _shortest(call, turn)
            known = best.get(algorithm.name)
            best[algorithm.name] = Measured(algorithm.version, min(elapsed, known.seconds if known else elapsed))
        yield (i + 1) / ROUNDS
        if time.perf_counter() > end:
            break
    wisdom.record(problem, cpu, best)
    yield 1.0


def _shortest(call: Callable[[], None], seconds: float) -> float:
    """The shortest time of calls that together take about so many seconds, at least one."""
    start = now = time.perf_counter()
    shortest = math.inf
    while True:
        call()
        before, now = now, time.perf_counter()
        shortest = min(shortest, now - before)
        if now - start >= seconds:
            return shortest


class _Arrays:
    """Random data of a problem's shapes."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        rng = np.random.default_rng(0)
        kinds = types(problem.dtype)

        def draw(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
            return rng.standard_normal(shape, dtype.type) if dtype.kind == "f" else rng.integers(0, 100, shape, dtype.type)

        x_shape, weight_shape = problem.operand_shapes
        self.x, self.weight = draw(x_shape, kinds.x), draw(weight_shape, kinds.weight)
        self.bias = draw(problem.bias_shape, kinds.bias) if problem.epilogue.bias else None
        self.residual = draw(problem.result_shape, kinds.y) if problem.epilogue.residual else None
        self.out = np.empty(problem.result_shape, kinds.y)
        self.quantization = plain_integers(problem) if problem.dtype in INTEGER_DTYPES else None

    def call(self, algorithm: Algorithm, cpu: Cpu) -> Callable[[], None]:
        """A call that computes the problem, compiled and warm."""
        plan = algorithm.build(self.problem, cpu)
        packed = plan.pack(self.weight, self.bias, self.quantization)

        def call() -> None:
            plan.run(self.x, packed, self.residual, self.out, 1)

        call()
        return call
