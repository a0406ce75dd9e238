"""Mistakes in the arguments of 1-D, 3-D and transposed convolutions and of gradients: each message names the argument, its value and the rule."""

import inspect

import numpy as np
import pytest

import cpuconv
from cpuconv import grad


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


ONE = {"x": ones(2, 4, 9), "weight": ones(6, 4, 3)}
THREE = {"x": ones(2, 4, 5, 6, 7), "weight": ones(6, 4, 3, 3, 3)}
UP = {"x": ones(2, 4, 5, 6), "weight": ones(4, 3, 3, 3)}
BACK = {"input_shape": (2, 4, 9, 9), "weight": ones(6, 4, 3, 3), "grad_output": ones(2, 6, 7, 7)}

MISTAKES = [
    (cpuconv.conv1d, ONE, {"x": ones(9)}, ValueError, "x", "(9,)", "2 or 3 axes", "(N, C, L)"),
    (cpuconv.conv1d, ONE, {"x": ones(2, 4, 5, 9)}, ValueError, "x", "(2, 4, 5, 9)"),
    (cpuconv.conv1d, ONE, {"x": ones(2, 9, 4)}, ValueError, "x", "9 channels"),
    (cpuconv.conv1d, ONE, {"x": ones(2, 4, 2)}, ValueError, "weight", "length 3", "larger than the padded input", "(2, 4, 2)", "(6, 4, 3)"),
    (cpuconv.conv1d, ONE, {"weight": ones(6, 4)}, ValueError, "weight", "(6, 4)", "(O, C/groups, kL)"),
    (cpuconv.conv1d, ONE, {"stride": (1, 1)}, ValueError, "stride", "(1, 1)", "(length)"),
    (cpuconv.conv1d, ONE, {"padding": (1, 2)}, ValueError, "padding", "(1, 2)"),
    (cpuconv.conv1d, ONE, {"padding": ((1, 2), (0, 0))}, ValueError, "padding", "((left, right),)"),
    (cpuconv.conv1d, ONE, {"padding": 9, "padding_mode": "reflect"}, ValueError, "padding", "9", "length 9"),
    (cpuconv.conv1d, ONE, {"layout": "NCHW"}, ValueError, "layout", "'NCHW'", "'NLC'"),
    (cpuconv.conv1d, ONE, {"out": ones(2, 6, 8)}, ValueError, "out", "(2, 6, 8)", "(2, 6, 7)"),
    (cpuconv.conv3d, THREE, {"x": ones(4, 5, 6)}, ValueError, "x", "(4, 5, 6)", "4 or 5 axes", "(N, C, D, H, W)"),
    (cpuconv.conv3d, THREE, {"x": ones(2, 4, 2, 6, 7)}, ValueError, "weight", "depth 3", "larger than the padded input"),
    (cpuconv.conv3d, THREE, {"weight": ones(6, 4, 3, 3)}, ValueError, "weight", "(O, C/groups, kD, kH, kW)"),
    (cpuconv.conv3d, THREE, {"dilation": (1, 2)}, ValueError, "dilation", "triple (depth, height, width)"),
    (cpuconv.conv3d, THREE, {"padding": ((0, 1), (0, 1), (0, -1))}, ValueError, "padding", "-1"),
    (cpuconv.conv3d, THREE, {"groups": 4}, ValueError, "groups", "4", "6 output channels"),
    (cpuconv.conv3d, THREE, {"algorithm": "depthwise"}, cpuconv.UnsupportedError, "depthwise: groups 1"),
    (cpuconv.conv3d, THREE, {"residual": ones(2, 6, 3, 4)}, ValueError, "residual", "(2, 6, 3, 4, 5)"),
    (cpuconv.conv_transpose2d, UP, {"x": ones(2, 3, 5, 6)}, ValueError, "x", "3 channels", "the 4 that weight (4, 3, 3, 3)"),
    (cpuconv.conv_transpose2d, UP, {"x": ones(2, 4, 0, 6)}, ValueError, "x", "height 0", "at least 1"),
    (cpuconv.conv_transpose2d, UP, {"weight": ones(4, 3, 3)}, ValueError, "weight", "(C, O/groups, kH, kW)"),
    (cpuconv.conv_transpose2d, UP, {"groups": 3}, ValueError, "groups", "3", "4 input channels"),
    (cpuconv.conv_transpose2d, UP, {"bias": ones(4)}, ValueError, "bias", "(4,)", "(3,)"),
    (cpuconv.conv_transpose2d, UP, {"output_padding": 1}, ValueError, "output_padding", "1", "less than the stride 1"),
    (cpuconv.conv_transpose2d, UP, {"output_padding": (0, 2), "stride": 2}, ValueError, "output_padding", "2", "stride 2"),
    (cpuconv.conv_transpose2d, UP, {"output_padding": -1}, ValueError, "output_padding", "-1"),
    (cpuconv.conv_transpose2d, UP, {"output_padding": 0.5}, TypeError, "output_padding", "0.5"),
    (cpuconv.conv_transpose2d, UP, {"padding": 4}, ValueError, "padding", "(4, 4)", "no output along the height", "(2, 4, 5, 6)"),
    (cpuconv.conv_transpose2d, UP, {"output_shape": 0}, ValueError, "output_shape", "0"),
    (cpuconv.conv_transpose2d, UP, {"output_shape": (1, 2, 3)}, ValueError, "output_shape", "(1, 2, 3)", "pair"),
    (cpuconv.conv_transpose2d, UP, {"output_shape": 9, "padding": 1}, ValueError, "padding", "1", "output_shape"),
    (cpuconv.conv_transpose2d, UP, {"stride": 0}, ValueError, "stride", "0"),
    (cpuconv.conv_transpose2d, UP, {"stride": 2**70}, ValueError, "addressed"),
    (cpuconv.conv_transpose2d, UP, {"residual": ones(2, 3, 5, 6)}, ValueError, "residual", "(2, 3, 7, 8)"),
    (cpuconv.conv_transpose2d, UP, {"out": UP["x"]}, ValueError, "out", "(2, 3, 7, 8)"),
    (cpuconv.conv_transpose2d, UP, {"algorithm": "winograd", "accuracy": "strict"}, cpuconv.UnsupportedError, "strict"),
    (grad.conv2d_input, BACK, {"input_shape": (2, 4, 9, 10)}, ValueError, "grad_output", "(2, 6, 7, 7)", "(2, 6, 7, 8)"),
    (grad.conv2d_input, BACK, {"input_shape": (4, 9, 9)}, ValueError, "grad_output", "(2, 6, 7, 7)", "(6, 7, 7)"),
    (grad.conv2d_input, BACK, {"input_shape": (2, 5, 9, 9)}, ValueError, "input_shape", "5 channels"),
    (grad.conv2d_input, BACK, {"input_shape": (2, 4, 2, 9)}, ValueError, "weight", "larger than the padded input"),
    (grad.conv2d_input, BACK, {"input_shape": 9}, TypeError, "input_shape", "9"),
    (grad.conv2d_input, BACK, {"grad_output": ones(2, 6, 7, 7, dtype=int)}, TypeError, "grad_output", "int64"),
    (grad.conv2d_input, BACK, {"stride": 2}, ValueError, "grad_output", "(2, 6, 4, 4)"),
    (grad.conv2d_input, BACK, {"out": ones(2, 4, 9, 8)}, ValueError, "out", "(2, 4, 9, 9)"),
    (grad.conv1d_input, {}, {"input_shape": (4, 9), "weight": ones(6, 4, 3), "grad_output": ones(6, 8)}, ValueError, "grad_output", "(6, 7)"),
]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: f"{m[0].__name__}-{m[4]}-{m[5] if len(m) > 5 else ''}")
def test_mistakes(mistake):
    function, right, given, exception, *words = mistake
    with pytest.raises(exception) as raised:
        function(**right | given)
    for word in words:
        assert word in str(raised.value)


