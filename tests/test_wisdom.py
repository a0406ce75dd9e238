"""Wisdom: what was measured is kept, shared and honoured; what is wrong in the file does no harm."""

import inspect
import itertools
import json
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cpuconv
from cpuconv import Conv2d, Problem, Tuned, cpu, planner, tuning, wisdom
from cpuconv.algorithms import ALGORITHMS
from cpuconv.planner import Budget
from cpuconv.wisdom import Measured
from processes import fresh

HERE = cpu.detect()
SPEC = "n1_ic16_ih20_iw20_oc16_kh3_kw3_s1_p1_d1_g1_f32_nhwc"
PROBLEM = Problem.parse(SPEC)
SMALL = [f"n1_ic4_ih6_iw6_oc{oc}_kh1_kw1_s1_p0_d1_g1_f32_nchw" for oc in (4, 8, 12)]
VERSIONS = {a.name: a.version for a in ALGORITHMS}


@pytest.fixture(autouse=True)
def directory(wisdom_directory):
    return wisdom_directory


def claim(problem: Problem, **seconds: float) -> None:
    """Pretend to have measured."""
    wisdom.record(problem, HERE, {name: Measured(VERSIONS[name], s) for name, s in seconds.items()})


def chosen(problem: Problem, budget: Budget = Budget()) -> str:  # noqa: B008 (frozen)
    return planner.choose(problem, budget, HERE).algorithm.name


def forget_memory() -> None:
    """As a new process would start."""
    wisdom._stores.clear()
    wisdom._reported.clear()
    cpuconv.clear_cache()


def file() -> Path:
    """The wisdom file, with an entry that makes `reference` win."""
    claim(PROBLEM, reference=1e-9)
    forget_memory()
    return wisdom.path()


# The planner


def test_the_fastest_measured_wins():
    assert chosen(PROBLEM) != "im2col"
    claim(PROBLEM, im2col=2e-6, implicit_gemm=3e-6)
    assert chosen(PROBLEM) == "im2col"
    rows = planner.candidates(PROBLEM, Budget(), HERE)
    assert [r.measured for r in rows[:3]] == [2e-6, 3e-6, None]
    claim(PROBLEM, implicit_gemm=1e-6)
    assert chosen(PROBLEM) == "implicit_gemm"


def test_budgets_are_kept():
    claim(PROBLEM, winograd_f6x3=1e-9, winograd_f4x3=2e-9, im2col=5e-9, implicit_gemm=4e-9)
    assert chosen(PROBLEM) == "winograd_f4x3"
    assert chosen(PROBLEM, Budget("winograd", accuracy=1e-3)) == "winograd_f6x3"
    assert chosen(PROBLEM, Budget(accuracy="strict")) == "implicit_gemm"
    packed = next(r.cost for r in planner.candidates(PROBLEM, Budget("implicit_gemm"), HERE))
    assert chosen(PROBLEM, Budget(accuracy="strict", workspace_limit=packed.workspace + packed.packed - 1)) != "implicit_gemm"


def test_packing_still_counts_where_the_weight_is_used_once():
    claim(PROBLEM, winograd_f4x3=1e-9, im2col=2e-9)
    assert chosen(PROBLEM) == "winograd_f4x3"
    assert chosen(PROBLEM, Budget(one_shot=True)) == "im2col"


def test_plans_and_layers_take_new_wisdom():
    x = np.ones((1, 20, 20, 16), np.float32)
    conv = Conv2d(np.ones((3, 3, 16, 16), np.float32), padding=1, layout="NHWC")
    assert str(conv.problem(x.shape)) == SPEC
    before, plan = conv(x), planner.plan(PROBLEM, Budget())
    for name in ("im2col", "reference"):
        claim(PROBLEM, **{name: 1e-8 if name == "im2col" else 1e-9})
        assert np.allclose(conv(x), before)
        (prepared,) = conv._prepared.values()
        assert prepared.plan is planner.plan(PROBLEM, Budget()) is not plan
        assert f"* {name}" in " ".join(conv.explain(x.shape).split())
    wisdom.forget()
    assert np.array_equal(conv(x), before)


