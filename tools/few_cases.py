"""The heart of the contract tests on a problem of each kind, for CPUs (emulated ones) and builds (sanitized ones) on which all would take hours.

Needs the package, its `tests` folder on the path, and NumPy; no pytest.
"""

import sys

import numpy as np

from cpuconv import cpu, planner, reference
from cpuconv.algorithms import ALGORITHMS
from cpuconv.plan import plain_integers, types
from cpuconv.planner import Budget
from cpuconv.problem import INTEGER_DTYPES, Activation
from oracle import INTEGER_CPUS, cases, check_normal, integers, normal, run, seed, view, with_epilogue
from shapes import FEW, FORMS, both_layouts, with_dtype


def floating(algorithm, problem, machine) -> None:
    plan = algorithm.build(problem, machine)
    check_normal(plan)
    arrays = integers(problem)
    if algorithm.plain and problem.epilogue.activation is None:
        np.testing.assert_array_equal(run(plan, arrays, 2), reference.compute(problem, *arrays))
    if algorithm.strided:
        arrays = normal(problem)
        x, y = (view(a.shape, problem.layout, a.dtype) for a in (arrays.x, arrays.residual))
        x[...], y[...] = arrays.x, arrays.residual
        plan.run(x, plan.pack(arrays.weight, arrays.bias), y, y, 2)
        np.testing.assert_array_equal(y, run(plan, arrays))


def of_8_bits(algorithm, problem, machine) -> None:
    rng, kinds, q = seed(problem), types(problem.dtype), plain_integers(problem)
    operands = (kinds.x, problem.x_shape), (kinds.weight, problem.weight_shape)
    x, w = (rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, True) for dtype, shape in operands)
    plan, out = algorithm.build(problem, machine), np.full(problem.y_shape, 77, kinds.y)
    plan.run(x, plan.pack(w, None, q), None, out, 2)
    np.testing.assert_array_equal(out, reference.integers(problem, x, w, None, q))


def form(problem, machine) -> None:
    check_normal(planner.plan(problem, Budget(), machine))
    check_normal(planner.plan(problem, Budget(accuracy="strict"), machine))


FLOATS = with_dtype([with_epilogue(p, a) for p in both_layouts(FEW) for a in (None, Activation("silu"))], "f32", "f64")
INTEGERS = [p for p in with_dtype(both_layouts(FEW), *INTEGER_DTYPES) if p.dtype.endswith("s32")]
GEMM = next(a for a in ALGORITHMS if a.name == "int8_gemm")

todo = [(floating, case) for case in cases(FLOATS) if case[0].name not in ("direct", "reference")]  # direct is compiled on the CPU itself
todo += [(of_8_bits, (GEMM, problem, machine)) for problem in INTEGERS for machine in INTEGER_CPUS]
todo += [(form, (problem, INTEGER_CPUS[0])) for problem in both_layouts(FORMS)]
for check, case in todo:
    try:
        check(*case)
    except AssertionError as e:
        sys.exit(f"{check.__name__}: {', '.join(map(str, case))}: {e}")
print(f"{len(todo)} cases on {', '.join(cpu.available_isas())}: right")