RIGHT = [(cpuconv.conv1d, ONE), (cpuconv.conv3d, THREE), (cpuconv.conv_transpose2d, UP), (grad.conv2d_input, BACK)]


@pytest.mark.parametrize(("function", "right"), RIGHT)
def test_what_the_mistakes_change_is_right(function, right):
    result = function(**right)
    out = np.full_like(result, 77)
    assert function(**right, out=out) is out
    np.testing.assert_array_equal(out, result)


def test_out_must_not_overlap():
    memory = ones(2, 4, 5, 6)
    with pytest.raises(ValueError, match="out: must not overlap x"):
        cpuconv.conv_transpose2d(memory, ones(4, 4, 3, 3), padding=1, out=memory)
    with pytest.raises(ValueError, match="out: must not overlap grad_output"):
        grad.conv2d_input((2, 4, 5, 6), ones(4, 4, 3, 3), memory, 1, 1, out=memory)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_arguments_come_in_the_order_of_torch(rank):
    def positional(function):
        return [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]

    conv = ["x", "weight", "bias", "stride", "padding", "dilation", "groups"]
    transposed = ["x", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"]
    assert positional(getattr(cpuconv, f"conv{rank}d")) == conv and positional(getattr(cpuconv, f"Conv{rank}d")) == conv[1:]
    assert positional(getattr(cpuconv, f"conv_transpose{rank}d")) == transposed
    assert positional(getattr(cpuconv, f"ConvTranspose{rank}d")) == transposed[1:]
    assert positional(getattr(grad, f"conv{rank}d_input")) == ["input_shape", "weight", "grad_output", *conv[3:]]


def onnx_pads(size, kernel, stride, dilation, wanted, name):
    """ONNX's ConvTranspose: total_padding, and how it is divided."""
    total = stride * (size - 1) + (kernel - 1) * dilation + 1 - wanted
    return (total // 2, total - total // 2) if name == "same" else (total - total // 2, total // 2)


@pytest.mark.parametrize("name", ["same", "same_lower", 0])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(4, 2, 1), (3, 2, 1), (5, 3, 1), (3, 2, 2), (3, 1, 1)])
def test_same_and_output_shape_are_those_of_onnx(name, kernel, stride, dilation):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 2, 6)), rng.standard_normal((2, 3, kernel))
    for wanted in {6 * stride, 6 * stride - 1}:
        pads = onnx_pads(6, kernel, stride, dilation, wanted, name)
        if min(pads) < 0:
            continue
        expected = cpuconv.conv_transpose1d(x, w, None, stride, (pads,), dilation=dilation)
        assert expected.shape == (1, 3, wanted)
        np.testing.assert_array_equal(cpuconv.conv_transpose1d(x, w, None, stride, name, dilation=dilation, output_shape=wanted), expected)
        if name and wanted == 6 * stride:
            np.testing.assert_array_equal(cpuconv.conv_transpose1d(x, w, None, stride, name, dilation=dilation), expected)


