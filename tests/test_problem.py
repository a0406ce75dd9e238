"""`Problem`: its spec string, its arithmetic, its checks; and that the reference follows the written formula."""

import dataclasses
import itertools

import numpy as np
import pytest

from cpuconv import Problem, reference
from cpuconv.problem import Activation, Epilogue, output_size
from oracle import integers, with_epilogue
from shapes import FORMS, LAYER_PROBLEMS, PROBLEMS, both_layouts

SPEC = "n1_ic64_ih56_iw56_oc64_kh3_kw3_s1_p1_d1_g1_f32_nchw"


@pytest.mark.parametrize("problem", both_layouts([*PROBLEMS, *LAYER_PROBLEMS, *FORMS]), ids=str)
def test_specs_are_read_back(problem):
    assert Problem.parse(str(problem)) == problem
    if problem.pass_ == "weight":
        return  # it has no epilogue
    full = with_epilogue(dataclasses.replace(problem, dtype="f64"), Activation("clip", (-0.5, float("inf"))))
    assert Problem.parse(str(full)) == full != problem


def test_the_list_names_each_problem_once():
    assert len({str(p) for p in PROBLEMS}) == len(PROBLEMS)


@pytest.mark.parametrize(
    "spec",
    [
        "n2_ic4_ih8_iw9_oc6_kh3_kw1_s2x1_p1x0_d1x2_g2_f64_nhwc",
        "n2_ic4_ih8_iw9_oc6_kh3_kw1_s2_p0x1x2x3_d1_g2_f32_nchw_bias",
        "n2_ic4_ih8_iw9_oc6_kh3_kw1_s2_p0_d1_g2_f32_nchw_residual_act:gelu",
        "n2_ic4_ih8_iw9_oc6_kh3_kw1_s2_p0_d1_g2_f32_nchw_bias_residual_act:leaky_relu(0.1)",
        "n2_ic4_ih8_iw9_oc6_kh3_kw1_s2_p0_d1_g2_f32_nchw_act:clip(0.0,inf)",
        "n2_ic4_id5_ih8_iw9_oc6_kd2_kh3_kw1_s2x1x1_p1x1x0_d1x2x1_g2_f64_ndhwc",
        "n2_ic4_id5_ih8_iw9_oc6_kd2_kh3_kw1_s2_p0x1x2x3x4x5_d1_g2_f32_ncdhw_input_bias",
        "n2_ic4_ih8_iw9_oc6_kh3_kw1_s2_p0x-1x2x-3_d1_g2_f32_nchw_input_residual_act:gelu",
        "n2_ic4_ih8_iw9_oc6_kh3_kw1_s2_p0_d1_g2_f32_nhwc_weight",
    ],
)
def test_the_text_is_canonical(spec):
    assert str(Problem.parse(spec)) == spec


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("n1_", "", "spec"),
        ("n1_", "n-1_", "spec"),
        ("n1_", "n1.0_", "spec"),
        ("f32", "f16", "spec"),
        ("nchw", "nchw_relu", "spec"),
        ("nchw", "nchw_residual_bias", "spec"),
        ("nchw", "nchw_act:swish", "swish"),
        ("nchw", "nchw_act:clip(1.0)", "2 parameters"),
        ("nchw", "nchw_act:gelu(1.0)", "0 parameters"),
        ("nchw", "nchw_act:leaky_relu(x)", "leaky_relu"),
        ("nchw", "nchw_act:leaky_relu(nan)", "NaN"),
        ("nchw", "nchw_act:clip(2.0,1.0)", "clip"),
        ("p1", "p1x2x3", "padding"),
        ("p1", "p1x2x3x4x5", "padding"),
        ("s1", "s0", "stride"),
        ("d1", "d0", "dilation"),
        ("g1", "g0", "groups"),
        ("g1", "g3", "groups"),
        ("kh3", "kh0", "weight"),
        ("kh3", "kh59", "larger than the padded input"),
        ("ic64", "ic0", "channels"),
        ("oc64", "oc0", "channels"),
        ("n1_", f"n{10**19}_", "addressed"),
        ("nchw", "ncdhw", "spec"),
        ("_ih", "_id4_ih", "spec"),
        ("_kh", "_kd4_kh", "spec"),
        ("nchw", "nchw_transposed", "spec"),
        ("nchw", "nchw_bias_input", "spec"),
        ("nchw", "nchw_weight_bias", "no bias"),
        ("p1", "p1x-1x0x0", "negative"),
        ("s1", "s1x1x1", "stride"),
    ],
)  # fmt: skip
def test_bad_specs(old, new, words):
    with pytest.raises(ValueError, match=words):
        Problem.parse(SPEC.replace(old, new))


