"""Checks results against the float64 reference and times contestants fairly."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cpuconv import cpu, planner
from cpuconv.layers import Conv2d
from cpuconv.plan import Array
from cpuconv.planner import Budget, Candidate
from cpuconv.problem import Epilogue

ROUNDS = 5
SAFETY = 2.0  # an activation makes max|y|, which the bounds are relative to, smaller


@dataclass(frozen=True)
class Measured:
    """One contestant: its best time, and its largest error and stated bound, both relative to the same scale.

    `eligible`: the planner might have taken it; otherwise its bound is over the default accuracy.
    """

    name: str
    seconds: float
    error: float
    bound: float
    eligible: bool = True

    @property
    def ok(self) -> bool:
        return self.error <= SAFETY * self.bound  # False for NaN


def candidates(layer: Conv2d, x: Array) -> list[Candidate]:
    """The algorithms that can do the layer on x, the planner's choice first."""
    problem = layer.options.problem(x.shape, layer.weight.shape, "f32", Epilogue(layer.bias is not None, False, layer.activation))
    return [row for row in planner.candidates(problem, Budget(), cpu.detect()) if row.cost]


def reference(x: Array, weight: Array, bias: Array | None = None, **arguments: Any) -> Array:
    """The same convolution in float64 by the library's oracle."""
    layer = Conv2d(weight.astype(np.float64), None if bias is None else bias.astype(np.float64), algorithm="reference", **arguments)
    return layer(x.astype(np.float64))


def error(y: Array, expected: Array, scale: float) -> float:
    return float(np.abs(y - expected).max()) / scale


def best_times(calls: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """The shortest time of each call, over interleaved rounds that give each of them an equal share of `seconds`.

    A call that is slower than its share runs once; within a round calls repeat, since the first one still feels the
    threads and caches of the contestant before it.
    """
    share = seconds / len(calls)
    best = dict.fromkeys(calls, float("inf"))
    spent = dict.fromkeys(calls, 0.0)
    for i in range(ROUNDS):
        for name, call in calls.items():
            while spent[name] < share * (i + 1) / ROUNDS:
                start = time.perf_counter()
                call()
                elapsed = time.perf_counter() - start
                best[name] = min(best[name], elapsed)
                spent[name] += elapsed
    return best
