"""Plain images under stencils, against SciPy."""

import numpy as np
import pytest
from scipy import ndimage, signal

from cpuconv import stencil

RNG = np.random.default_rng(6)
IMAGE = RNG.standard_normal((23, 31))
BANK = RNG.standard_normal((5, 3, 5))
MODES = {"zeros": "constant", "reflect": "mirror", "replicate": "nearest", "circular": "grid-wrap"}
"""Names of ours and of scipy.ndimage."""


def close(result, expected, dtype=np.float64):
    assert result.shape == expected.shape
    assert result.dtype == dtype
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5 if dtype == np.float32 else 1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 3), (1, 7), (9, 5), (4, 2), (1, 1)], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_against_ndimage(mode, shape, dtype):
    taps = RNG.standard_normal(shape)
    expected = ndimage.correlate(IMAGE, taps, mode=MODES[mode])
    close(stencil(IMAGE.astype(dtype), taps.astype(dtype), padding="same_lower", padding_mode=mode), expected, dtype)


@pytest.mark.parametrize("mode", ["valid", "same"])
def test_against_signal(mode):
    close(stencil(IMAGE, BANK[0], padding=mode), signal.correlate2d(IMAGE, BANK[0], mode=mode))


def test_full_is_a_padding():
    close(stencil(IMAGE, BANK[0], padding=(2, 4)), signal.correlate2d(IMAGE, BANK[0], mode="full"))


@pytest.mark.parametrize("batch", [(), (2,)], ids=["image", "images"])
def test_banks(batch):
    x = RNG.standard_normal((*batch, 12, 13))
    images = x if batch else x[None]
    expected = np.array([[ndimage.correlate(image, taps, mode="mirror") for taps in BANK] for image in images])
    close(stencil(x, BANK, padding_mode="reflect"), expected if batch else expected[0])
    last = np.moveaxis(expected, 1, -1)
    close(stencil(x, np.moveaxis(BANK, 0, -1), padding_mode="reflect", layout="NHWC"), last if batch else last[0])
    for layout in ("NCHW", "NHWC"):
        alone = expected[:, 0]
        close(stencil(x, BANK[0], padding_mode="reflect", layout=layout), alone if batch else alone[0])


def test_strides_dilation_and_activation():
    holes = np.zeros((5, 9))
    holes[::2, ::2] = BANK[0]
    expected = np.maximum(signal.correlate2d(IMAGE, holes, mode="valid")[::3, ::2], 0)
    close(stencil(IMAGE, BANK[0], (3, 2), 0, 2, activation="relu"), expected)


@pytest.mark.parametrize("weight", [BANK[0], BANK], ids=["stencil", "bank"])
def test_out(weight):
    expected = stencil(IMAGE, weight)
    out = np.full((*expected.shape[:-1], 2 * expected.shape[-1]), np.nan)[..., ::2]
    assert stencil(IMAGE, weight, out=out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    ("x", "weight", "options", "error", "message"),
    [
        (IMAGE[0], BANK, {}, ValueError, r"x: shape \(31,\) must be \(H, W\)"),
        (IMAGE[None, None], BANK, {}, ValueError, r"x: shape \(1, 1, 23, 31\)"),
        (IMAGE, BANK[0, 0], {}, ValueError, r"weight: shape \(5,\) must be \(kH, kW\) or \(O, kH, kW\)"),
        (IMAGE, BANK[None], {"layout": "NHWC"}, ValueError, r"weight: .*\(kH, kW, O\)"),
        (IMAGE, BANK[:0], {}, ValueError, "weight: .*no empty axis"),
        (IMAGE.astype(np.int64), BANK, {}, TypeError, "x: dtype int64"),
        (IMAGE, BANK, {"layout": "HWC"}, ValueError, "layout: 'HWC'"),
        (IMAGE, BANK, {"padding_mode": "mirror"}, ValueError, "padding_mode: 'mirror'"),
        (IMAGE, BANK, {"out": np.empty((23, 31))}, ValueError, r"out: shape \(23, 31\) must have 3 axes"),
        (IMAGE, BANK, {"out": np.empty((5, 23, 30))}, ValueError, "out: shape"),
        (IMAGE, BANK, {"out": [0]}, TypeError, "out: must be a NumPy array"),
    ],
)
def test_mistakes(x, weight, options, error, message):
    with pytest.raises(error, match=message):
        stencil(x, weight, **options)


def test_pictures_of_bytes():
    picture = RNG.integers(0, 256, (20, 30)).astype(np.uint8)
    np.testing.assert_allclose(stencil(picture, BANK[0]), ndimage.correlate(picture.astype(np.float64), BANK[0], mode="constant"), atol=1e-10)
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.int8)
    np.testing.assert_array_equal(stencil(picture, sobel), ndimage.correlate(picture.astype(np.int32), sobel, mode="constant"))
