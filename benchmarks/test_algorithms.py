"""Every algorithm on a layer or two of each class, both layouts: ``pytest benchmarks --benchmark-only``."""

import numpy as np
import pytest

import cpuconv
from cpuconv import Problem
from cpuconv.bench.layers import class_of
from shapes import LAYER_PROBLEMS, both_layouts

LARGEST = 5e8  # operations: slow algorithms have to finish, too


@pytest.mark.parametrize("algorithm", ["auto", *(name for name in cpuconv.algorithms() if name != "reference")])
@pytest.mark.parametrize("problem", both_layouts([p for p in LAYER_PROBLEMS if p.flops < LARGEST]), ids=str)
def test_layer(benchmark, arrays, problem: Problem, algorithm: str):
    x, w, b = arrays(problem)
    padding = (problem.padding[:2], problem.padding[2:])
    try:
        conv = cpuconv.Conv2d(w, b, problem.stride, padding, problem.dilation, problem.groups, layout=problem.layout.upper(), algorithm=algorithm)
        out = np.empty_like(conv(x))
    except cpuconv.UnsupportedError as e:
        pytest.skip(str(e))
    benchmark.group = f"{class_of(problem)}: {problem}"
    benchmark(conv, x, out=out)
    benchmark.extra_info["gflops"] = problem.flops / benchmark.stats.stats.min / 1e9