def test_a_problem_is_a_value():
    problem = Problem.parse(SPEC)
    assert hash(problem) == hash(Problem.parse(SPEC))
    with pytest.raises(dataclasses.FrozenInstanceError):
        problem.n = 2
    assert problem.per_image is problem
    assert dataclasses.replace(problem, n=7).per_image == problem


def test_a_function_has_a_name_but_no_spec():
    problem = dataclasses.replace(Problem.parse(SPEC), epilogue=Epilogue(activation=Activation("mine", (), abs)))
    assert str(problem).endswith("_act:<mine>")
    with pytest.raises(ValueError, match="mine"):
        Problem.parse(str(problem))


@pytest.mark.parametrize("stride", [1, 2, 5])
@pytest.mark.parametrize("dilation", [1, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_output_size_counts_the_windows_that_fit(kernel, dilation, stride):
    for size, before, after in itertools.product(range(12), range(3), range(3)):
        span = dilation * (kernel - 1) + 1
        windows = [start for start in range(0, size + before + after, stride) if start + span <= size + before + after]
        if windows:
            assert output_size(size, kernel, stride, before, after, dilation) == len(windows)


def by_the_formula(p: Problem, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """y[n,o,i,j] = sum over c,u,v of w[o,c,u,v] x[n, c, i sh + u dh - top, j sw + v dw - left], letter by letter (channels first)."""
    y = np.zeros(p.y_shape)
    for n, o, *out in np.ndindex(*p.y_shape):
        for c, *tap in np.ndindex(p.icg, *(a.kernel for a in p.axes)):
            at = [i * a.stride + u * a.dilation - a.before for i, u, a in zip(out, tap, p.axes, strict=True)]
            if all(0 <= i < a.size for i, a in zip(at, p.axes, strict=True)):
                y[(n, o, *out)] += weight[(o, c, *tap)] * x[(n, o // p.ocg * p.icg + c, *at)]
    return y


def first(a):
    """Channels first to channels last."""
    return np.moveaxis(a, 1, -1)


def last(w):
    return np.moveaxis(w, (0, 1), (-1, -2))


@pytest.mark.parametrize("problem", [p for p in [*PROBLEMS, *FORMS] if p.flops < 20_000 and p.pass_ == "forward"], ids=str)
def test_the_reference_is_the_formula(problem):
    x, weight, *_ = integers(problem)
    expected = by_the_formula(problem, x, weight)
    np.testing.assert_array_equal(reference.forward(problem, x, weight), expected)
    turned = reference.forward(dataclasses.replace(problem, layout="nhwc"), first(x), last(weight))
    np.testing.assert_array_equal(turned, first(expected))


@pytest.mark.parametrize("problem", [p for p in FORMS if p.pass_ != "forward"], ids=str)
def test_the_gradients_are_adjoint(problem):
    """<conv(x, w), g> = <x, input_gradient(g, w)> = <w, weight_gradient(x, g)>, exactly on integers."""
    forward = dataclasses.replace(problem, pass_="forward")
    if min(problem.padding) < 0:
        return  # forward has no such padding
    x, weight, *_ = integers(forward)
    g = np.random.default_rng(0).integers(-8, 9, problem.y_shape).astype(np.float32)
    expected = (reference.forward(forward, x, weight) * g).sum()
    other, arguments = (x, (g, weight)) if problem.pass_ == "input" else (weight, (x, g))
    result = reference.compute(problem, *arguments)
    assert result.shape == problem.result_shape and (result * other).sum() == expected
    second = (last if problem.pass_ == "input" else first)(arguments[1])
    turned = reference.compute(dataclasses.replace(problem, layout="nhwc"), first(arguments[0]), second)
    np.testing.assert_array_equal(turned, (first if problem.pass_ == "input" else last)(result))


def test_what_no_tap_reaches_is_zero():
    problem = Problem.parse("n1_ic1_ih1_iw7_oc1_kh1_kw2_s1x3_p0x0x-1x-1_d1_g1_f32_nchw_input")
    grad, weight = np.float32([[[[1, 10]]]]), np.float32([[[[2, 3]]]])
    np.testing.assert_array_equal(reference.compute(problem, grad, weight), [[[[0, 2, 3, 0, 20, 30, 0]]]])
