"""What every algorithm promises, held against the float64 reference on every problem of `shapes`, on every ISA of this CPU."""

from dataclasses import replace

import numpy as np
import pytest

from cpuconv import reference
from cpuconv.algorithms import native
from cpuconv.cpu import Cpu
from cpuconv.plan import NUMPY_DTYPES, aligned_empty
from cpuconv.problem import Activation, Problem
from oracle import (
    CPUS,
    FLOATING,
    Arrays,
    case_id,
    cases,
    check_normal,
    integers,
    linear,
    make,
    normal,
    normal_results,
    run,
    seed,
    tolerance,
    view,
    with_epilogue,
)
from shapes import FEW, FORMS, PROBLEMS, WHOLE_LINES, both_layouts, other_images, with_dtype

ALL = both_layouts(PROBLEMS)
HERE = CPUS[-1:]
OTHER = replace(CPUS[-1], model="Intel(R) Xeon(R) Processor" if CPUS[-1].halves else "another")
RELU = Activation("clip", (0.0, float("inf")))
CACHED = 8 << 20  # of common.h
ACTIVATIONS = [
    RELU, Activation("clip", (-1.5, 2.0)), Activation("leaky_relu", (0.1,)), Activation("leaky_relu", (-2.0,)),
    *map(Activation, ("sigmoid", "tanh", "silu", "hardsigmoid", "hardswish", "gelu")),
]  # fmt: skip


def each(problems, cpus=CPUS, plain=None):
    return pytest.mark.parametrize(("algorithm", "problem", "cpu"), cases(problems, cpus, plain), ids=case_id)


@pytest.mark.parametrize("algorithm", FLOATING, ids=case_id)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_is_exercised(algorithm, layout):
    """An algorithm that rejected every problem would pass all the tests below."""
    assert [p for p in PROBLEMS + FORMS if not algorithm.supports(replace(p, layout=layout), CPUS[-1])]


@pytest.mark.parametrize("problem", with_dtype(ALL, "f32", "f64"), ids=str)
def test_some_algorithm_besides_the_reference_does_it(problem):
    assert {a.name for a, _, _ in cases([problem], HERE)} > {"reference"}


@each(with_dtype(ALL, "f32", "f64"))
def test_normal_data(algorithm, problem, cpu):
    check_normal(algorithm.build(problem, cpu))


@each(with_dtype([with_epilogue(p, RELU) for p in ALL], "f32"))
def test_epilogue(algorithm, problem, cpu):
    check_normal(algorithm.build(problem, cpu))


@each(with_dtype([with_epilogue(p, a) for p in both_layouts(FEW) for a in ACTIVATIONS], "f32", "f64"))
def test_activation(algorithm, problem, cpu):
    check_normal(algorithm.build(problem, cpu))


@each([with_epilogue(p, None, bias, not bias) for p in both_layouts(FEW) for bias in (True, False)], HERE)
def test_bias_or_residual_alone(algorithm, problem, cpu):
    check_normal(algorithm.build(problem, cpu))


@each(with_dtype([with_epilogue(p) for p in ALL], "f32", "f64"), plain=True)
def test_integers_are_exact(algorithm, problem, cpu):
    """Under plain summation; it finds any tap or channel that is lost, doubled or misplaced, however small its part."""
    arrays = integers(problem)
    np.testing.assert_array_equal(run(algorithm.build(problem, cpu), arrays), reference.forward(problem, *arrays))


@each([with_epilogue(p) for p in with_dtype(ALL, "f32", "f64") if 0 < p.ocg % 16 <= 8 < p.ocg], [OTHER])
def test_panels_of_another_model_of_this_cpu(algorithm, problem, cpu):
    """With AVX-512, those of some models may end in half a vector."""
    check_normal(algorithm.build(problem, cpu))


@each([with_epilogue(p) for p in both_layouts(FEW)])
def test_the_packed_weight_serves_every_image_that_it_says(algorithm, problem, cpu):
    """A layer keeps one packed weight for all plans of one weight_format, whatever the size of the image."""
    plan, arrays = algorithm.build(problem, cpu), integers(problem)
    packed = {plan.weight_format: plan.pack(arrays.weight, arrays.bias)}
    for other in other_images(problem):
        plan = algorithm.build(other, cpu)
        if plan.weight_format in packed:
            image = integers(other)
            image = Arrays(image.x, arrays.weight, arrays.bias, image.residual)
            out = np.full(other.y_shape, np.nan, np.float32)
            plan.run(image.x, packed[plan.weight_format], image.residual, out, 1)
            np.testing.assert_array_equal(out, run(plan, image))


@each([with_epilogue(p, RELU) for p in ALL])
def test_threads_do_not_change_the_bits(algorithm, problem, cpu):
    plan, arrays = algorithm.build(problem, cpu), normal(problem)
    alone = run(plan, arrays)
    for threads in (2, 3):
        np.testing.assert_array_equal(run(plan, arrays, threads), alone)