@pytest.mark.parametrize("name", ["winograd_f4x3", "im2col", "implicit_gemm", "direct"])
def test_the_choice_and_the_bits_depend_on_neither_batch_nor_threads(name):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((5, 20, 20, 16), np.float32), rng.standard_normal((3, 3, 16, 16), np.float32)
    claim(replace(PROBLEM, n=5), **{name: 1e-9})
    results = []
    for n, threads in itertools.product((1, 5), (1, 4)):
        with cpuconv.threads(threads):
            assert chosen(replace(PROBLEM, n=n)) == name
            results.append(Conv2d(w, padding=1, layout="NHWC")(x[:n])[0])
    assert all(np.array_equal(r, results[0]) for r in results)


def test_explain_shows_predicted_and_measured():
    assert "measured us" in cpuconv.explain(SPEC)
    assert "123.4" not in cpuconv.explain(SPEC)
    claim(PROBLEM, im2col=123.4e-6)
    row = next(line.split() for line in cpuconv.explain(SPEC).splitlines() if " im2col " in line)
    assert row[:2] == ["*", "im2col"] and row[3] == "123.4"
    batch = next(line.split() for line in cpuconv.explain(SPEC.replace("n1_", "n10_")).splitlines() if " im2col " in line)
    assert batch[3] == "1234.0"


def test_a_python_function_is_never_looked_up():
    conv = Conv2d(np.ones((4, 4, 1, 1), np.float32), activation=lambda v: v + 1)
    problem = conv.problem((1, 4, 8, 8))
    claim(problem, reference=1e-9)
    assert wisdom.measured(problem, HERE) == {}


# The file


def test_a_new_process_knows():
    file()
    code = f"import cpuconv; print(cpuconv.explain({SPEC!r}).count('*  reference'))"
    assert fresh(code) == "1\n"


def test_save_and_load_elsewhere(tmp_path):
    claim(PROBLEM, im2col=1e-9)
    assert wisdom.save(tmp_path / "other" / "w.json") == tmp_path / "other" / "w.json"
    assert wisdom.forget() == 1
    assert chosen(PROBLEM) != "im2col"
    assert wisdom.load(tmp_path / "other" / "w.json") == 1
    assert chosen(PROBLEM) == "im2col"
    assert wisdom.save() == wisdom.path()
    forget_memory()
    assert chosen(PROBLEM) == "im2col"
    with pytest.raises(FileNotFoundError, match="path"):
        wisdom.load(tmp_path / "missing.json")


def test_load_sees_what_others_saved():
    assert chosen(PROBLEM) != "reference"
    fresh(f"""
from cpuconv import Problem, cpu, wisdom
wisdom.record(Problem.parse({SPEC!r}), cpu.detect(), {{"reference": wisdom.Measured(1, 1e-9)}})
""")
    assert wisdom.load() == 1
    assert chosen(PROBLEM) == "reference"


def test_forget():
    for i, spec in enumerate(SMALL):
        claim(Problem.parse(spec), im2col=1e-6 + i)
    assert wisdom.forget(SMALL[0]) == 1
    assert wisdom.forget(SMALL[0].replace("n1_", "n7_")) == 0
    assert len(wisdom.entries()) == 2
    forget_memory()
    assert len(wisdom.entries()) == 2
    with pytest.raises(ValueError, match="is not like"):
        wisdom.forget("conv3x3")
    assert wisdom.forget() == 2
    forget_memory()
    assert wisdom.entries() == {}


def test_times_of_another_version_do_not_count():
    wisdom.record(PROBLEM, HERE, {"reference": Measured(VERSIONS["reference"] - 1, 1e-9)})
    assert chosen(PROBLEM) != "reference"


def changed(**header: object):
    return lambda text: json.dumps(json.loads(text) | header)


