"""Random problems: the public function against the reference, algorithms against each other, laws of convolution, specs."""

from dataclasses import replace

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

import cpuconv
from cpuconv import Problem, reference
from cpuconv.algorithms import ALGORITHMS
from cpuconv.problem import ACTIVATIONS, Activation, Epilogue
from oracle import CPUS, Arrays, conv2d, integers, linear, normal, normal_results, run, tolerance

numbers = st.floats(-4, 4, width=32)


@st.composite
def activations(draw) -> Activation | None:
    name = draw(st.sampled_from([None, *ACTIVATIONS]))
    if name is None:
        return None
    params = tuple(draw(numbers) for _ in range(ACTIVATIONS[name]))
    return Activation(name, (0.25,) if name == "leaky_relu" else tuple(sorted(params)))


PLAIN = st.just(Epilogue())
EPILOGUES = st.builds(Epilogue, st.booleans(), st.booleans(), activations())


@st.composite
def problems(draw, epilogues=EPILOGUES) -> Problem:
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 5]))
    kh, kw = draw(st.sampled_from([(3, 3), (1, 1), (5, 5), (1, 3), (3, 1), (2, 4), (7, 7)]))
    small = st.integers(1, 3)
    stride, dilation = draw(st.sampled_from([(1, 1), (2, 2), (1, 2), (4, 3)])), (draw(small), draw(small))
    padding = draw(st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (2, 2, 2, 2), (0, 1, 2, 3), (4, 0, 0, 4)]))
    least = [max(1, dilation[i] * ((kh, kw)[i] - 1) + 1 - sum(padding[2 * i : 2 * i + 2])) for i in range(2)]
    return Problem(
        n=draw(st.integers(0, 3)), ic=groups * draw(st.integers(1, 20)), oc=groups * draw(st.integers(1, 20)), groups=groups,
        ih=least[0] + draw(st.integers(0, 16)), iw=least[1] + draw(st.integers(0, 20)), kh=kh, kw=kw,
        stride=stride, padding=padding, dilation=dilation, dtype=draw(st.sampled_from(["f32", "f64"])),
        layout=draw(st.sampled_from(["nchw", "nhwc"])), epilogue=draw(epilogues),
    )  # fmt: skip


def options(problem: Problem) -> dict:
    activation = problem.epilogue.activation
    return {"activation": (activation.name, *activation.params) if activation else None}


@given(problems())
def test_conv2d_is_the_reference(problem):
    y = conv2d(problem, normal(problem), **options(problem))
    conv, expected = normal_results(problem)
    allowed = 1e-5 if problem.dtype == "f32" else 1e-13
    assert y.shape == problem.y_shape
    assert np.abs(y - expected).max(initial=0) <= tolerance(problem, allowed, conv)


@given(problems())
def test_algorithms_agree(problem):
    conv, expected = normal_results(problem)
    for cpu in CPUS:
        for algorithm in ALGORITHMS:
            if not algorithm.supports(problem, cpu):
                plan = algorithm.build(problem, cpu)
                error = np.abs(run(plan, normal(problem)) - expected).max(initial=0)
                assert error <= tolerance(problem, plan.cost.error, conv), (algorithm.name, cpu.isa)


@given(problems(PLAIN))
def test_strict_is_exact_on_integers(problem):
    arrays = integers(problem)
    np.testing.assert_array_equal(conv2d(problem, arrays, accuracy="strict"), linear(problem, arrays))


@given(problems(PLAIN))
def test_layouts_are_transposes(problem):
    problem = replace(problem, layout="nchw")
    x, weight, *_ = arrays = integers(problem)
    turned = Arrays(np.ascontiguousarray(x.transpose(0, 2, 3, 1)), np.ascontiguousarray(weight.transpose(2, 3, 1, 0)), None, None)
    y = conv2d(replace(problem, layout="nhwc"), turned, accuracy="strict")
    np.testing.assert_array_equal(y.transpose(0, 3, 1, 2), conv2d(problem, arrays, accuracy="strict"))


@given(problems(PLAIN))
def test_shifting_the_image_shifts_the_result(problem):
    """Away from the border: one stride more of zeros above is one row of outputs more."""
    problem = replace(problem, layout="nchw", padding=(0, 0, 0, 0))
    assume(problem.oh > 0 and problem.ow > 0)
    arrays = integers(problem)
    lower = replace(problem, ih=problem.ih + problem.stride[0])
    x = np.concatenate([np.zeros((problem.n, problem.ic, problem.stride[0], problem.iw), arrays.x.dtype), arrays.x], axis=2)
    y = conv2d(lower, arrays._replace(x=x), accuracy="strict")
    np.testing.assert_array_equal(y[:, :, 1:], conv2d(problem, arrays, accuracy="strict"))


