"""What is particular to `direct`: compiled at run time, for the ISA, with Python functions as activations."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cpuconv
from cpuconv import cpu as cpu_module
from cpuconv import reference
from cpuconv.algorithms import direct
from cpuconv.algorithms.direct import Direct
from cpuconv.plan import NUMPY_DTYPES, Array, Rejection
from cpuconv.problem import Problem

numba = pytest.importorskip("numba")

SPECS = {
    "pixels": "n2_ic5_ih9_iw11_oc35_kh3_kw3_s1_p1_d1_g1_f32_nhwc_bias_residual",
    "channels": "n2_ic6_ih17_iw19_oc22_kh5_kw3_s2x1_p2x1_d1x2_g2_f32_nchw_bias_residual",
    "depthwise": "n1_ic19_ih8_iw10_oc38_kh3_kw3_s2_p1_d1_g19_f32_nhwc_bias_residual",
}


def arguments(p: Problem) -> tuple[Array, Array, Array, Array]:
    """x, weight, bias and residual of small integers, of which sums are exact."""
    rng = np.random.default_rng(0)
    shapes = (p.x_shape, p.weight_shape, (p.oc,), p.y_shape)
    x, weight, bias, residual = (rng.integers(-4, 5, shape).astype(NUMPY_DTYPES[p.dtype]) for shape in shapes)
    return x, weight, bias, residual


def python(code: str, **environment: str) -> str:
    """What a Python process of its own prints."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    return subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True).stdout


def leaky_square(v: float) -> float:
    return v * v if v > 0 else -0.5 * v


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("groups", [1, 6])
def test_python_function_is_applied_behind_bias_and_residual(dtype: type, layout: str, groups: int) -> None:
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((2, 6, 9, 70)).astype(dtype), rng.standard_normal((12, 6 // groups, 3, 3)).astype(dtype)
    bias, residual = rng.standard_normal(12).astype(dtype), rng.standard_normal((2, 12, 9, 70)).astype(dtype)
    if layout == "NHWC":
        x, w, residual = x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0), residual.transpose(0, 2, 3, 1)
    y = cpuconv.conv2d(x, w, bias, padding=1, groups=groups, layout=layout, residual=residual, activation=leaky_square)
    plain = cpuconv.conv2d(x, w, bias, padding=1, groups=groups, layout=layout, residual=residual, algorithm="direct")
    assert y.dtype == dtype
    np.testing.assert_allclose(y, np.where(plain > 0, plain * plain, -0.5 * plain), rtol=1e-6)


def test_python_function_is_given_to_direct() -> None:
    conv = cpuconv.Conv2d(np.ones((4, 4, 3, 3), np.float32), activation=leaky_square)
    chosen = next(line for line in conv.explain((1, 4, 8, 8)).splitlines() if line.startswith("*"))
    assert " direct " in chosen


@pytest.mark.parametrize("function", [math.tanh, np.tanh, numba.njit(lambda v: math.tanh(v))], ids=["builtin", "ufunc", "compiled"])
def test_functions_that_numba_knows(function: object) -> None:
    x, w = np.linspace(-2, 2, 64, dtype=np.float32).reshape(1, 1, 8, 8), np.ones((1, 1, 1, 1), np.float32)
    np.testing.assert_allclose(cpuconv.conv2d(x, w, activation=function), np.tanh(x), rtol=1e-6)


def test_result_of_function_is_cast() -> None:
    x = np.array([-1.5, 2.5], np.float32).reshape(1, 1, 1, 2)
    y = cpuconv.conv2d(x, np.ones((1, 1, 1, 1), np.float32), activation=lambda v: v > 0)
    np.testing.assert_array_equal(y.ravel(), [0, 1])


@pytest.mark.parametrize("function", [lambda v: "text", lambda v, w: v, lambda v: undefined_name(v), lambda v: open(v)])  # type: ignore[name-defined]  # noqa: F821, SIM115
def test_function_that_numba_cannot_compile(function: object) -> None:
    x, w = np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 3, 3), np.float32)
    out = np.full((1, 1, 2, 2), 7, np.float32)
    with pytest.raises(TypeError, match=r"activation: Numba cannot compile <lambda> [^\n]*\n.+"):
        cpuconv.conv2d(x, w, activation=function, out=out, algorithm="direct")
    assert (out == 7).all()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_function_that_raises(layout: str) -> None:
    def fail(v: float) -> float:
        if v > 1:
            raise ValueError("too large")
        return v

    x, w = np.ones((1, 2, 2, 2), np.float32), np.ones((2, 2, 2, 2), np.float32)
    with pytest.raises(RuntimeError, match="activation: <fail> raised"):
        cpuconv.conv2d(x, w, layout=layout, activation=fail, algorithm="direct")


@pytest.mark.parametrize("isa", cpu_module.available_isas())
@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("form", SPECS)
def test_kernels_of_each_isa(form: str, dtype: str, isa: str) -> None:
    p, cpu = Problem.parse(SPECS[form].replace("f32", dtype)), cpu_module.with_isa(cpu_module.detect(), isa)
    x, weight, bias, residual = arguments(p)
    plan = Direct().build(p, cpu)
    assert plan.tiling.vl == cpu.vector_length(dtype)
    packed = plan.pack(weight, bias)
    for threads in (1, 3):
        y = np.full(p.y_shape, np.nan, x.dtype)
        plan.run(x, packed, residual, y, threads)
        np.testing.assert_array_equal(y, reference.forward(p, x, weight, bias, residual))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_bands_of_one_row(spec: str) -> None:
    """With next to no cache, every band is one row, and its neighbours' rows are copied again."""
    p = Problem.parse(spec)
    x, weight, bias, residual = arguments(p)
    plan = Direct().build(p, replace(cpu_module.detect(), l2=1024))
    y = np.full(p.y_shape, np.nan, np.float32)
    plan.run(x, plan.pack(weight, bias), residual, y, 2)
    np.testing.assert_array_equal(y, reference.forward(p, x, weight, bias, residual))


def test_second_process_loads_from_the_disk_cache(tmp_path: Path) -> None:
    code = f"""
from cpuconv import cpu
from cpuconv.algorithms.direct import Direct
from cpuconv.problem import Problem
for spec in {list(SPECS.values())}:
    plan = Direct().build(Problem.parse(spec + "_act:silu"), cpu.detect())
    print(plan.task.cache_hits, plan.activation.cache_hits)
"""
    first = python(code, NUMBA_CACHE_DIR=str(tmp_path))
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb?")}
    second = python(code, NUMBA_CACHE_DIR=str(tmp_path))
    # the second and third plan share the first one's activation
    assert first.split() == ["0"] * 6
    assert second.split() == ["1"] * 6
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb?")}


def test_works_where_there_is_no_place_for_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core.caching import CacheImpl

    from cpuconv._jit.direct import pixels

    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    assert pixels.__wrapped__(4, 4, 3, 1).address


def test_numba_is_imported_by_the_first_kernel_only() -> None:
    code = """
import sys
import cpuconv
cpuconv.explain("n1_ic64_ih56_iw56_oc64_kh3_kw3_s1_p1_d1_g1_f32_nchw", algorithm="direct")
print("numba" in sys.modules)
"""
    assert python(code).strip() == "False"


def test_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "_has_numba", lambda: False)
    rejection = Direct().supports(Problem.parse(SPECS["pixels"]), cpu_module.detect())
    assert rejection == Rejection("numba is not installed")
