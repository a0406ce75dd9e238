"""Involution against the formulation of its authors, with PyTorch's unfold."""

import math

import numpy as np
import pytest

import cpuconv
from cpuconv import involution2d

RNG = np.random.default_rng(5)


def authors(x, weight, kernel, stride, padding, dilation):
    """In float64, as the reference code of the paper: x (N, C, H, W), weight (N, G, K*K, outH, outW)."""
    torch = pytest.importorskip("torch")
    (n, c), (_, groups, taps, *maps) = x.shape[:2], weight.shape
    patches = torch.nn.functional.unfold(torch.from_numpy(x), kernel, dilation, padding, stride)
    patches = patches.view(n, groups, c // groups, taps, *maps)
    return (torch.from_numpy(weight).unsqueeze(2) * patches).sum(3).view(n, c, *maps).numpy()


def data(n, c, h, w, groups, kernel, stride, padding, dilation):
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = kernel, stride, padding, dilation
    oh, ow = (h + 2 * ph - dh * (kh - 1) - 1) // sh + 1, (w + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    return RNG.standard_normal((n, c, h, w)), RNG.standard_normal((n, groups, kh * kw, oh, ow))


CASES = {
    "the paper's": (2, 32, 14, 13, 2, (7, 7), (1, 1), (3, 3), (1, 1)),
    "stride 2": (1, 16, 9, 30, 1, (3, 3), (2, 2), (1, 1), (1, 1)),
    "few channels a group": (2, 12, 11, 12, 4, (5, 5), (1, 1), (4, 4), (2, 2)),
    "odd channels": (1, 37, 7, 6, 1, (3, 3), (1, 1), (1, 1), (1, 1)),
    "two vectors and some": (1, 70, 6, 20, 2, (3, 3), (3, 1), (0, 2), (1, 3)),
    "axes differ": (1, 6, 12, 40, 3, (2, 5), (1, 3), (0, 2), (3, 1)),
    "mostly padding": (3, 8, 3, 5, 8, (3, 3), (1, 1), (9, 7), (1, 1)),
    "one channel": (1, 1, 40, 41, 1, (3, 3), (1, 1), (1, 1), (1, 1)),
    "empty batch": (0, 4, 8, 8, 2, (3, 3), (1, 1), (1, 1), (1, 1)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_against_unfold(case, dtype):
    x, weight = data(*case)
    kernel, stride, padding, dilation = case[5:]
    expected = authors(x, weight, kernel, stride, padding, dilation) if len(x) else np.empty((0, 4, 8, 8))
    full = weight.reshape(*weight.shape[:2], *kernel, *weight.shape[3:])
    bound = (2e-6 if dtype == np.float32 else 4e-15) * math.prod(kernel) ** 0.5 * 4
    for shaped in [full] + [weight] * (kernel[0] == kernel[1]):
        y = involution2d(x.astype(dtype), shaped.astype(dtype), None, stride, padding, dilation)
        assert y.dtype == dtype and y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=0, atol=bound)
        last = np.moveaxis(shaped, (-2, -1), (1, 2))
        y = involution2d(x.transpose(0, 2, 3, 1).astype(dtype), last.astype(dtype), None, stride, padding, dilation, layout="NHWC")
        np.testing.assert_allclose(y.transpose(0, 3, 1, 2), expected, rtol=0, atol=bound)


X, WEIGHT = data(2, 6, 10, 11, 3, (3, 3), (1, 1), (1, 1), (1, 1))


def test_kernels_alike_are_a_convolution():
    taps = RNG.standard_normal((6, 1, 3, 3))
    weight = np.broadcast_to(taps.reshape(1, 6, 9, 1, 1), (2, 6, 9, 10, 11))
    expected = cpuconv.conv2d(X, taps, np.arange(6.0), padding="same", groups=6)
    np.testing.assert_allclose(involution2d(X, weight, np.arange(6.0), padding="same"), expected, atol=1e-13)


def test_unbatched_and_half_precision():
    expected = involution2d(X, WEIGHT, padding=1)
    np.testing.assert_array_equal(involution2d(X[1], WEIGHT[1], padding=1), expected[1])
    y = involution2d(X.astype(np.float16), WEIGHT.astype(np.float16), padding=1)
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, expected, atol=0.05)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_threads_and_batch_change_no_bit(layout):
    x, weight = data(4, 32, 60, 50, 2, (7, 7), (1, 1), (3, 3), (1, 1))
    if layout == "NHWC":
        x, weight = np.moveaxis(x, 1, -1), np.moveaxis(weight, (-2, -1), (1, 2))
    with cpuconv.threads(1):
        expected = involution2d(x, weight, padding=3, layout=layout)
    with cpuconv.threads(5):
        np.testing.assert_array_equal(involution2d(x, weight, padding=3, layout=layout), expected)
        np.testing.assert_array_equal(involution2d(x[2:3], weight[2:3], padding=3, layout=layout), expected[2:3])


def test_out():
    expected = involution2d(X, WEIGHT, padding=1)
    out = np.full((2, 6, 10, 22), np.nan)[..., ::2]
    assert involution2d(X, WEIGHT, padding=1, out=out) is out
    np.testing.assert_array_equal(out, expected)
    with pytest.raises(ValueError, match="out: must not overlap x"):
        involution2d(X, WEIGHT, padding=1, out=X)


@pytest.mark.parametrize(
    ("x", "weight", "options", "error", "message"),
    [
        (X[0, 0], WEIGHT, {}, ValueError, r"x: shape \(10, 11\) must be \(N, C, H, W\)"),
        (X, WEIGHT[0], {"padding": 1}, ValueError, r"weight: shape \(3, 9, 10, 11\) must be \(N, G, kH, kW"),
        (X, WEIGHT[:, :, :8], {"padding": 1}, ValueError, "weight: .*8 is not a square"),
        (X, WEIGHT[:1], {"padding": 1}, ValueError, r"weight: batch 1 .* must be the 2 of x"),
        (X, WEIGHT, {}, ValueError, "weight: has kernels for 10 x 11 outputs .*but there are 8 x 9"),
        (X[:, :5], WEIGHT, {"padding": 1}, ValueError, r"weight: its 3 groups .*must divide the 5 channels"),
        (X, WEIGHT[:, :0], {"padding": 1}, ValueError, "weight: .*no empty axis"),
        (X, WEIGHT, {"padding": 1, "bias": np.ones(3)}, ValueError, r"bias: shape \(3,\) must be \(6,\)"),
        (X, WEIGHT, {"padding": 1, "layout": "CHWN"}, ValueError, "layout: 'CHWN'"),
        (X.astype(int), WEIGHT, {}, TypeError, "x: dtype int64"),
        (X[:, :, :2, :2], WEIGHT, {}, ValueError, "larger than the padded input"),
    ],
)
def test_mistakes(x, weight, options, error, message):
    with pytest.raises(error, match=message):
        involution2d(x, weight, **options)
