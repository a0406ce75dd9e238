"""The weight's gradient: every algorithm against the reference on every ISA; `cpuconv.grad` against PyTorch, finite differences and the adjoint."""

import functools
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

import cpuconv
from cpuconv import conv2d, grad, reference
from cpuconv.algorithms import ALGORITHMS
from cpuconv.plan import NUMPY_DTYPES
from oracle import CPUS, seed, view
from shapes import FEW, FORMS, LONG_SUMS, PROBLEMS, both_layouts, with_dtype

ALL = both_layouts([*(replace(p, pass_="weight") for p in PROBLEMS + LONG_SUMS), *(p for p in FORMS if p.pass_ == "weight")])
SOME = both_layouts([replace(p, pass_="weight") for p in FEW + LONG_SUMS])
EVERY = [a for a in ALGORITHMS if a.name != "reference" and any(not a.supports(p, CPUS[-1]) for p in ALL)]


def plans(problem):
    """Of every algorithm on every ISA."""
    found = [(a, a.build(problem, cpu)) for a in EVERY for cpu in CPUS if not a.supports(problem, cpu)]
    assert found
    return found


def operands(problem, integers=False):
    rng, dtype = seed(problem), NUMPY_DTYPES[problem.dtype]
    draw = functools.partial(rng.integers, -8, 9) if integers else lambda size: rng.standard_normal(size)
    x, g = (draw(size=shape).astype(dtype) for shape in problem.operand_shapes)
    return x, g, reference.weight_gradient(problem, x, g)


def run(plan, x, g, threads=1):
    out = np.full(plan.problem.weight_shape, np.nan, NUMPY_DTYPES[plan.problem.dtype])
    plan.run(x, plan.pack(g, None), None, out, threads)
    return out


@pytest.mark.parametrize("problem", with_dtype(ALL, "f32", "f64"), ids=str)
def test_normal_data(problem):
    x, g, expected = operands(problem)
    size = max(np.abs(expected).max(), math.sqrt(problem.k))
    for algorithm, plan in plans(problem):
        assert np.abs(run(plan, x, g) - expected).max() <= plan.cost.error * size, algorithm.name
        assert 0 < plan.cost.seconds < 10 and plan.cost.workspace >= 0 and plan.cost.error < (1e-4 if problem.dtype == "f32" else 1e-12)


@pytest.mark.parametrize("problem", with_dtype(ALL, "f32", "f64"), ids=str)
def test_integers_are_exact(problem):
    """It finds any pixel or channel that is lost, doubled or misplaced, however small its part."""
    x, g, expected = operands(problem, integers=True)
    for algorithm, plan in plans(problem):
        if algorithm.plain:
            np.testing.assert_array_equal(run(plan, x, g, 2), expected)


@pytest.mark.parametrize("problem", SOME, ids=str)
def test_neither_threads_nor_views_change_the_bits(problem):
    x, g, _ = operands(problem)
    views = [view(a.shape, problem.layout, np.float32) for a in (x, g)]
    for to, a in zip(views, (x, g), strict=True):
        to[...] = a
    for _, plan in plans(problem):
        alone = run(plan, x, g)
        np.testing.assert_array_equal(run(plan, x, g, 2), alone)
        np.testing.assert_array_equal(run(plan, x, g, 3), alone)
        np.testing.assert_array_equal(run(plan, *views), alone)


@pytest.mark.parametrize("problem", SOME, ids=str)
def test_poison_stays_with_its_taps(problem):
    x, g, _ = operands(problem)
    x[tuple(size // 2 for size in x.shape)] = np.nan
    expected = reference.weight_gradient(problem, x, g)
    for algorithm, plan in plans(problem):
        if algorithm.plain:
            np.testing.assert_array_equal(np.isnan(run(plan, x, g)), np.isnan(expected))


GRID = [
    (kernel, stride, padding, dilation, groups)
    for kernel, stride, padding, dilation, groups in itertools.product(
        [(1, 1), (3, 3), (2, 5)], [1, (3, 2)], [0, (2, 3), "same"], [1, (2, 3)], [1, 2, 6]
    )
    if padding != "same" or stride == 1
]


def torch_gradients(x, weight, bias, g, *args):
    """Of sum(g * conv2d(x, weight, bias)) with respect to weight and bias, by PyTorch in float64."""
    torch = pytest.importorskip("torch")
    weight, bias = (torch.from_numpy(a.astype(np.float64)).requires_grad_() for a in (weight, bias))
    y = torch.nn.functional.conv2d(torch.from_numpy(x.astype(np.float64)), weight, bias, *args)
    y.backward(torch.from_numpy(g.astype(np.float64)))
    return weight.grad.numpy(), bias.grad.numpy()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "groups"), GRID, ids=str)
