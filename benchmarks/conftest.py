"""What the benchmarks share: one thread, and data for a problem."""

import numpy as np
import pytest

import cpuconv
from cpuconv import Problem


@pytest.fixture(autouse=True)
def _one_thread():
    with cpuconv.threads(1):
        yield


@pytest.fixture
def arrays():
    """A function that makes x, weight and bias of a problem."""

    def make(p: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        return tuple(rng.standard_normal(shape, np.float32) for shape in (p.x_shape, p.weight_shape, (p.oc,)))

    return make
