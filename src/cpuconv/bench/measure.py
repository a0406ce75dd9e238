"""Times contestants on one layer, fairly: all on the same data, in rounds, each checked against the float64 reference."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from cpuconv import reference
from cpuconv.bench.layers import Layer
from cpuconv.bench.peers import ALL, Runner, Unable
from cpuconv.layers import Conv2d
from cpuconv.plan import Array, aligned_empty
from cpuconv.problem import Problem

ROUNDS = 6  # a busy neighbour takes a part of a core for some seconds, or for less than a tenth
PAUSE = 0.015  # seconds: the threads of other libraries spin a while after their last call
WRONG = 1e-2  # an error over this part of max|y| is not rounding: the result is another one


@dataclass
class Result:
    """What was measured on one layer, by contestant: seconds, error relative to max|y|, or why there is none."""

    layer: Layer
    seconds: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def gflops(self, name: str) -> float:
        """Of the direct method's operations, so that Winograd may exceed the peak."""
        return self.layer.problem.flops / self.seconds[name] / 1e9

    def best(self, names: Mapping[str, object]) -> str | None:
        """The fastest of `names` that took part."""
        return min((name for name in names if name in self.seconds), key=self.seconds.__getitem__, default=None)


def data(p: Problem) -> tuple[Array, Array, Array]:
    """x, weight and bias such that outputs are about 1. x begins at a cache line, as results of cpuconv and of its peers do."""
    rng = np.random.default_rng(1)
    x = aligned_empty(p.x_shape, np.dtype(np.float32))
    rng.standard_normal(dtype=np.float32, out=x)
    w = rng.standard_normal(p.weight_shape, np.float32) / np.float32(math.sqrt(p.k))
    return x, w, rng.standard_normal(p.oc, np.float32)


def layer_of(p: Problem, w: Array, b: Array | None, algorithm: str = "auto") -> Conv2d:
    """The layer that poses a problem."""
    return Conv2d(w, b, p.stride, (p.padding[:2], p.padding[2:]), p.dilation, p.groups, layout=p.layout.upper(), algorithm=algorithm)


def minima(
    calls: Mapping[str, Callable[[], object]], seconds: float, entering: Callable[[str], None] = lambda name: None, *,
    rounds: int = ROUNDS, pause: float = PAUSE, threads: int | None = None,
) -> dict[str, float]:  # fmt: skip
    """The shortest time of each call in interleaved rounds, so that a drift of the machine hits all alike.

    `threads`: in how many the calls are known to compute. If in this one alone, its own clock is read, which stands still while others run.
    """
    clock = time.thread_time if threads == 1 else time.perf_counter
    best = dict.fromkeys(calls, math.inf)
    for _ in range(rounds):
        for name, call in calls.items():
            entering(name)
            time.sleep(pause)
            call()
            end = clock() + seconds / rounds
            start, count = clock(), 0
            while True:
                call()
                stop, count = clock(), count + 1
                if stop == start:  # on some virtual machines a thread's clock stands still for microseconds
                    continue
                best[name] = min(best[name], (stop - start) / count)
                if stop > end:
                    break
                start, count = clock(), 0
    return best


def measure(
    layer: Layer, names: list[str], threads: int, seconds: float, keep: list[object], entering: Callable[[str], None] = lambda name: None
) -> Result:
    """Time one layer in each of `names`, `seconds` for each; `keep` gets what must not be freed, `entering` the name whose code is next."""
    p = layer.problem
    x, w, b = data(p)
    result = Result(layer)
    runners: dict[str, Runner] = {}
    expected: dict[tuple[int, int, int, int], Array] = {}
    for name in names:
        entering(name)
        try:
            runner = ALL[name].build(p, x, w, b, threads)
            keep += [runner, x, w, b]
            padding = runner.padding or p.padding
            if padding not in expected:
                expected[padding] = reference.forward(replace(p, padding=padding), x, w, b)
            result.errors[name] = error(runner.output(), expected[padding])
        except Exception as e:  # whatever a peer raises, the others go on
            result.failures[name] = str(e) if isinstance(e, Unable) else f"{type(e).__name__}: {e}".split("\n")[0][:200]
            continue
        if result.errors[name] <= WRONG:
            runners[name] = runner
        else:
            result.failures[name] = f"wrong result: error {result.errors[name]:.1e} of max|y|"
    result.seconds = minima({name: runner.run for name, runner in runners.items()}, seconds, entering)
    return result


def error(y: Array, expected: Array) -> float:
    if y.shape != expected.shape:
        raise ValueError(f"shape {y.shape}, not {expected.shape}")
    difference = float(np.abs(y - expected).max() / np.abs(expected).max())
    return math.inf if math.isnan(difference) else difference
