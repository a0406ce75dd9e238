"""Test data, the expected results, and how far from them an algorithm may be."""

import math
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np

import cpuconv
from cpuconv import Problem, reference
from cpuconv.algorithms import ALGORITHMS
from cpuconv.cpu import available_isas, detect, with_isa
from cpuconv.plan import NUMPY_DTYPES
from cpuconv.problem import Epilogue
from shapes import PROBLEMS

INTEGER_CPUS = [with_isa(detect(), isa) for isa in available_isas()]
CPUS = [cpu for cpu in INTEGER_CPUS if cpu.isa_row.level is None]
"""Those with floating kernels of their own."""
FLOATING = [a for a in ALGORITHMS if any(not a.supports(p, CPUS[-1]) for p in PROBLEMS)]
"""Those that do forward convolutions of floating numbers."""
SLOPES = {"clip": 1, "leaky_relu": 2, "sigmoid": 0.25, "tanh": 1, "silu": 1.1, "hardsigmoid": 1 / 6, "hardswish": 1.5, "gelu": 1.13}
"""The steepest slope of each activation, with the parameters that are tested: what it may make of an error before it."""


class Arrays(NamedTuple):
    x: np.ndarray
    weight: np.ndarray
    bias: np.ndarray | None
    residual: np.ndarray | None


def suited(algorithm: str, problem: Problem) -> Problem:
    """The problem, or one near it that the algorithm does: of another kernel size or stride, depthwise, or in groups of 4 channels."""
    (named,) = (a for a in ALGORITHMS if a.name == algorithm)
    kernels = [replace(problem, kh=k, kw=k, stride=(s, s)) for s in (1, 2) for k in (3, 2, 4, 5, 7, 1)]
    groups = [replace(problem, oc=problem.ic, groups=problem.ic), replace(problem, ic=32, oc=32, groups=8)]
    return next(p for p in (problem, *kernels, *groups) if not named.supports(p, CPUS[-1]))


def make(problem: Problem, draw) -> Arrays:
    """Arrays of the problem's shapes; `draw` gives float64 values for a shape."""
    dtype, e = NUMPY_DTYPES[problem.dtype], problem.epilogue
    shapes = (*problem.operand_shapes, problem.bias_shape if e.bias else None, problem.result_shape if e.residual else None)
    return Arrays(*(None if shape is None else draw(shape).astype(dtype) for shape in shapes))


def seed(problem: Problem) -> np.random.Generator:
    return np.random.default_rng(list(str(problem).encode()))


@cache
def normal(problem: Problem) -> Arrays:
    return make(problem, seed(problem).standard_normal)


@cache
def integers(problem: Problem) -> Arrays:
    """Small enough that every partial sum is exact in float32."""
    rng = seed(problem)
    return make(problem, lambda shape: rng.integers(-8, 9, shape).astype(np.float64))


def linear(problem: Problem, arrays: Arrays) -> np.ndarray:
    """The reference result without epilogue."""
    return reference.compute(replace(problem, epilogue=Epilogue()), arrays.x, arrays.weight)


@cache
def normal_results(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Of the `normal` data: without epilogue, and with it."""
    arrays = normal(problem)
    return linear(problem, arrays), reference.compute(problem, *arrays)


def with_epilogue(problem: Problem, activation=None, bias: bool = True, residual: bool = True) -> Problem:
    return replace(problem, epilogue=Epilogue(bias, residual, activation))


def tolerance(problem: Problem, error: float, conv: np.ndarray) -> float:
    """What `error`, relative to max|y| of the convolution proper, comes to on normal data behind the epilogue.

    A handful of outputs may all happen to be small; sqrt(k), their standard deviation, stands for their size then.
    """
    eps = np.finfo(NUMPY_DTYPES[problem.dtype]).eps
    size = max(np.abs(conv).max(initial=0), math.sqrt(problem.k))
    bound = error * size
    if problem.epilogue.bias or problem.epilogue.residual:
        bound += 2 * eps * (size + 8)
    if activation := problem.epilogue.activation:
        bound = bound * SLOPES[activation.name] + 4 * eps * (size + 8)
    return bound


def view(shape: tuple[int, ...], layout: str, dtype) -> np.ndarray:
    """A view of that shape into NaN: every second row and pixel of some of the channels of a larger array."""
    n, c, h, w = shape if layout == "nchw" else (shape[0], shape[3], *shape[1:3])
    if layout == "nchw":
        return np.full((n, c + 1, 2 * h + 1, 2 * w + 3), np.nan, dtype)[:, 1:, 1::2, 3::2]
    return np.full((n, 2 * h + 1, 2 * w + 3, c + 2), np.nan, dtype)[:, 1::2, 3::2, 1:-1]


def run(plan, arrays: Arrays, threads: int = 1) -> np.ndarray:
    """One call of a plan into an array of NaN, so that what is not written shows."""
    packed = plan.pack(arrays.weight, arrays.bias)
    out = np.full(plan.problem.result_shape, np.nan, NUMPY_DTYPES[plan.problem.dtype])
    plan.run(arrays.x, packed, arrays.residual, out, threads)
    return out


def check_normal(plan) -> None:
    """The plan holds its own bound on normal data."""
    conv, expected = normal_results(plan.problem)
    y = run(plan, normal(plan.problem))
    assert y.shape == expected.shape
    worst = np.abs(y - expected).max(initial=0)
    assert worst <= tolerance(plan.problem, plan.cost.error, conv), f"error {worst:.2e}, max|y| {np.abs(conv).max(initial=0):.2e}"


def conv2d(problem: Problem, arrays: Arrays, **options) -> np.ndarray:
    """The public function on a problem."""
    top, bottom, left, right = problem.padding
    return cpuconv.conv2d(
        arrays.x, arrays.weight, arrays.bias, problem.stride, ((top, bottom), (left, right)), problem.dilation, problem.groups,
        layout=problem.layout.upper(), residual=arrays.residual, **options,
    )  # fmt: skip


ONCE = ("reference", "unpacked_gemm")
"""Tested on one CPU: what depends on the ISA they have not, or share with implicit_gemm."""


def cases(problems, cpus=CPUS, plain: bool | None = None):
    """(algorithm, problem, cpu) for every algorithm that does the problem there: the parameters of a contract test."""
    return [
        (algorithm, problem, cpu)
        for algorithm in ALGORITHMS
        for problem in problems
        for cpu in (cpus if algorithm.name not in ONCE else cpus[-1:])
        if (plain is None or algorithm.plain == plain) and algorithm.supports(problem, cpu) is None
    ]


def case_id(value) -> str:
    return getattr(value, "isa", getattr(value, "name", str(value)))
