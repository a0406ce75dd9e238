"""`tune`: what it measures, what it leaves out, how it keeps to its time, and what an interruption leaves."""

import itertools
import time

import numpy as np
import pytest

import cpuconv
from cpuconv import Conv2d, Problem, UnsupportedError, cpu, planner, tuning, wisdom
from cpuconv.algorithms import ALGORITHMS
from cpuconv.planner import Budget

pytestmark = pytest.mark.usefixtures("wisdom_directory")

HERE = cpu.detect()
SPEC = "n1_ic16_ih20_iw20_oc16_kh3_kw3_s1_p1_d1_g1_f32_nhwc"
PROBLEM = Problem.parse(SPEC)
SMALL = [f"n1_ic4_ih6_iw6_oc{oc}_kh1_kw1_s1_p0_d1_g1_f32_nchw" for oc in (4, 8, 12)]
VERSIONS = {a.name: a.version for a in ALGORITHMS}


def chosen(problem: Problem, budget: Budget = Budget()) -> str:  # noqa: B008 (frozen)
    return planner.choose(problem, budget, HERE).algorithm.name


def forget_memory() -> None:
    """As a new process would start."""
    wisdom._stores.clear()
    cpuconv.clear_cache()



@pytest.fixture
def hasty(monkeypatch):
    """Algorithms are timed for a moment each; no limit of time is met."""
    monkeypatch.setattr(tuning, "ENOUGH", 0.02)


@pytest.mark.usefixtures("hasty")
def test_tune_measures_saves_and_returns_winners():
    tuned = cpuconv.tune([*SMALL, PROBLEM], time_limit=60)
    assert list(tuned) == [*SMALL, SPEC]
    for spec, (name, seconds) in tuned.items():
        times = wisdom.measured(Problem.parse(spec), HERE)
        assert len(times) > 1
        assert ("reference", VERSIONS["reference"]) not in times
        assert seconds == times[name, VERSIONS[name]]
        assert chosen(Problem.parse(spec)) == name
    forget_memory()
    assert cpuconv.tune(SPEC, time_limit=1e-9) == {}  # no time, and so nothing new
    assert chosen(PROBLEM) == tuned[SPEC].algorithm


@pytest.mark.parametrize("dtype", ["u8s8s32", "s8u8u8"])
def test_tune_takes_integers(dtype):
    spec = SPEC.replace("f32", dtype) + "_bias"
    assert cpuconv.tune(spec, time_limit=1)[spec].algorithm == "int8_gemm"


@pytest.mark.usefixtures("hasty")
def test_tune_takes_layers():
    conv = Conv2d(np.ones((16, 16, 3, 3), np.float32), np.ones(16), padding=1, accuracy="strict")
    ((spec, (name, _)),) = cpuconv.tune(conv, (2, 16, 20, 20), time_limit=60).items()
    assert spec == str(conv.problem((2, 16, 20, 20)))
    assert "_bias" in spec and next(a for a in ALGORITHMS if a.name == name).plain
    # Other budgets profit as well.
    assert any(name.startswith("winograd") for name, _ in wisdom.measured(Problem.parse(spec), HERE))


def test_tune_measures_what_only_the_reference_does():
    conv = Conv2d(np.ones((4, 4, 3, 3), np.float32), algorithm="reference")
    assert [t.algorithm for t in cpuconv.tune(conv, (4, 8, 8), time_limit=0.1).values()] == ["reference"]


def test_tune_leaves_out_the_hopeless(monkeypatch):
    monkeypatch.setattr(tuning, "HOPELESS", 1.0)
    names = [a.name for a in tuning.contestants(PROBLEM, Budget(), HERE)]
    assert chosen(PROBLEM) in names and chosen(PROBLEM, Budget(accuracy="strict")) in names
    assert len(names) < len(ALGORITHMS) - 2


def test_tune_keeps_to_its_time(monkeypatch):
    """Time runs by calls of the clock, so that nothing depends on the machine."""
    ticks = itertools.count(step=0.01)
    monkeypatch.setattr(tuning.time, "perf_counter", lambda: next(ticks))
    for limit in (1.0, 4.0):
        start = next(ticks)
        done = []
        cpuconv.tune(SMALL, time_limit=limit, progress=lambda *state: done.append(state))  # noqa: B023
        assert next(ticks) - start < limit + 0.5
    assert [d for d, _, _ in done] == sorted(d for d, _, _ in done)
    assert done[-1] == (3.0, 3, SMALL[-1])


@pytest.mark.usefixtures("hasty")
def test_what_is_slow_to_prepare_is_tried_once(monkeypatch):
    prepared = []
    call, clock = tuning._Arrays.call, time.perf_counter

    def slow(arrays, algorithm, cpu):
        prepared.append(algorithm.name)
        return call(arrays, algorithm, cpu)

    # of 3000 seconds, preparing im2col takes more than a problem's share
    monkeypatch.setattr(tuning.time, "perf_counter", lambda: clock() + 2000 * prepared.count("im2col"))
    monkeypatch.setattr(tuning._Arrays, "call", slow)
    monkeypatch.setattr(tuning, "contestants", lambda *args: [a for a in ALGORITHMS if a.name in ("implicit_gemm", "im2col")])
    assert len(cpuconv.tune(SMALL, time_limit=3000)) == 3
    assert prepared.count("implicit_gemm") == 3
    assert prepared.count("im2col") == 1


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_tune_keeps_what_it_has(error):
    def progress(done, total, spec):
        if spec == SMALL[1]:
            raise error

    with pytest.raises(error):
        cpuconv.tune(SMALL, time_limit=60, progress=progress)
    forget_memory()
    assert [bool(wisdom.measured(Problem.parse(s), HERE)) for s in SMALL] == [True, False, False]


def test_tune_names_mistakes():
    conv = Conv2d(np.ones((4, 4, 3, 3), np.float32))
    for error, match, args, kwargs in (
        (ValueError, "is not like", ["conv3x3"], {}),
        (ValueError, "is not like", [[SPEC, "conv3x3"]], {}),
        (TypeError, "what: must hold", [[3]], {}),
        (TypeError, "what: must be", [3], {}),
        (TypeError, "x_shape: must be given", [conv], {}),
        (TypeError, "x_shape: goes with a layer", [SPEC, (1, 4, 8, 8)], {}),
        (ValueError, "time_limit", [SPEC], {"time_limit": 0}),
        (ValueError, "time_limit", [SPEC], {"time_limit": float("nan")}),
        (ValueError, "Python function", [Conv2d(np.ones((4, 4, 1, 1), "f4"), activation=lambda v: v), (4, 8, 8)], {}),
        (UnsupportedError, "im2col", [Conv2d(np.ones((4, 4, 3, 3), "f4"), algorithm="im2col", workspace_limit=0), (4, 8, 8)], {}),
    ):
        with pytest.raises(error, match=match):
            cpuconv.tune(*args, **kwargs)
    assert not wisdom.path().exists()