@given(problems(PLAIN))
def test_it_is_linear(problem):
    arrays = integers(problem)
    other = np.flip(arrays.x, (1, 2)).copy()
    total = conv2d(problem, arrays._replace(x=arrays.x + other), accuracy="strict")
    np.testing.assert_array_equal(total, sum(conv2d(problem, arrays._replace(x=x), accuracy="strict") for x in (arrays.x, other)))


@given(problems(PLAIN), st.sampled_from([2.0**k for k in (-140, -60, 0, 60)]))
def test_any_range_keeps_the_bound(problem, scale):
    """Tiny, denormal and large data too, under the rigorous bound of plain summation."""
    arrays = normal(problem)
    x = arrays.x * arrays.x.dtype.type(scale)
    arrays = arrays._replace(x=x)
    expected, sizes = (linear(problem, Arrays(a, w, None, None)) for a, w in ((x, arrays.weight), (abs(x), abs(arrays.weight))))
    info = np.finfo(x.dtype)
    assert (abs(conv2d(problem, arrays, accuracy="strict") - expected) <= problem.k * (info.eps * sizes + info.smallest_subnormal)).all()


@given(problems(PLAIN), st.sampled_from([np.nan, np.inf, -np.inf]), st.randoms(use_true_random=False))
def test_strict_keeps_poison_in_its_receptive_field(problem, poison, random):
    assume(problem.n)
    x = integers(problem).x.copy()
    x[tuple(random.randrange(size) for size in x.shape)] = poison
    weight = np.where(integers(problem).weight, integers(problem).weight, 1).astype(x.dtype)  # no zero, whose product with infinity is NaN
    arrays = Arrays(x, weight, None, None)
    np.testing.assert_array_equal(conv2d(problem, arrays, accuracy="strict"), linear(problem, arrays))


@given(problems(), st.integers(2, 5), st.booleans())
def test_out_threads_and_batch_change_no_bit(problem, threads, strict):
    arrays, given = normal(problem), options(problem) | {"accuracy": "strict" if strict else None}
    with cpuconv.threads(1):
        y = conv2d(problem, arrays, **given)
    out = np.full_like(y, np.nan)
    with cpuconv.threads(threads):
        assert conv2d(problem, arrays, out=out, **given) is out
    np.testing.assert_array_equal(out, y)
    for i in range(problem.n):
        residual = None if arrays.residual is None else arrays.residual[i : i + 1]
        image = conv2d(replace(problem, n=1), arrays._replace(x=arrays.x[i : i + 1], residual=residual), **given)
        np.testing.assert_array_equal(image, y[i : i + 1])


@given(problems(PLAIN))
def test_the_input_gradient_is_the_adjoint(problem):
    """<conv(x), g> = <x, gradient(g)>, exactly for integers."""
    x, weight, *_ = arrays = integers(problem)
    (top, bottom, left, right), layout = problem.padding, problem.layout.upper()
    g = np.resize(np.arange(-3.0, 4.0, dtype=x.dtype), problem.y_shape)
    back = cpuconv.grad.conv2d_input(
        x.shape, weight, g, problem.stride, ((top, bottom), (left, right)), problem.dilation, problem.groups, layout=layout, accuracy="strict"
    )
    y = conv2d(problem, arrays, accuracy="strict")
    assert np.vdot(y.astype(np.float64), g) == np.vdot(x.astype(np.float64), back)


@given(problems())
def test_specs_are_read_back(problem):
    assert Problem.parse(str(problem)) == problem


@given(problems(PLAIN))
def test_output_shape_and_flops(problem):
    (top, bottom, left, right), layout = problem.padding, problem.layout.upper()
    arguments = (problem.x_shape, problem.weight_shape, problem.stride, ((top, bottom), (left, right)), problem.dilation, problem.groups)
    shape = cpuconv.output_shape(*arguments, layout=layout)
    assert shape == reference.forward(problem, *integers(problem)[:2]).shape
    _, *chw = problem.x_shape
    assert cpuconv.output_shape(tuple(chw), *arguments[1:], layout=layout) == shape[1:]
    assert cpuconv.flops(*arguments, layout=layout) == 2 * int(np.prod(shape)) * problem.kh * problem.kw * problem.ic // problem.groups


@given(st.text(max_size=80))
def test_parse_raises_only_value_error(text):
    for spec in (text, f"n1_ic64_ih56_iw56_oc64_kh3_kw3_s1_p1_d1_g1_f32_nchw{text}"):
        try:
            Problem.parse(spec)
        except ValueError as e:
            assert "spec" in str(e) or "activation" in str(e)
