"""The contract of `test_contract` for what is made of 2-D pieces: every algorithm x problem x pass, both ways to join the phases."""

import sys
from dataclasses import replace

import numpy as np
import pytest

import cpuconv
from cpuconv import Problem, grad, planner, reference, tuning
from cpuconv.planner import Budget
from cpuconv.problem import Activation
from oracle import CPUS, case_id, check_normal, integers, normal, run, tolerance, with_epilogue
from shapes import FORMS, both_layouts, with_dtype

ALL = both_layouts([p for p in FORMS if p.pass_ != "weight"])
FEW = both_layouts([p for p in FORMS if p.pass_ != "weight"][::4])
NAMES = [name for name in cpuconv.algorithms() if name != "reference"]
RELU = Activation("clip", (0.0, float("inf")))


class Way:
    """`pieces` or `joined`, all pieces by the algorithm named."""

    def __init__(self, name: str, joined: bool) -> None:
        self.name, self.named, self.joined = f"{name}{'-joined' if joined else ''}", name, joined

    def of(self, problem, cpu):
        return planner.composites(problem, Budget(self.named), cpu)[self.joined]


def each(problems, names=NAMES, cpus=CPUS[-1:], ways=(False, True)):
    ways = [Way(name, joined) for name in names for joined in ways]
    found = [(way.of(p, cpu), p, cpu) for way in ways for p in problems for cpu in cpus if not way.of(p, cpu).supports(p, cpu)]
    ids = [f"{way.name}-{p}-{cpu.isa}" for way in ways for p in problems for cpu in cpus if not way.of(p, cpu).supports(p, cpu)]
    return pytest.mark.parametrize(("algorithm", "problem", "cpu"), found, ids=ids)


def test_each_algorithm_is_exercised():
    """But Winograd of stride 2, for pieces of the problems above have that stride only where they are 3x3 in 3-D."""
    does = {name for name in NAMES for p in ALL for joined in (False, True) if not Way(name, joined).of(p, CPUS[-1]).supports(p, CPUS[-1])}
    assert does >= {"implicit_gemm", "im2col", "direct", "depthwise", "winograd_f4x3", "winograd_f5x2"}


@pytest.mark.parametrize("problem", with_dtype(ALL, "f32", "f64"), ids=str)
def test_auto_does_it(problem):
    plan = planner.plan(problem, Budget())
    check_normal(plan)
    assert plan.problem == problem and 0 < plan.cost.seconds < 1 and plan.cost.error < (1e-5 if problem.dtype == "f32" else 1e-13)


@each(ALL)
def test_normal_data(algorithm, problem, cpu):
    check_normal(algorithm.build(problem, cpu))


@each([with_epilogue(p, RELU) for p in ALL], ["auto", "implicit_gemm", "depthwise"], CPUS)
def test_epilogue(algorithm, problem, cpu):
    check_normal(algorithm.build(problem, cpu))


@pytest.mark.parametrize("problem", [with_epilogue(p, Activation("gelu"), bias, not bias) for p in FEW for bias in (True, False)], ids=str)
def test_bias_or_residual_alone(problem):
    check_normal(planner.plan(problem, Budget()))


@each([with_epilogue(p) for p in ALL], ["implicit_gemm", "im2col"])
def test_integers_are_exact(algorithm, problem, cpu):
    arrays = integers(problem)
    np.testing.assert_array_equal(run(algorithm.build(problem, cpu), arrays), reference.compute(problem, *arrays))


@each([replace(with_epilogue(p, RELU), n=3) for p in ALL], ["auto"])
def test_threads_and_batch_do_not_change_the_bits(algorithm, problem, cpu, monkeypatch):
    for name in ("SECONDS_A_THREAD", "SECONDS_TO_WAKE"):  # or pieces as small as these would take one thread each
        monkeypatch.setattr(sys.modules["cpuconv.threads"], name, 1e-9)
    plan, arrays = algorithm.build(problem, cpu), normal(problem)
    together, one = run(plan, arrays), algorithm.build(problem.per_image, cpu)
    with cpuconv.threads(3):
        np.testing.assert_array_equal(run(plan, arrays, 3), together)
    for i in range(problem.n):
        image = arrays._replace(x=arrays.x[i : i + 1], residual=arrays.residual[i : i + 1])
        np.testing.assert_array_equal(run(one, image), together[i : i + 1])


@each([with_epilogue(p, RELU) for p in ALL], ["auto"])
def test_the_residual_may_be_the_result(algorithm, problem, cpu):
    plan, arrays = algorithm.build(problem, cpu), normal(problem)
    out = arrays.residual.copy()
    plan.run(arrays.x, plan.pack(arrays.weight, arrays.bias), out, out, 1)
    np.testing.assert_array_equal(out, run(plan, arrays))


