"""Picks an algorithm for a problem: the fastest that fits the caller's budget, by what was measured here or else by estimates."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from cpuconv import composite, verbose, wisdom
from cpuconv import cpu as cpu_module
from cpuconv.algorithms import ALGORITHMS
from cpuconv.cpu import Cpu
from cpuconv.errors import UnsupportedError
from cpuconv.plan import Algorithm, Cost, Plan, Rejection
from cpuconv.problem import Problem

DEFAULT_ACCURACY = {"f32": 1e-5, "f64": 1e-13}


@dataclass(frozen=True)
class Budget:
    """What the caller allows: a named algorithm or "auto"; an error relative to max|y|, "strict", or None; workspace in bytes or None.

    `one_shot`: the weight is used once, so that packing it counts. `turned`: it is a view of another one.
    """

    algorithm: str = "auto"
    accuracy: float | str | None = None
    workspace_limit: int | None = None
    one_shot: bool = False
    turned: bool = False


@dataclass(frozen=True)
class Candidate:
    """One row of `explain`: an algorithm, what it or the budget says of the problem, and its measured seconds if wisdom has them.

    `cost` and `measured` are for one image.
    """

    algorithm: Algorithm
    cost: Cost | None
    rejection: Rejection | None
    measured: float | None = None

    @property
    def seconds(self) -> float:
        """Measured, or else predicted; 0 for an algorithm that does not apply."""
        return self.measured or (self.cost.seconds if self.cost else 0.0)


class CacheInfo(NamedTuple):
    """Plans kept, their estimated bytes, the limit on those bytes, and how often a plan was found or had to be made."""

    plans: int
    bytes: int
    limit: int
    hits: int
    misses: int


Kept = TypeVar("Kept")
PLAN_BYTES = 4096  # a plan's Python and C objects; none holds arrays


class PlanCache:
    """Plans, and what goes with them, by all that they depend on; the least recently used dropped first; safe under threads."""

    def __init__(self, limit: int = 4 << 20) -> None:
        self.limit = limit
        self._lock = threading.Lock()
        self._plans: OrderedDict[Hashable, Any] = OrderedDict()
        self._hits = self._misses = 0

    def get(self, key: Hashable) -> Any:
        with self._lock:
            plan = self._plans.get(key)
            if plan is None:
                self._misses += 1
            else:
                self._hits += 1
                self._plans.move_to_end(key)
            return plan

    def put(self, key: Hashable, plan: object) -> None:
        with self._lock:
            self._plans[key] = plan
            while len(self._plans) * PLAN_BYTES > self.limit:
                self._plans.popitem(last=False)

    def info(self) -> CacheInfo:
        with self._lock:
            return CacheInfo(len(self._plans), len(self._plans) * PLAN_BYTES, self.limit, self._hits, self._misses)

    def clear(self) -> None:
        with self._lock:
            self._plans.clear()
            self._hits = self._misses = 0


_cache = PlanCache()


def cache_info() -> CacheInfo:
    """Return how many plans are kept, their bytes and the limit on them, and the hits and misses so far.

    Packed weights are not among them: these belong to the layers.

    Examples
    --------
    >>> cache_info().bytes <= cache_info().limit
    True
    """
    return _cache.info()


def clear_cache() -> None:
    """Forget all plans, and the counts of hits and misses. Layers keep the plans that they use.

    Examples
    --------
    >>> clear_cache()
    >>> cache_info().plans
    0
    """
    _cache.clear()


def algorithms() -> tuple[str, ...]:
    """Names that the argument `algorithm` takes, besides ``"auto"`` and ``"winograd"`` (the best Winograd tile).

    Examples
    --------
    >>> "direct" in algorithms()
    True
    """
    return tuple(a.name for a in ALGORITHMS)


def named(name: str) -> tuple[Algorithm, ...]:
    """The algorithms that a name stands for.

    Raises
    ------
    ValueError
        If there is no algorithm of that name.
    """
    found = _named(name) if isinstance(name, str) else ()
    if not found:
        raise ValueError(f"algorithm: {name!r} is not one of auto, winograd, {', '.join(algorithms())}")
    return found


@lru_cache(maxsize=64)
def _named(name: str) -> tuple[Algorithm, ...]:
    return tuple(a for a in ALGORITHMS if name in ("auto", a.name) or (name == "winograd" and a.name.startswith("winograd_")))


def candidates(problem: Problem, budget: Budget, cpu: Cpu) -> list[Candidate]:
    """Every algorithm that the budget names, the choice first, those that do not apply last.

    Measured ones come before all others: one that was left out of the measuring was out of the question.
    """
    known, cpu = wisdom.measured(problem, cpu), wisdom.calibrated(cpu)
    rows = [_judge(a, problem, budget, cpu, known.get((a.name, a.version))) for a in (*named(budget.algorithm), *composites(problem, budget, cpu))]

    def rank(row: Candidate) -> tuple[bool, bool, float]:
        packing = row.cost.pack_seconds if budget.one_shot and row.cost else 0.0
        if budget.one_shot and budget.turned:
            packing += composite.copying(row.algorithm, problem)
        return row.rejection is not None, row.measured is None, row.seconds + packing

    return sorted(rows, key=rank)


def composites(problem: Problem, budget: Budget, cpu: Cpu) -> tuple[composite.Pieces, ...]:
    """Algorithms made of those of 2-D pieces, each within its share of the budget."""
    if not composite.applies(problem) or budget.algorithm == "reference":
        return ()

    def choice(piece: Problem, weights: int) -> Algorithm:
        limit = None if budget.workspace_limit is None else budget.workspace_limit // weights
        return choose(piece, replace(budget, workspace_limit=limit, turned=True), cpu).algorithm

    return composite.Pieces(choice), composite.Pieces(choice, joined=True)


def _judge(algorithm: Algorithm, problem: Problem, budget: Budget, cpu: Cpu, measured: float | None) -> Candidate:
    rejection = algorithm.supports(problem, cpu)
    if rejection:
        return Candidate(algorithm, None, rejection)
    # The choice is made per image, so that one image gives the same bits alone and in a batch.
    cost = algorithm.estimate(problem.per_image, cpu)
    return Candidate(algorithm, cost, _over_budget(algorithm, cost, problem, budget), measured)


def _over_budget(algorithm: Algorithm, cost: Cost, problem: Problem, budget: Budget) -> Rejection | None:
    if budget.accuracy == "strict":
        if not algorithm.plain:
            return Rejection('accuracy="strict" allows plain summation only')
    elif budget.accuracy is not None or not algorithm.plain:
        allowed = DEFAULT_ACCURACY[problem.dtype] if budget.accuracy is None else float(budget.accuracy)
        if cost.error > allowed and (budget.accuracy is not None or budget.algorithm in ("auto", "winograd")):
            return Rejection(f"error bound {cost.error:.1e} over accuracy {allowed:.1e}")
    needed = cost.workspace + cost.packed
    if budget.workspace_limit is not None and needed > budget.workspace_limit:
        return Rejection(f"workspace and packed weight of {needed:,} bytes over workspace_limit {budget.workspace_limit:,}")
    return None


def choose(problem: Problem, budget: Budget, cpu: Cpu) -> Candidate:
    """The first of the candidates.

    Raises
    ------
    UnsupportedError
        If no algorithm that `budget` names does the problem within it; the message gives each one's reason.
    """
    rows = candidates(problem, budget, cpu)
    if rows[0].rejection:
        reasons = "; ".join(f"{row.algorithm.name}: {row.rejection.reason}" for row in rows if row.rejection)
        raise UnsupportedError(f"algorithm {budget.algorithm!r} cannot do {problem}: {reasons}")
    return rows[0]


def plan(problem: Problem, budget: Budget, cpu: Cpu | None = None) -> Plan:
    """The plan for a problem: from the cache, or made and kept.

    Raises
    ------
    UnsupportedError
        As `choose`.
    """
    return kept((problem, budget), lambda: _made(problem, budget, cpu or cpu_module.detect()), cpu)


def kept(key: Hashable, make: Callable[[], Kept], cpu: Cpu | None = None) -> Kept:
    """What is kept under a key, on a CPU (this one, if none is given) and in the present state of the wisdom; or else is made, and kept.

    Layers keep more than the plan so: what it takes to find the problem in arguments costs ten times what it takes to find them here.
    """
    key = (key, cpu, wisdom.changes)
    found: Kept | None = _cache.get(key)
    if found is None:
        found = make()
        _cache.put(key, found)
    return found


def _made(problem: Problem, budget: Budget, cpu: Cpu) -> Plan:
    best = choose(problem, budget, cpu)
    made = best.algorithm.build(problem, wisdom.calibrated(cpu))
    measured = f", measured {best.measured * 1e6:.1f} us an image," if best.measured else ""
    verbose.log(f"plan {problem} {best.algorithm.name} predicted {made.cost.seconds * 1e6:.1f} us{measured} on {cpu.isa}")
    return made


def explain(problem: Problem | str, *, algorithm: str = "auto", accuracy: float | str | None = None, workspace_limit: int | None = None) -> str:
    """Return a table of every algorithm's own figures on a problem, the chosen one marked, with the reasons of those that were not.

    Times are for one thread. Those measured by `tune`, on one image, are multiplied by the size of the batch.

    Parameters
    ----------
    problem : Problem or str
        A problem or its spec, such as ``n1_ic64_ih56_iw56_oc64_kh3_kw3_s1_p1_d1_g1_f32_nchw``.
    algorithm, accuracy, workspace_limit
        As in `conv2d`.

    Raises
    ------
    ValueError
        If the spec is malformed or the algorithm unknown.

    Examples
    --------
    >>> print(explain("n1_ic64_ih56_iw56_oc64_kh3_kw3_s1_p1_d1_g1_f32_nchw"))
    n1_ic64_ih56_iw56_oc64_kh3_kw3_s1_p1_d1_g1_f32_nchw: 231.2 MFLOP on ...
    """
    if isinstance(problem, str):
        problem = Problem.parse(problem)
    return explain_table(problem, Budget(algorithm, accuracy, workspace_limit))


def explain_table(problem: Problem, budget: Budget) -> str:
    cpu = wisdom.calibrated(cpu_module.detect())
    head = ("", "algorithm", "predicted us", "measured us", "workspace/thread", "packed weight", "error bound", "why not")
    rows: list[tuple[str, ...]] = [head]
    for i, row in enumerate(candidates(problem, budget, cpu)):
        mark = "*" if i == 0 and not row.rejection else ""
        figures = ["-"] * 5
        if row.cost:
            cost = row.algorithm.estimate(problem, cpu)
            measured = f"{row.measured * problem.n / max(1, problem.per_image.n) * 1e6:.1f}" if row.measured else "-"
            figures = [f"{cost.seconds * 1e6:.1f}", measured, f"{cost.workspace:,}", f"{cost.packed:,}", f"{cost.error:.1e}"]
        rows.append((mark, row.algorithm.name, *figures, row.rejection.reason if row.rejection else ""))
    width = [max(len(row[i]) for row in rows) for i in range(7)]
    lines = [f"{problem}: {problem.flops / 1e6:.1f} MFLOP on {cpu.isa}, {cpu.model} (* chosen)"]
    for *figures, reason in rows:
        cells = [c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(figures, width, strict=True))]
        lines.append("  ".join([*cells, reason]).rstrip())
    if made_of := made_of_pieces(problem, budget, cpu):
        lines.append("made of these, one after the other:")
        lines += [f"   {count} x {piece}: {best.algorithm.name}, {best.seconds * piece.n * 1e6:.1f} us" for count, piece, best in made_of]
    return "\n".join(lines)


def made_of_pieces(problem: Problem, budget: Budget, cpu: Cpu) -> list[tuple[int, Problem, Candidate]]:
    """How often which 2-D problem comes in the choice, and the choice for that; empty where the choice is no composite."""
    chosen = candidates(problem, budget, cpu)[0]
    if chosen.rejection or not isinstance(chosen.algorithm, composite.Pieces):
        return []
    return [(count, piece, choose(piece, replace(budget, turned=True), cpu)) for piece, count in Counter(chosen.algorithm.problems(problem)).items()]
