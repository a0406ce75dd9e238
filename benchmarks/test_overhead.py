"""What a call costs beside its arithmetic, on an image so small that there is hardly any."""

import numpy as np
import pytest

import cpuconv
from cpuconv import Problem

SMALL = Problem(n=1, ic=8, ih=8, iw=8, oc=8, kh=3, kw=3, padding=(1, 1, 1, 1))
ARITHMETIC_FREE = Problem(n=1, ic=1, ih=1, iw=1, oc=1, kh=1, kw=1)


@pytest.mark.parametrize("problem", [SMALL, ARITHMETIC_FREE], ids=str)
@pytest.mark.parametrize("call", ["layer with out", "layer", "conv2d"])
def test_call(benchmark, arrays, problem: Problem, call: str):
    x, w, b = arrays(problem)
    padding = problem.padding[0]
    conv = cpuconv.Conv2d(w, b, padding=padding)
    out = np.empty_like(conv(x))
    benchmark.group = str(problem)
    if call == "layer with out":
        benchmark(conv, x, out=out)
    elif call == "layer":
        benchmark(conv, x)
    else:
        benchmark(cpuconv.conv2d, x, w, b, padding=padding)


def test_pytorch(benchmark, arrays):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    x, w, b = map(torch.from_numpy, arrays(SMALL))
    benchmark.group = str(SMALL)
    with torch.inference_mode():
        benchmark(torch.nn.functional.conv2d, x, w, b, padding=1)
