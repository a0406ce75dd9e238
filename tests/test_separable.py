"""Separable convolution against its two parts in float64, by PyTorch."""

import pickle
import sys

import numpy as np
import pytest

import cpuconv
from cpuconv import SeparableConv2d, separable_conv2d

RNG = np.random.default_rng(4)

# n, channels, height, width, multiplier, outputs, kernel, stride, padding, dilation
CASES = {
    "MobileNet's": (1, 32, 56, 56, 1, 64, 3, 1, 1, 1),
    "stride 2, several bands": (2, 64, 75, 90, 1, 40, 3, 2, 1, 1),
    "multiplier 2": (1, 24, 40, 41, 2, 24, 3, 1, 1, 1),
    "multiplier 3, narrow": (2, 7, 9, 7, 3, 5, 5, 1, 2, 1),
    "dilated": (1, 33, 30, 20, 1, 9, 3, 1, 2, 2),
    "bands in the padding": (1, 6, 30, 200, 1, 40, 3, 1, 9, 2),
    "one channel": (1, 1, 5, 5, 4, 3, 3, 1, 1, 1),
    "many channels": (1, 600, 14, 14, 1, 130, 3, 1, 1, 1),
    "pointwise twice": (1, 16, 12, 12, 1, 8, 1, 1, 0, 1),
    "empty batch": (0, 4, 8, 8, 1, 4, 3, 1, 1, 1),
}


def data(n, c, h, w, m, o, kernel, *_):
    """x, depthwise weight, 1x1 weight, bias, depth_bias."""
    shapes = (n, c, h, w), (c * m, 1, kernel, kernel), (o, c * m, 1, 1), (o,), (c * m,)
    return [RNG.standard_normal(shape) for shape in shapes]


def turned(x, depthwise, pointwise):
    return x.transpose(0, 2, 3, 1), depthwise.transpose(2, 3, 1, 0), pointwise.transpose(2, 3, 1, 0)


def of_torch(x, depthwise, pointwise, bias, depth_bias, stride, padding, dilation):
    """relu6 after the first, silu after the second."""
    torch = pytest.importorskip("torch")
    x, depthwise, pointwise, bias, depth_bias = map(torch.from_numpy, (x, depthwise, pointwise, bias, depth_bias))
    between = torch.nn.functional.conv2d(x, depthwise, depth_bias, stride, padding, dilation, x.shape[1])
    return torch.nn.functional.silu(torch.nn.functional.conv2d(torch.clamp(between, 0, 6), pointwise, bias)).numpy()


def small_caches(monkeypatch, cached):
    """Images are divided into bands where caches are small."""
    if cached:
        monkeypatch.setattr(sys.modules["cpuconv.separable"], "_size", lambda p, machine: cached)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("cached", [None, 1 << 15], ids=["this CPU's cache", "32 KiB"])