def test_an_output_shape_beyond_all_taps_ends_in_zeros():
    y = cpuconv.conv_transpose1d([[1.0, 2.0]], [[[1.0, 3.0]]], [0.5], 2, output_shape=7)
    np.testing.assert_array_equal(y, [[1.5, 3.5, 2.5, 6.5, 0.5, 0.5, 0.5]])


@pytest.mark.parametrize("layer", ["Conv1d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"])
def test_a_layer_is_the_function(layer):
    rank, rng = int(layer[-2]), np.random.default_rng(0)
    x, w, bias = rng.standard_normal((2, 4, *(7, 6, 5)[:rank])), rng.standard_normal((4, 2, *(3, 2, 3)[:rank])), rng.standard_normal(4)
    function = getattr(cpuconv, layer.replace("Conv", "conv").replace("T", "_t"))
    # of its own accord either may take another algorithm, for one of them packing counts
    options = {"groups": 2, "activation": "silu", "algorithm": "implicit_gemm"}
    conv = getattr(cpuconv, layer)(w, bias, 2, 1, **options)
    expected = function(x, w, bias, 2, 1, **options)
    np.testing.assert_array_equal(conv(x), expected)
    np.testing.assert_array_equal(conv(x[1]), expected[1])
    np.testing.assert_array_equal(conv(x, residual=np.zeros_like(expected), out=np.empty_like(expected)), expected)
    assert repr(conv).startswith(f"{layer}(4, 4, kernel_size={w.shape[2:]}, stride={(2,) * rank}, padding=")
    assert conv.explain(x.shape).splitlines()[1].split()[0] == "algorithm"
    assert cpuconv.output_shape(x.shape, w.shape, 2, 1, groups=2, transposed="T" in layer) == expected.shape
    assert cpuconv.flops(x.shape, w.shape, 2, 1, groups=2, transposed="T" in layer) == conv.problem(x.shape).flops
    w[...] = 0
    np.testing.assert_array_equal(conv(x), expected)
