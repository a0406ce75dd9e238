"""The planner: the fastest by the algorithms' own figures that fits the budget; one choice for any batch and any threads."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import cpuconv
from cpuconv import Problem, UnsupportedError, cpu, planner
from cpuconv.algorithms import ALGORITHMS
from cpuconv.planner import Budget, PlanCache, candidates
from shapes import LAYER_PROBLEMS, PROBLEMS, both_layouts, with_dtype

HERE = cpu.detect()
LAYER = Problem.parse("n1_ic64_ih56_iw56_oc64_kh3_kw3_s1_p1_d1_g1_f32_nhwc")
EVERY = with_dtype(both_layouts([*PROBLEMS, *LAYER_PROBLEMS]), "f32", "f64")


def chosen(problem, budget=Budget()) -> str:  # noqa: B008 (frozen)
    best = candidates(problem, budget, HERE)[0]
    assert best.rejection is None
    return best.algorithm.name


@pytest.fixture(autouse=True)
def empty_cache():
    cpuconv.clear_cache()
    yield
    cpuconv.clear_cache()


@pytest.mark.parametrize("problem", EVERY, ids=str)
def test_the_fastest_that_fits_is_chosen(problem):
    rows = candidates(problem, Budget(), HERE)
    assert {row.algorithm.name for row in rows} == set(cpuconv.algorithms())
    fits = [row for row in rows if row.rejection is None]
    assert rows[: len(fits)] == fits
    assert [row.cost.seconds for row in fits] == sorted(row.cost.seconds for row in fits)
    assert chosen(problem) != "reference"
    for row in rows[len(fits) :]:
        assert row.rejection.reason
    allowed = planner.DEFAULT_ACCURACY[problem.dtype]
    assert all(row.algorithm.plain or row.cost.error <= allowed for row in fits)


@pytest.mark.parametrize("problem", both_layouts(LAYER_PROBLEMS), ids=str)
def test_the_choice_depends_on_neither_batch_nor_threads(problem):
    names = set()
    for n, threads in itertools.product((0, 1, 2, 64), (1, 8)):
        with cpuconv.threads(threads):
            names.add(chosen(replace(problem, n=n)))
    assert len(names) == 1


@pytest.mark.parametrize("problem", both_layouts(LAYER_PROBLEMS), ids=str)
def test_workspace_is_small(problem):
    """At most 4 MB a thread beside the packed weight, whatever is chosen."""
    best = candidates(problem, Budget(), HERE)[0]
    assert best.cost.workspace <= 4 << 20
    # F(6,3), the largest, keeps 64 numbers for each 9; panels are padded by less than one vector
    assert best.cost.packed <= 8 * problem.itemsize * (problem.oc + 64) * problem.k


@pytest.mark.parametrize("problem", both_layouts(LAYER_PROBLEMS), ids=str)
def test_strict_takes_plain_summation(problem):
    plain = {a.name for a in ALGORITHMS if a.plain}
    assert chosen(problem, Budget(accuracy="strict")) in plain


def test_winograd_serves_large_3x3_layers():
    assert chosen(LAYER).startswith("winograd_")
    assert chosen(replace(LAYER, layout="nchw")).startswith("winograd_")


def test_a_tighter_accuracy_is_kept():
    for accuracy in (1e-4, 1e-5, 3e-6, 1e-6):
        fits = [row for row in candidates(LAYER, Budget(accuracy=accuracy), HERE) if row.rejection is None]
        assert all(row.cost.error <= accuracy for row in fits)
    with pytest.raises(UnsupportedError, match=r"over accuracy 1\.0e-09"):
        planner.plan(LAYER, Budget(accuracy=1e-9))


def test_workspace_limit_degrades_then_refuses():
    x, w = np.ones((1, 64, 30, 30), np.float32), np.ones((64, 64, 3, 3), np.float32)
    needs = []
    limit = None
    while True:
        try:
            planner.plan(LAYER, Budget(workspace_limit=limit))
        except UnsupportedError as e:
            assert "over workspace_limit" in str(e)
            break
        best = candidates(LAYER, Budget(workspace_limit=limit), HERE)[0]
        needs.append(best.cost.workspace + best.cost.packed)
        if needs[-1] == 0:
            break
        limit = needs[-1] - 1
    assert len(needs) > 1 and needs == sorted(needs, reverse=True)
    assert cpuconv.conv2d(x, w, workspace_limit=1 << 20).shape == (1, 64, 28, 28)
    with pytest.raises(UnsupportedError, match="over workspace_limit 0"):
        cpuconv.conv2d(x, w, algorithm="implicit_gemm", workspace_limit=0)


def test_winograd_names_the_best_tile():
    rows = candidates(LAYER, Budget("winograd"), HERE)
    assert {row.algorithm.name for row in rows if not row.rejection} <= {"winograd_f2x3", "winograd_f4x3", "winograd_f5x3", "winograd_f6x3"}
    assert all(row.algorithm.name.startswith("winograd_f") for row in rows)
    assert chosen(LAYER, Budget("winograd")) == rows[0].algorithm.name


def test_named_is_taken_at_its_word():
    """A tile that "auto" would find too inexact is what the caller gets who names it, unless an accuracy is asked for."""
    assert chosen(LAYER, Budget("winograd_f6x3")) == "winograd_f6x3"
    with pytest.raises(UnsupportedError, match="winograd_f6x3: error bound"):
        planner.plan(LAYER, Budget("winograd_f6x3", accuracy=1e-7))


def test_plans_are_kept():
    first = planner.plan(LAYER, Budget())
    assert planner.plan(Problem.parse(str(LAYER)), Budget()) is first
    info = cpuconv.cache_info()
    assert (info.plans, info.hits, info.misses) == (1, 1, 1)
    assert planner.plan(LAYER, Budget(accuracy="strict")) is not first
    assert cpuconv.cache_info().plans == 2
    cpuconv.clear_cache()
    assert cpuconv.cache_info() == (0, 0, info.limit, 0, 0)


def test_the_cache_is_bounded_and_drops_the_oldest():
    cache = PlanCache(limit=10 * planner.PLAN_BYTES)
    keys = [(replace(LAYER, n=n), Budget(), HERE) for n in range(1, 31)]
    plan = planner.plan(LAYER, Budget())
    for key in keys:
        cache.put(key, plan)
        assert cache.get(keys[0]) is plan  # used again and again, so never the oldest
        assert cache.info().bytes <= cache.info().limit
    assert cache.info().plans == 10
    assert cache.get(keys[1]) is None
    assert cache.get(keys[-1]) is plan


@pytest.mark.parametrize("value", ["1", "0", ""])
def test_verbose(monkeypatch, capsys, value):
    monkeypatch.setenv("CPUCONV_VERBOSE", value)
    name = chosen(LAYER)
    planner.plan(LAYER, Budget())
    planner.plan(LAYER, Budget())
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == (1 if value == "1" else 0)
    if value == "1":
        assert str(LAYER) in err and name in err


def test_explain_marks_what_is_run():
    for algorithm, accuracy in (("auto", None), ("auto", "strict"), ("winograd", None), ("implicit_gemm", None)):
        text = cpuconv.explain(LAYER, algorithm=algorithm, accuracy=accuracy)
        (marked,) = (line.split()[1] for line in text.splitlines() if line.startswith("*"))
        assert marked == chosen(LAYER, Budget(algorithm, accuracy))
    assert cpuconv.explain(str(LAYER)) == cpuconv.explain(LAYER)