@each([with_epilogue(p) for p in ALL if p.n], ["implicit_gemm"], ways=(False,))
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_poison_stays_in_its_receptive_field(algorithm, problem, cpu, poison):
    arrays = normal(problem)
    x = arrays.x.copy()
    x[tuple(size // 2 for size in x.shape)] = poison
    with np.errstate(invalid="ignore"):
        expected = reference.compute(problem, x, *arrays[1:])
    y = run(algorithm.build(problem, cpu), arrays._replace(x=x))
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(y[~finite], expected[~finite])
    bound = tolerance(problem, algorithm.estimate(problem, cpu).error, np.where(finite, expected, 0))
    assert (np.abs(y[finite] - expected[finite]) <= bound).all()


def clip_at_three(v):
    return min(v, 3.0)


def test_a_python_function_as_activation():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 5, 6, 7), np.float32), rng.standard_normal((4, 3, 3, 3, 3), np.float32)
    np.testing.assert_allclose(cpuconv.conv3d(x, w, activation=clip_at_three), np.minimum(cpuconv.conv3d(x, w), 3), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("padding", ["same", "same_lower", "asymmetric"])
def test_adjoint(rank, padding):
    """<conv(x), g> = <x, conv_input(g)> for each kind of padding, in float64."""
    rng = np.random.default_rng(rank)
    pads = [(2, 1), (0, 3), (1, 1)][:rank] if padding == "asymmetric" else padding
    shape, kernel = (2, 4, *(7, 9, 8)[:rank]), (6, 2, *(3, 4, 2)[:rank])
    x, w = rng.standard_normal(shape), rng.standard_normal(kernel)
    y = getattr(cpuconv, f"conv{rank}d")(x, w, None, 2, pads, 1, 2)
    g = rng.standard_normal(y.shape)
    gradient = getattr(grad, f"conv{rank}d_input")(shape, w, g, 2, pads, 1, 2)
    assert gradient.shape == shape
    np.testing.assert_allclose((y * g).sum(), (x * gradient).sum(), rtol=1e-12)
    one = getattr(grad, f"conv{rank}d_input")(shape[1:], w, g[1], 2, pads, 1, 2)
    np.testing.assert_array_equal(one, gradient[1])


def test_finite_differences():
    rng = np.random.default_rng(7)
    x, w = rng.standard_normal((1, 2, 5, 6)), rng.standard_normal((3, 2, 3, 2))
    options = {"stride": (2, 1), "padding": ((1, 0), (2, 1)), "dilation": (1, 2)}

    def loss(x):
        return (cpuconv.conv2d(x, w, **options) ** 3).sum()

    gradient = grad.conv2d_input(x.shape, w, 3 * cpuconv.conv2d(x, w, **options) ** 2, **options)
    h = 1e-5
    for at in np.ndindex(x.shape):
        step = np.zeros(x.shape)
        step[at] = h
        difference = (loss(x + step) - loss(x - step)) / (2 * h)
        assert abs(difference - gradient[at]) <= 1e-5 * max(1, abs(difference))


@pytest.mark.parametrize("name", ["auto", "winograd", "implicit_gemm"])
def test_a_transposed_convolution_of_stride_1_may_be_winograd(name):
    problem = Problem.parse("n1_ic16_ih20_iw20_oc16_kh3_kw3_s1_p1_d1_g1_f32_nchw_input")
    text = planner.explain(problem, algorithm=name)
    assert text.splitlines()[-1].startswith("   1 x n1_ic16_ih20_iw20_oc16_kh3_kw3_s1_p1_d1_g1_f32_nchw: ")
    if name == "winograd":
        assert "winograd_f" in text.splitlines()[-1]


def test_explain_lists_the_pieces():
    text = cpuconv.ConvTranspose2d(np.ones((8, 5, 3, 3), np.float32), stride=2).explain((3, 8, 10, 10))
    table, pieces = text.split("made of these, one after the other:\n")
    assert sum(row.startswith("*") for row in table.splitlines()) == 1
    for name in (*cpuconv.algorithms(), "pieces", "joined"):
        assert sum(name in row.split()[:2] for row in table.splitlines()) >= 1
    for line in pieces.splitlines():
        _, times, spec, *_ = line.strip().replace(": ", " ").split(" ")
        assert times == "x" and str(Problem.parse(spec)) == spec


def test_a_named_algorithm_that_cannot_do_the_pieces_says_why():
    with pytest.raises(cpuconv.UnsupportedError, match=r"pieces: .*depthwise: groups 1"):
        cpuconv.conv_transpose2d(np.ones((1, 4, 5, 5), np.float32), np.ones((4, 3, 3, 3), np.float32), algorithm="depthwise")


def test_the_budget_holds_for_all_pieces_together():
    problem = Problem.parse("n1_ic64_ih64_iw64_oc64_kh4_kw4_s2_p1_d1_g1_f32_nchw_input")
    for limit in (10_000_000, 2_000_000, 800_000):
        cost = planner.plan(problem, Budget(workspace_limit=limit)).cost
        assert cost.workspace + cost.packed <= limit
    with pytest.raises(cpuconv.UnsupportedError, match="workspace_limit 1,000"):
        planner.plan(problem, Budget(workspace_limit=1000))


def test_strict_joins_no_phases():
    """Taps of zero meet numbers that the result does not depend on."""
    problem = Problem.parse("n1_ic1_ih13_iw14_oc6_kh9_kw9_s3_p4_d1_g1_f32_nchw_input")
    assert "joined" in planner.explain(problem, accuracy="strict")
    assert planner.choose(problem, Budget(accuracy="strict"), CPUS[-1]).algorithm.name == "pieces"


def test_tuning_times_the_pieces_and_the_ways(wisdom_directory, monkeypatch):
    monkeypatch.setattr(tuning, "ENOUGH", 0.01)
    spec = "n2_ic3_ih8_iw8_oc4_kh2_kw2_s2_p0_d1_g1_f32_nchw_input"
    tuned = cpuconv.tune(spec, time_limit=60)
    assert tuned[spec].algorithm in ("pieces", "joined")
    known = cpuconv.wisdom.entries()
    assert len(known) > 1 and all(m.seconds > 0 for times in known.values() for m in times.values())
    assert case_id(planner.choose(Problem.parse(spec), Budget(), CPUS[-1]).algorithm) == tuned[spec].algorithm