def test_against_torch(case, layout, dtype, cached, monkeypatch):
    small_caches(monkeypatch, cached)
    x, depthwise, pointwise, bias, depth_bias = arrays = data(*case)
    stride, padding, dilation = case[7:]
    expected = of_torch(*arrays, stride, padding, dilation)
    x, depthwise, pointwise = (a.astype(dtype) for a in (turned(x, depthwise, pointwise) if layout == "NHWC" else (x, depthwise, pointwise)))
    y = separable_conv2d(
        x, depthwise, pointwise, bias.astype(dtype), stride, padding, dilation, layout=layout, depth_bias=depth_bias.astype(dtype),
        depth_activation="relu6", activation="silu",
    )  # fmt: skip
    assert y.dtype == dtype
    y = y.transpose(0, 3, 1, 2) if layout == "NHWC" else y
    bound = (2e-6 if dtype == np.float32 else 4e-15) * max(1, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(y, expected, rtol=0, atol=bound)


X, DEPTHWISE, POINTWISE, BIAS, DEPTH_BIAS = (a.astype(np.float32) for a in data(2, 12, 40, 30, 2, 20, 3))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", [None, "gelu", lambda v: v * v], ids=["none", "gelu", "function"])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_against_two_calls(mode, activation, residual):
    added = RNG.standard_normal((2, 20, 40, 30)).astype(np.float32) if residual else None
    between = cpuconv.conv2d(X, DEPTHWISE, DEPTH_BIAS, padding=1, groups=12, padding_mode=mode, activation=activation)
    expected = cpuconv.conv2d(between, POINTWISE, BIAS, residual=added, activation=activation)
    y = separable_conv2d(
        X, DEPTHWISE, POINTWISE, BIAS, padding=1, padding_mode=mode, depth_bias=DEPTH_BIAS, depth_activation=activation, activation=activation,
        residual=added,
    )  # fmt: skip
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("cached", [None, 1 << 16], ids=["this CPU's cache", "64 KiB"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_threads_and_batch_change_no_bit(layout, cached, monkeypatch):
    """The number of threads decides the size of the bands."""
    small_caches(monkeypatch, cached)
    x, depthwise, pointwise, bias, _ = data(3, 384, 23, 14, 1, 40, 3)
    if layout == "NHWC":
        x, depthwise, pointwise = turned(x, depthwise, pointwise)
    arrays = [a.astype(np.float32) for a in (x, depthwise, pointwise, bias)]
    conv = SeparableConv2d(*arrays[1:], padding=1, layout=layout, activation="relu")
    with cpuconv.threads(1):
        expected = conv(arrays[0])
    between = cpuconv.conv2d(*arrays[:2], padding=1, groups=384, layout=layout)
    two_calls = cpuconv.conv2d(between, *arrays[2:], layout=layout, activation="relu")
    np.testing.assert_allclose(expected, two_calls, rtol=0, atol=1e-5 * np.abs(two_calls).max())
    for threads in (2, 7):
        with cpuconv.threads(threads):
            np.testing.assert_array_equal(conv(arrays[0]), expected)
            np.testing.assert_array_equal(conv(arrays[0][1:2]), expected[1:2])


def test_calls_after_the_first_check_their_arrays():
    conv = SeparableConv2d(DEPTHWISE, POINTWISE, BIAS, padding=1, depth_multiplier=2)
    x, out = X[:1], np.zeros((1, 20, 40, 30), np.float32)
    expected = conv(x).copy()
    assert conv(x, out=out) is out
    np.testing.assert_array_equal(out, expected)
    added = np.ones_like(out)
    np.testing.assert_allclose(conv(x, added), expected + 1, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(conv(x[:, :, :20])[:, :, :19], expected[:, :, :19])
    np.testing.assert_array_equal(conv(np.asfortranarray(x)), expected)
    np.testing.assert_array_equal(conv(x[0]), expected[0])
    np.testing.assert_array_equal(conv(x), expected)
    with cpuconv.threads(3):
        np.testing.assert_array_equal(conv(x), expected)
    for wrong in (out[:, :, 1:], out.astype(np.float64), x):
        with pytest.raises((ValueError, TypeError), match=r"^out: "):
            conv(x, out=wrong)
    out.flags.writeable = False
    with pytest.raises(ValueError, match=r"^out: "):
        conv(x, out=out)


def test_one_layer_serves_many_shapes_and_dtypes():
    conv = SeparableConv2d(DEPTHWISE, POINTWISE, depth_multiplier=2, padding=1)
    for size in (5, 40, 7, 23):
        for dtype in (np.float32, np.float64, np.float16):
            x = RNG.standard_normal((1, 12, size, size)).astype(dtype)
            y = conv(x)
            assert y.dtype == np.result_type(dtype, np.float32)
            expected = cpuconv.conv2d(cpuconv.conv2d(x, DEPTHWISE, padding=1, groups=12), POINTWISE)
            np.testing.assert_allclose(y, expected, rtol=0, atol=1e-4)
    half = SeparableConv2d(DEPTHWISE.astype(np.float16), POINTWISE.astype(np.float16), depth_multiplier=2)
    assert half(X.astype(np.float16)).dtype == np.float16


def test_forms_of_input():
    conv = SeparableConv2d(DEPTHWISE, POINTWISE, BIAS, depth_multiplier=2)
    expected = conv(X)
    np.testing.assert_array_equal(conv(X[1]), expected[1])
    np.testing.assert_array_equal(conv(np.repeat(X, 2, -1)[..., ::2]), expected)
    out = np.full((2, 20, 38, 56), np.nan, np.float32)[..., ::2]
    assert conv(X, out=out) is out
    np.testing.assert_array_equal(out, expected)
    added = np.ones_like(expected)
    np.testing.assert_allclose(conv(X, added, added), expected + 1, atol=1e-4)
    np.testing.assert_allclose(added, expected + 1, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"x": X[0, 0]}, ValueError, r"x: shape \(40, 30\) must be \(N, C, H, W\)"),
        ({"x": X[:, :5]}, ValueError, "depthwise_weight: its 24 output channels .*a multiple of the 5 channels"),
        ({"x": X.astype(int)}, TypeError, "x: dtype int64"),
        ({"depthwise_weight": DEPTHWISE[:, 0]}, ValueError, r"depthwise_weight: shape \(24, 3, 3\) must be \(C\*m, 1, kH, kW\)"),
        ({"depthwise_weight": DEPTHWISE.reshape(12, 2, 3, 3)}, ValueError, "depthwise_weight: shape"),
        ({"pointwise_weight": POINTWISE[:, :12]}, ValueError, r"pointwise_weight: shape \(20, 12, 1, 1\) must be \(O, 24, 1, 1\)"),
        ({"pointwise_weight": POINTWISE[..., 0, 0]}, ValueError, "pointwise_weight: shape"),
        ({"bias": BIAS[:3]}, ValueError, r"^bias: shape \(3,\)"),
        ({"depth_bias": BIAS}, ValueError, r"^depth_bias: shape \(20,\)"),
        ({"depth_activation": "swish"}, ValueError, "^depth_activation: 'swish'"),
        ({"activation": "swish"}, ValueError, "^activation: 'swish'"),
        ({"layout": "CHWN"}, ValueError, "layout: 'CHWN'"),
        ({"stride": 0}, ValueError, "stride: 0"),
        ({"residual": X}, ValueError, "residual: shape"),
        ({"out": np.empty((2, 20, 38, 28))}, TypeError, "out: dtype float64"),
        ({"out": X}, ValueError, "out: "),
    ],
)
def test_mistakes(changes, error, message):
    arguments = {"x": X, "depthwise_weight": DEPTHWISE, "pointwise_weight": POINTWISE, **changes}
    with pytest.raises(error, match=message):
        separable_conv2d(**arguments)


def test_the_layer_checks_its_multiplier():
    with pytest.raises(ValueError, match="depth_multiplier: 5 must divide the 24"):
        SeparableConv2d(DEPTHWISE, POINTWISE, depth_multiplier=5)


def test_the_layer_can_be_copied():
    conv = SeparableConv2d(DEPTHWISE, POINTWISE, BIAS, depth_multiplier=2)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(conv))(X), conv(X))