BROKEN = {
    "empty": lambda text: "",
    "half": lambda text: text[: len(text) // 2],
    "no text": lambda text: b"\xff\xfe\x00{",
    "no object": lambda text: "[1, 2]",
    "nested": lambda text: "[" * 100_000,
    "no seconds": lambda text: text.replace("seconds", "hours"),
    "nan": lambda text: text.replace("1e-09", "NaN"),
    "negative": lambda text: text.replace("1e-09", "-1"),
    "wrong type": changed(problems={"a": 3}),
    "format": changed(format=99),
    "cpu": changed(cpu="Another CPU"),
    "isa": changed(isa="z80"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_damaged_or_foreign_file_is_reported_once_and_kept(how):
    path = file()
    broken = BROKEN[how](path.read_text())
    path.write_bytes(broken if isinstance(broken, bytes) else broken.encode())
    kept = path.read_bytes()
    word = {"format": "format 99", "cpu": "another CPU", "isa": "another CPU"}.get(how, "damaged")
    with pytest.warns(RuntimeWarning, match=f"{path.name} .*{word}.* ignored") as seen:
        assert chosen(PROBLEM) != "reference"
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chosen(replace(PROBLEM, n=2)) != "reference"
        assert wisdom.load() == 0
    assert path.read_bytes() == kept
    with pytest.warns(RuntimeWarning, match=r"it is now .*\.bad"):
        claim(PROBLEM, im2col=1e-9)
    assert path.with_name(path.name + ".bad").read_bytes() == kept
    forget_memory()
    assert chosen(PROBLEM) == "im2col"


@pytest.mark.parametrize("obstacle", ["file", "full"])
def test_where_nothing_can_be_saved_tuning_works_in_memory(obstacle, directory, monkeypatch):
    monkeypatch.setattr(tuning, "ENOUGH", 0.02)
    if obstacle == "file":
        directory.write_text("in the way")
    else:

        def full(fd):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(RuntimeWarning) as seen:
        tuned = cpuconv.tune(SMALL, time_limit=60)
    assert ["stays in memory" in str(w.message) for w in seen] == [True]
    assert len(tuned) == 3 and all(isinstance(t, Tuned) for t in tuned.values())
    assert chosen(Problem.parse(SMALL[0])) == tuned[SMALL[0]].algorithm
    with pytest.raises(OSError):
        wisdom.save()
    assert len(wisdom.entries()) == 3
    if obstacle == "full":
        assert [p.suffix for p in directory.iterdir()] == [".lock"]
        monkeypatch.undo()
        monkeypatch.setenv("CPUCONV_CACHE_DIR", str(directory))
        wisdom.save()
        forget_memory()
        assert len(wisdom.entries()) == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_directory_is_reported_once(directory):
    directory.mkdir()
    directory.chmod(0o500)
    with pytest.warns(RuntimeWarning, match="stays in memory") as seen:
        claim(PROBLEM, im2col=1e-9)
        claim(PROBLEM, im2col=2e-9)
    assert len(seen) == 1
    assert chosen(PROBLEM) == "im2col"


def add(process: int, count: int) -> None:
    for i in range(count):
        spec = f"n1_ic{process + 1}_ih8_iw8_oc{i + 1}_kh1_kw1_s1_p0_d1_g1_f32_nchw"
        wisdom.record(Problem.parse(spec), cpu.detect(), {"im2col": Measured(1, 1e-6)})


def test_processes_that_save_at_once_lose_nothing():
    code = "from cpuconv import Problem, cpu, wisdom\nfrom cpuconv.wisdom import Measured\n" + inspect.getsource(add)
    processes = [subprocess.Popen([sys.executable, "-c", f"{code}\nadd({i}, 10)"]) for i in range(4)]
    assert [p.wait(60) for p in processes] == [0] * 4
    assert len(wisdom.entries()) == 40
    assert {p.suffix for p in wisdom.path().parent.iterdir()} == {".json", ".lock"}


def test_threads_that_save_at_once_lose_nothing():
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4), [5] * 4))
    assert len(wisdom.entries()) == 20
    forget_memory()
    assert len(wisdom.entries()) == 20


def test_each_cpu_and_isa_has_its_own():
    claim(PROBLEM, reference=1e-9)
    for other in (replace(HERE, model="Another CPU"), replace(HERE, isa=HERE.isa + "b")):
        assert wisdom.measured(PROBLEM, other) == {}
    assert wisdom.measured(PROBLEM, HERE)


def test_the_cache_directory_is_the_users(monkeypatch, tmp_path):
    if sys.platform == "linux":
        code = "from cpuconv import wisdom; print(wisdom.path().parent)"
        monkeypatch.delenv("CPUCONV_CACHE_DIR")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert fresh(code) == f"{tmp_path / 'cpuconv'}\n"
        assert list(tmp_path.iterdir()) == []