@each([replace(with_epilogue(p), n=3) for p in ALL])
def test_the_batch_does_not_change_the_bits(algorithm, problem, cpu):
    arrays = normal(problem)
    together = run(algorithm.build(problem, cpu), arrays)
    one = algorithm.build(problem.per_image, cpu)
    for i in range(problem.n):
        image = arrays._replace(x=arrays.x[i : i + 1], residual=arrays.residual[i : i + 1])
        np.testing.assert_array_equal(run(one, image), together[i : i + 1])


def beyond_caches(p: Problem) -> Problem:
    """A batch of which no cache of the kernels' reckoning holds inputs and results, though it holds an image's."""
    image = (p.ic * p.ih * p.iw + p.oc * p.oh * p.ow) * p.itemsize
    assert image < CACHED
    return replace(p, n=CACHED // image + 1)


def large_batches() -> list[Problem]:
    wide = Problem(n=1, ic=70, ih=33, iw=36, oc=70, kh=3, kw=3, padding=(1, 1, 1, 1), groups=70, layout="nhwc")
    kernels = [replace(wide, kh=k, kw=k, stride=(s, s), padding=(k // 2,) * 4) for k, s in ((3, 1), (3, 2), (5, 1), (5, 2), (7, 1))]
    products = [replace(wide, groups=1, oc=35), *(replace(wide, groups=1, oc=oc, kh=1, kw=1, padding=(0,) * 4) for oc in (9, 40))]
    return [beyond_caches(p) for p in with_dtype([*kernels, *products], "f32", "f64")]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("algorithm", "problem", "cpu"), [c for c in cases(large_batches()) if c[0].name in ("depthwise", "winograd_f4x3", "implicit_gemm")], ids=case_id
)
def test_a_batch_beyond_the_caches_has_the_bits_of_its_images(algorithm, problem, cpu, threads):
    """Such batches have kernels of their own, which prefetch."""
    arrays = make(problem, seed(problem).standard_normal)
    together = run(algorithm.build(problem, cpu), arrays, threads)
    one = algorithm.build(problem.per_image, cpu)
    for i in range(problem.n):
        np.testing.assert_array_equal(run(one, arrays._replace(x=arrays.x[i : i + 1])), together[i : i + 1])
    conv = reference.compute(problem.per_image, arrays.x[-1:], arrays.weight)
    assert np.abs(together[-1:] - conv).max() <= tolerance(problem.per_image, one.cost.error, conv)


PAST = [(None, True, False), (Activation("clip", (-0.5, 0.5)), True, False), (Activation("gelu"), True, False), (None, True, True)]
STREAMING = ("implicit_gemm", "depthwise", "few_channels", "winograd_f4x3")
PATHS = {
    "past the caches": {(native, "streams"): lambda p, cpu: True},
    "from a slow L3": {(native, "far"): lambda p, cpu: True, (Cpu, "slow_l3"): property(lambda cpu: True)},
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("algorithm", "problem", "cpu"),
    [c for c in cases(with_dtype([with_epilogue(p, *e) for p in both_layouts(WHOLE_LINES) for e in PAST], "f32", "f64")) if c[0].name in STREAMING],
    ids=case_id,
)
def test_results_on_other_ways_through_the_caches_have_the_same_bits(algorithm, problem, cpu, path, monkeypatch):
    plan, arrays = algorithm.build(problem, cpu), normal(problem)
    for (place, name), value in PATHS[path].items():
        monkeypatch.setattr(place, name, value)
    past = algorithm.build(problem, cpu)
    expected, packed = run(plan, arrays), past.pack(arrays.weight, arrays.bias)
    for start, threads in (0, 1), (0, 2), (4, 1):  # lines begin elsewhere there
        out = aligned_empty(expected.size + start, expected.dtype)
        out.fill(np.nan)
        past.run(arrays.x, packed, arrays.residual, out[start:].reshape(expected.shape), threads)
        np.testing.assert_array_equal(out[start:], expected.ravel())
        assert np.isnan(out).sum() == start


@each(with_dtype(both_layouts(FEW), "f32", "f64"))
@pytest.mark.parametrize(("a", "b"), [(50, 40), (-40, -30), (60, -60)])
def test_powers_of_two_scale_exactly(algorithm, problem, cpu, a, b):
    """Sums of products only: large and small ranges lose nothing while nothing overflows."""
    plan, arrays = algorithm.build(problem, cpu), normal(problem)
    dtype = NUMPY_DTYPES[problem.dtype].type
    scaled = Arrays(arrays.x * dtype(2.0**a), arrays.weight * dtype(2.0**b), None, None)
    np.testing.assert_array_equal(run(plan, scaled), run(plan, arrays).astype(np.float64) * 2.0 ** (a + b))


@each(both_layouts(FEW), plain=True)
def test_denormals_are_not_flushed(algorithm, problem, cpu):
    arrays = integers(problem)
    tiny = arrays._replace(x=arrays.x * np.float32(2.0**-149))
    np.testing.assert_array_equal(run(algorithm.build(problem, cpu), tiny), linear(problem, arrays) * 2.0**-149)


@each(both_layouts(FEW), plain=False)
def test_denormals_keep_their_absolute_error(algorithm, problem, cpu):
    arrays = normal(problem)
    arrays = arrays._replace(x=arrays.x * np.float32(2.0**-126))
    plan = algorithm.build(problem, cpu)
    conv = linear(problem, arrays)
    # besides the bound, each of k products may be rounded to a multiple of 2^-149, a few times over in the transforms
    worst = np.abs(run(plan, arrays) - conv).max()
    assert worst <= 2 * plan.cost.error * np.abs(conv).max() + 256 * problem.k * 2.0**-149


@each(with_dtype(both_layouts(FEW), "f32", "f64"))
def test_cancellation(algorithm, problem, cpu):
    """Data of wildly different sizes whose sums nearly vanish: held to k eps conv(|x|, |w|), the rigorous kind of bound.

    Plain summation keeps it element by element; a transform mixes the elements of its tile, so it is held to the largest.
    """
    rng = seed(problem)
    arrays = make(problem, lambda shape: rng.standard_normal(shape) * 2.0 ** rng.integers(-12, 13, shape))
    opposite = np.roll(arrays.weight, 1, -1)
    arrays = arrays._replace(weight=np.where(rng.random(arrays.weight.shape) < 0.5, arrays.weight, -opposite))
    plan = algorithm.build(problem, cpu)
    sizes = linear(problem, Arrays(abs(arrays.x), abs(arrays.weight), None, None))
    error = np.abs(run(plan, arrays) - linear(problem, arrays))
    eps = np.finfo(NUMPY_DTYPES[problem.dtype]).eps
    if algorithm.plain:
        assert (error <= problem.k * eps * sizes).all()
    else:
        assert error.max() <= (problem.k * eps + plan.cost.error) * sizes.max()


@each([with_epilogue(p, RELU) for p in ALL])
def test_views_are_read_and_written_in_place(algorithm, problem, cpu):
    plan, arrays = algorithm.build(problem, cpu), normal(problem)
    if not algorithm.strided:
        return
    expected, packed = run(plan, arrays), plan.pack(arrays.weight, arrays.bias)
    x, y = (view(shape, problem.layout, np.float32) for shape in (problem.x_shape, problem.y_shape))
    x[...], y[...] = arrays.x, arrays.residual
    plan.run(x, packed, y, y, 2)  # the residual is the output itself
    np.testing.assert_array_equal(y, expected)
    whole = y.base
    assert np.isfinite(whole).sum() == np.isfinite(y).sum()


@each([with_epilogue(p) for p in both_layouts(PROBLEMS) if p.n], HERE, plain=True)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_poison_stays_in_its_receptive_field(algorithm, problem, cpu, poison):
    arrays = normal(problem)
    x = arrays.x.copy()
    x[tuple(size // 2 for size in x.shape)] = poison
    with np.errstate(invalid="ignore"):
        expected = reference.forward(problem, x, *arrays[1:])
    y = run(algorithm.build(problem, cpu), arrays._replace(x=x))
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(y[~finite], expected[~finite])
    bound = tolerance(problem, algorithm.estimate(problem, cpu).error, normal_results(problem)[0])
    assert (np.abs(y[finite] - expected[finite]) <= bound).all()


@each([with_epilogue(p, a) for p in both_layouts(FEW[:4]) for a in ACTIVATIONS])
def test_activations_at_the_extremes(algorithm, problem, cpu):
    """What comes in through the residual alone: NaN stays NaN, and nothing large or tiny upsets the formulas."""
    values = np.float32([np.nan, 0, -0.0, 1e-30, -1e-30, 1e-45, 88, -88, 104, -104, 3, -3, 6, -6, 1e4, -1e4, 1e30, -1e30])
    normals = normal(problem)
    arrays = Arrays(0 * normals.x, normals.weight, 0 * normals.bias, np.resize(values, problem.y_shape))
    expected = reference.forward(problem, *arrays)
    y = run(algorithm.build(problem, cpu), arrays)
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6)


@each(with_dtype(both_layouts(PROBLEMS), "f32", "f64"))
def test_the_estimate_makes_sense(algorithm, problem, cpu):
    cost = algorithm.estimate(problem, cpu)
    assert 0 < cost.seconds < 10
    assert 0 <= cost.pack_seconds < 10
    assert cost.workspace >= 0 and cost.packed >= 0
    assert 0 < cost.error < (1e-4 if problem.dtype == "f32" else 1e-12)
    plan = algorithm.build(problem, cpu)
    assert plan.cost == cost and plan.problem == problem


def test_no_data_of_one_kind_is_empty():
    """The lists above hold each kind of case at least once."""
    names = {a.name for a, _, _ in cases(ALL)}
    assert names == {a.name for a in FLOATING}
    assert {cpu.isa for _, _, cpu in cases(ALL)} == {cpu.isa for cpu in CPUS}