def test_torch(kernel, stride, padding, dilation, groups, layout):
    rng = np.random.default_rng(1)
    x, weight = (rng.standard_normal(s).astype(np.float32) for s in ((2, 6, 23, 25), (12, 6 // groups, *kernel)))
    shape = cpuconv.output_shape(x.shape, weight.shape, stride, padding, dilation, groups)
    g = rng.standard_normal(shape).astype(np.float32)
    expected, expected_bias = torch_gradients(x, weight, np.zeros(12), g, stride, padding, dilation, groups)
    if layout == "NCHW":
        result = grad.conv2d_weight(x, weight.shape, g, stride, padding, dilation, groups)
    else:
        x, g = (np.moveaxis(a, 1, -1) for a in (x, g))
        hwio = (*kernel, 6 // groups, 12)
        result = grad.conv2d_weight(x, hwio, g, stride, padding, dilation, groups, layout=layout).transpose(3, 2, 0, 1)
    assert np.abs(result - expected).max() <= 2e-6 * np.abs(expected).max()
    bias = grad.conv_bias(g, layout=layout)
    assert bias.dtype == np.float32 and np.abs(bias - expected_bias).max() <= 1e-6 * np.abs(expected_bias).max()


@pytest.mark.parametrize("layout", ["NCL", "NLC", "NCDHW", "NDHWC"])
@pytest.mark.parametrize(("stride", "padding", "dilation", "groups"), [(1, 1, 1, 1), (2, 0, 2, 3), ((3,), (2,), (1,), 2)])
def test_torch_of_other_ranks(layout, stride, padding, dilation, groups):
    torch = pytest.importorskip("torch")
    rank = len(layout) - 2
    rng = np.random.default_rng(6)
    stride, padding, dilation = (v * rank if isinstance(v, tuple) else v for v in (stride, padding, dilation))
    x, weight = rng.standard_normal((2, 6, 9, 8, 11)[: rank + 2]), torch.zeros((12, 6 // groups, 3, 2, 3)[: rank + 2], dtype=torch.float64)
    y = (torch.nn.functional.conv1d if rank == 1 else torch.nn.functional.conv3d)(
        torch.from_numpy(x), weight.requires_grad_(), None, stride, padding, dilation, groups
    )
    g = rng.standard_normal(y.shape)
    y.backward(torch.from_numpy(g))
    expected, shape = weight.grad.numpy(), tuple(weight.shape)
    if layout.endswith("C"):
        x, g, expected = np.moveaxis(x, 1, -1), np.moveaxis(g, 1, -1), np.moveaxis(expected, (0, 1), (-1, -2))
        shape = expected.shape
    function = grad.conv1d_weight if rank == 1 else grad.conv3d_weight
    result = function(x, shape, g, stride, padding, dilation, groups, layout=layout)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-14 * np.abs(expected).max())
    np.testing.assert_array_equal(function(x[1], shape, g[1], stride, padding, dilation, groups, layout=layout),
                                  function(x[1:], shape, g[1:], stride, padding, dilation, groups, layout=layout))  # fmt: skip
    np.testing.assert_allclose(grad.conv_bias(g, layout=layout), np.moveaxis(g, layout.index("C"), 0).reshape(12, -1).sum(1), atol=1e-12)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [2, ((0, 1), (2, 3)), "same_lower"], ids=str)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_adjoint(mode, padding, layout):
    """<g, conv(x, w)> = <conv_weight(x, g), w> for any g and w: the definition of the gradient, in exact arithmetic."""
    rng = np.random.default_rng(2)
    options = {"padding": padding, "padding_mode": mode, "layout": layout, "groups": 2}
    x = rng.integers(-4, 5, (2, 6, 9, 8)).astype(np.float64)
    w = rng.integers(-4, 5, (4, 3, 3, 4)).astype(np.float64)
    if layout == "NHWC":
        x, w = x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0)
    y = conv2d(x, w, accuracy="strict", **options)
    g = rng.integers(-4, 5, y.shape).astype(np.float64)
    assert (g * y).sum() == (grad.conv2d_weight(x, w.shape, g, accuracy="strict", **options) * w).sum()


def test_finite_differences():
    rng = np.random.default_rng(3)
    x, w = rng.standard_normal((2, 3, 8, 7)), rng.standard_normal((4, 3, 3, 2))
    g = rng.standard_normal(conv2d(x, w, stride=2, padding=1).shape)
    result = grad.conv2d_weight(x, w.shape, g, 2, 1)
    for index in [(0, 0, 0, 0), (3, 2, 2, 1), (1, 2, 0, 1)]:
        step = np.zeros(w.shape)
        step[index] = 0.5  # conv is linear in w: no step is too large
        difference = (g * (conv2d(x, w + step, stride=2, padding=1) - conv2d(x, w - step, stride=2, padding=1))).sum()
        assert abs(result[index] - difference) < 1e-10


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes(dtype):
    dtype = np.dtype(getattr(pytest.importorskip("ml_dtypes"), dtype)) if dtype == "bfloat16" else np.dtype(dtype)
    rng = np.random.default_rng(4)
    x, g = (rng.standard_normal(s).astype(dtype) for s in ((2, 9, 12, 12), (2, 5, 12, 12)))
    problem = cpuconv.Problem.parse("n2_ic9_ih12_iw12_oc5_kh3_kw3_s1_p1_d1_g1_f64_nchw_weight")
    for result, expected in (
        (grad.conv2d_weight(x, (5, 9, 3, 3), g, padding=1), reference.weight_gradient(problem, x, g)),
        (grad.conv_bias(g), g.astype(np.float64).sum((0, 2, 3))),
    ):
        assert result.dtype == dtype
        unit = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2e-6, "float64": 1e-14}[dtype.name]
        assert np.abs(result.astype(np.float64) - expected).max() <= unit * np.abs(expected).max()


def test_forms_of_arguments():
    rng = np.random.default_rng(5)
    x, g = rng.standard_normal((4, 9, 9)).astype(np.float32), rng.standard_normal((6, 9, 9)).astype(np.float32)
    expected = grad.conv2d_weight(x[None], (6, 4, 3, 3), g[None], padding="same")
    np.testing.assert_array_equal(grad.conv2d_weight(x, [6, 4, 3, 3], g, padding="same"), expected)
    np.testing.assert_array_equal(grad.conv2d_weight(x[:, ::-1, ::-1][:, ::-1, ::-1], (6, 4, 3, 3), g, padding="same"), expected)
    np.testing.assert_array_equal(grad.conv2d_weight(np.flip(np.flip(x).copy()), (6, 4, 3, 3), g, padding="same"), expected)
    np.testing.assert_array_equal(grad.conv2d_weight(x.astype(">f4"), (6, 4, 3, 3), g, padding="same"), expected)
    out = np.full((4, 3, 3, 6), np.nan, np.float32).transpose(3, 0, 1, 2)
    assert grad.conv2d_weight(x, (6, 4, 3, 3), g, padding="same", out=out) is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(grad.conv2d_weight(x[None][:0], (6, 4, 3, 3), g[None][:0], padding="same"), 0)


X, G = np.ones((2, 4, 6, 5), np.float32), np.ones((2, 6, 4, 3), np.float32)
MISTAKES = [
    ({"weight_shape": (6, 4, 3)}, ValueError, "weight", "(6, 4, 3)"),
    ({"weight_shape": (6, 4, 3, 0)}, ValueError, "weight", "(6, 4, 3, 0)"),
    ({"weight_shape": 3}, TypeError, "weight_shape", "3"),
    ({"weight_shape": (6, 3, 3, 3)}, ValueError, "x", "4 channels", "(6, 3, 3, 3)"),
    ({"weight_shape": (6, 4, 9, 3)}, ValueError, "weight", "larger than the padded input"),
    ({"grad_output": G[:1]}, ValueError, "grad_output", "(1, 6, 4, 3)", "(2, 6, 4, 3)"),
    ({"grad_output": G[0]}, ValueError, "grad_output", "(6, 4, 3)"),
    ({"grad_output": G.astype(np.int32)}, TypeError, "grad_output", "int32"),
    ({"x": X.astype(np.int32)}, TypeError, "x", "int32"),
    ({"x": X.astype(np.int8), "grad_output": G.astype(np.int8)}, TypeError, "grad_output", "int8"),
    ({"x": X[0, 0]}, ValueError, "x", "(6, 5)"),
    ({"stride": 0}, ValueError, "stride", "0"),
    ({"groups": 4}, ValueError, "groups", "4"),
    ({"algorithm": "fast"}, ValueError, "algorithm", "'fast'"),
    ({"algorithm": "im2col"}, cpuconv.UnsupportedError, "im2col", "forward"),
    ({"accuracy": -1}, ValueError, "accuracy", "-1"),
    ({"workspace_limit": -1}, ValueError, "workspace_limit", "-1"),
    ({"out": np.zeros((6, 4, 3, 2), np.float32)}, ValueError, "out", "(6, 4, 3, 2)"),
    ({"out": np.zeros((6, 4, 3, 3))}, TypeError, "out", "float64"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "words"), [(c, e, w) for c, e, *w in MISTAKES], ids=lambda v: None)
def test_mistakes(change, error, words):
    out = np.full((6, 4, 3, 3), 7, np.float32)
    with pytest.raises(error) as caught:
        grad.conv2d_weight(**{"x": X, "weight_shape": (6, 4, 3, 3), "grad_output": G, "out": out} | change)
    assert all(word in str(caught.value) for word in words)
    assert (out == 7).all()


def test_out_must_not_overlap():
    memory = np.zeros(1000, np.float32)
    out, x = memory[: 6 * 4 * 9].reshape(6, 4, 3, 3), memory[200 : 200 + 240].reshape(2, 4, 6, 5)
    with pytest.raises(ValueError, match="out: must not overlap x"):
        grad.conv2d_weight(x, out.shape, G, out=out)


@pytest.mark.parametrize(("value", "layout", "words"),
    [(G, "NLC", "3 axes"), (G, "HWC", "layout"), (G.astype(bool), "NCHW", "bool"), (G.astype(np.int8), "NCHW", "int8")],
)
def test_mistakes_of_the_bias(value, layout, words):
    with pytest.raises((TypeError, ValueError), match=words):
        grad.conv_bias(value, layout=layout)
