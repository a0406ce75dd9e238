"""`calibrate`: what it measures is plausible, kept for each CPU, moves estimates and choices, and nothing but the user calls it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cpuconv
from cpuconv import Problem, Rates, calibration, config, cpu, planner, wisdom
from cpuconv._native.isa import ISAS
from cpuconv.planner import Budget
from processes import fresh

pytestmark = pytest.mark.usefixtures("wisdom_directory")

HERE = cpu.detect()
SPEC = "n1_ic64_ih56_iw56_oc64_kh3_kw3_s1_p1_d1_g1_f32_nhwc"
PROBLEM = Problem.parse(SPEC)
SLOW = Rates(0.35, 1.0, 9.0, 8.0, 3.0)


def forget_memory() -> None:
    """As a new process would start."""
    wisdom._stores.clear()
    wisdom._reported.clear()
    cpuconv.clear_cache()


def predicted(spec: str = SPEC) -> dict[str, float]:
    rows = planner.candidates(Problem.parse(spec), Budget(), HERE)
    return {row.algorithm.name: row.cost.seconds for row in rows if row.cost}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(calibration, "SECONDS", 0.0)
    monkeypatch.setattr(calibration, "LARGEST", 1 << 20)


def test_rates_are_measured_and_kept(quick):
    rates = cpuconv.calibrate()
    assert all(0 < rate < 1e4 for rate in rates)
    assert wisdom.calibrated(HERE) == replace(HERE, measured=rates)
    forget_memory()
    assert wisdom.calibrated(HERE).rates == rates
    code = "from cpuconv import cpu, wisdom; print(*wisdom.calibrated(cpu.detect()).rates)"
    assert fresh(code).split() == [str(rate) for rate in rates]


def test_without_it_rates_are_typical():
    assert wisdom.calibrated(HERE) is HERE
    assert HERE.rates == cpu.typical_rates(HERE.isa_row, HERE.model)
    assert "typical" in config.configuration()["rates of a core"]


def test_estimates_follow_the_rates():
    before = predicted()
    wisdom.record_rates(HERE, SLOW)
    after = predicted()
    assert all(before[name] < after[name] for name in before if name != "reference")
    assert all(5 * before[name] < after[name] for name in ("implicit_gemm", "winograd_f4x3"))
    assert f"{after['implicit_gemm'] * 1e6:.1f}" in cpuconv.explain(SPEC)
    assert "0.35 GHz" in config.configuration()["rates of a core"] and "measured" in config.configuration()["rates of a core"]
    assert planner.plan(PROBLEM, Budget("implicit_gemm")).cost.seconds == after["implicit_gemm"]


def test_typical_rates_follow_the_kind_of_cpu():
    wide = next(isa for isa in ISAS if isa.name == "x86-64-v4")
    kinds = ("AMD EPYC (family 25, model 17)", "AMD EPYC (family 26, model 2)", "Intel(R) Xeon(R) Processor (family 6, model 143)")
    zen4, zen5, xeon = (cpu.typical_rates(wide, kind) for kind in kinds)
    assert (zen4.fma_per_cycle, zen5.fma_per_cycle) == (1.0, 2.0)
    assert 1.0 < xeon.fma_per_cycle < 2.0
    slow = [cpu.Cpu(kind, wide.name, 2, 32 << 10, 1 << 20, 32 << 20).slow_l3 for kind in kinds]
    assert slow == [False, False, True]


def test_the_cpu_tells_its_kind():
    """Virtual machines on different CPUs of one maker may have the same name; what is measured on one says nothing about another."""
    facts = dict(map(str.strip, line.split(":", 1)) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    assert all(facts[key] in HERE.model for key in ("model name", "cpu family", "model") if key in facts)


def test_a_wide_core_of_amd_counts_as_a_quick_one():
    wide = cpu.Rates(ghz=4.0, fma_per_cycle=2.0, l2=180.0, l3=110.0, memory=40.0)
    amd, intel = (cpu.Cpu(model, "x86-64-v4", 2, 48 << 10, 1 << 20, 32 << 20, wide) for model in ("AMD EPYC", "Intel(R) Xeon(R)"))
    assert (amd.ghz, amd.fma_per_cycle, amd.quickness) == (8.0, 1.0, 1.0)
    assert (intel.ghz, intel.fma_per_cycle, intel.quickness) == (4.0, 2.0, 2.0)
    assert amd.peak("f32") == intel.peak("f32") == 256e9
    assert replace(amd, isa="x86-64-v3").ghz == 4.0  # AVX2's vectors are half as wide as those pipes


def test_choices_follow_the_rates():
    """Where multiplying is cheap beside moving data, Winograd has nothing to save."""
    assert planner.choose(PROBLEM, Budget(), HERE).algorithm.name.startswith("winograd")
    x, w = np.ones((1, 56, 56, 64), np.float32), np.ones((3, 3, 64, 64), np.float32)
    conv = cpuconv.Conv2d(w, padding=1, layout="NHWC")
    before = conv(x)
    wisdom.record_rates(HERE, HERE.rates._replace(fma_per_cycle=100.0, l3=0.1, memory=0.1))
    chosen = planner.choose(PROBLEM, Budget(), HERE).algorithm
    assert chosen.plain
    np.testing.assert_allclose(conv(x), before, rtol=1e-4)
    assert f"* {chosen.name}" in " ".join(conv.explain(x.shape).split())


def test_measured_times_count_more_than_any_rates():
    names = planner.named("auto")
    version = next(a.version for a in names if a.name == "im2col")
    wisdom.record(PROBLEM, HERE, {"im2col": wisdom.Measured(version, 1e-9)})
    wisdom.record_rates(HERE, SLOW)
    assert planner.choose(PROBLEM, Budget(), HERE).algorithm.name == "im2col"
    assert len(wisdom.entries()) == 1


def test_forget():
    wisdom.record_rates(HERE, SLOW)
    assert wisdom.forget(SPEC) == 0
    assert wisdom.calibrated(HERE).rates == SLOW
    assert wisdom.forget() == 0
    assert wisdom.calibrated(HERE) is HERE
    forget_memory()
    assert wisdom.calibrated(HERE) is HERE


def test_each_cpu_and_isa_has_its_own():
    wisdom.record_rates(HERE, SLOW)
    for other in (replace(HERE, model="Another CPU"), *(cpu.with_isa(HERE, isa) for isa in cpu.available_isas() if isa != HERE.isa)):
        assert wisdom.calibrated(other) is other


def test_rates_move_with_the_wisdom(tmp_path):
    wisdom.record_rates(HERE, SLOW)
    wisdom.save(tmp_path / "w.json")
    wisdom.forget()
    assert wisdom.load(tmp_path / "w.json") == 0
    assert wisdom.calibrated(HERE).rates == SLOW


@pytest.mark.parametrize("rates", [3, {}, {**SLOW._asdict(), "l2": 0}, {**SLOW._asdict(), "ghz": float("nan")}, {**SLOW._asdict(), "l3": "fast"}])
def test_a_damaged_file_is_ignored(rates):
    wisdom.record_rates(HERE, SLOW)
    forget_memory()
    path = wisdom.path()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rates": rates}))
    with pytest.warns(RuntimeWarning, match="damaged"):
        assert wisdom.calibrated(HERE) is HERE
    with pytest.warns(RuntimeWarning, match=r"it is now .*\.bad"):
        wisdom.record_rates(HERE, SLOW)
    forget_memory()
    assert wisdom.calibrated(HERE).rates == SLOW


def test_nothing_else_calibrates(monkeypatch):
    monkeypatch.setattr(calibration, "_measure", lambda cpu: pytest.fail("calibrated"))
    x, w = np.ones((1, 4, 6, 6), np.float32), np.ones((4, 4, 3, 3), np.float32)
    cpuconv.conv2d(x, w)
    cpuconv.Conv2d(w)(x)
    cpuconv.tune(cpuconv.Conv2d(w), x.shape, time_limit=0.05)
    assert wisdom.calibrated(HERE) is HERE
