"""What choosing an algorithm costs: making a plan, and finding one that was made."""

import pytest

from cpuconv import Problem, clear_cache, cpu, planner
from cpuconv.bench.layers import class_of
from cpuconv.planner import Budget
from shapes import LAYER_PROBLEMS

ONE_OF_EACH = list({class_of(p): p for p in LAYER_PROBLEMS}.values())


@pytest.mark.parametrize("problem", ONE_OF_EACH, ids=str)
def test_estimate(benchmark, problem: Problem):
    benchmark(planner.candidates, problem, Budget(), cpu.detect())


@pytest.mark.parametrize("problem", ONE_OF_EACH, ids=str)
def test_plan_made(benchmark, problem: Problem):
    benchmark.pedantic(planner.plan, (problem, Budget()), setup=clear_cache, rounds=20)


def test_plan_found(benchmark):
    planner.plan(ONE_OF_EACH[0], Budget())
    benchmark(planner.plan, ONE_OF_EACH[0], Budget())


def test_spec_parsed(benchmark):
    benchmark(Problem.parse, str(ONE_OF_EACH[0]))
