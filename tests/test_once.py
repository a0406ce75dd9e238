"""Functions with a weight given at each call: what they keep from one call to the next must never change a result or let an error pass."""

import numpy as np
import pytest

import cpuconv
from cpuconv import conv2d, conv_transpose2d

RNG = np.random.default_rng(0)


def arrays(dtype=np.float32, ic=3, oc=4):
    return (RNG.standard_normal(shape).astype(dtype) for shape in ((2, ic, 9, 8), (oc, ic, 3, 3), (oc,)))


@pytest.fixture(autouse=True)
def nothing_kept():
    cpuconv.clear_cache()
    yield
    cpuconv.clear_cache()


def expected(x, weight, bias=None, *options):
    return conv2d(x.astype(np.float64), weight.astype(np.float64), None if bias is None else bias.astype(np.float64), *options, algorithm="reference")


def test_each_call_takes_the_weight_and_bias_that_it_is_given():
    x, weight, bias = arrays()
    first = conv2d(x, weight, bias)
    hits = cpuconv.cache_info().hits
    second = conv2d(x, 2 * weight, bias + 1)
    assert cpuconv.cache_info().hits > hits
    np.testing.assert_allclose(first, expected(x, weight, bias), rtol=0, atol=1e-4)
    np.testing.assert_allclose(second, expected(x, 2 * weight, bias + 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("function", [conv2d, conv_transpose2d])
def test_a_result_does_not_depend_on_what_was_called_before(function):
    x, weight, bias = arrays(ic=4)
    cold = function(x, weight, bias)
    assert np.array_equal(function(x, weight, bias), cold)
    out = np.full(cold.shape, np.nan, np.float32)
    assert function(x, weight, bias, out=out) is out
    assert np.array_equal(out, cold)


@pytest.mark.parametrize(
    "other",
    [
        lambda x, w, b: (x.astype(np.float64), w, b),
        lambda x, w, b: (x, w.astype(np.float16), b),
        lambda x, w, b: (x, w, b.astype(np.float64)),
        lambda x, w, b: (x[:, ::-1], w, b),
        lambda x, w, b: (x, w[::-1], b[::-1]),
        lambda x, w, b: (x[0], w, b),
        lambda x, w, b: (x, w, None),
        lambda x, w, b: (x.tolist(), w, b),
        lambda x, w, b: (x[:0], w, b),
    ],
)
def test_other_arrays_after_it_are_looked_at_anew(other):
    x, weight, bias = arrays()
    conv2d(x, weight, bias)
    x, weight, bias = other(x, weight, bias)
    result = conv2d(x, weight, bias)
    np.testing.assert_allclose(result, expected(np.asarray(x), weight, bias), rtol=0, atol=1e-4)
    assert result.dtype == np.result_type(*(np.asarray(a) for a in (x, weight, bias) if a is not None))


def test_what_is_equal_to_a_right_argument_is_not_taken_for_it():
    x, weight, bias = arrays()
    conv2d(x, weight, bias, 1, 1, workspace_limit=1 << 20, accuracy=1.0)
    for wrong in ({"stride": True}, {"stride": 1.0}, {"padding": True}, {"groups": 1.0}, {"workspace_limit": float(1 << 20)}, {"accuracy": True}):
        with pytest.raises(TypeError, match=next(iter(wrong))):
            conv2d(x, weight, bias, **({"stride": 1, "padding": 1, "workspace_limit": 1 << 20, "accuracy": 1.0} | wrong))


def packed_and_unpacked(draw, layout, size, kernel, ic, oc, groups, threads, **options):
    """conv2d by implicit_gemm and by unpacked_gemm on random numbers."""
    x, weight, bias = (draw(shape).astype(np.float32) for shape in ((2, ic, size, size), (oc, ic // groups, kernel, kernel), (oc,)))
    if layout == "NHWC":
        x, weight = x.transpose(0, 2, 3, 1), weight.transpose(2, 3, 1, 0)
    with cpuconv.threads(threads):
        return [
            conv2d(x, weight, bias, groups=groups, layout=layout, algorithm=algorithm, **options)
            for algorithm in ("implicit_gemm", "unpacked_gemm")
        ]  # fmt: skip


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("layout", "size", "ic", "oc"),
    [("NHWC", 16, 600, 72), ("NHWC", 21, 96, 48), ("NHWC", 30, 300, 128), ("NHWC", 30, 1100, 24), ("NCHW", 5, 700, 150)],
)
def test_a_1x1_weight_that_is_not_packed_gives_the_same_bits(layout, size, ic, oc, groups, threads):
    packed, unpacked = packed_and_unpacked(RNG.standard_normal, layout, size, 1, ic, oc, groups, threads)
    np.testing.assert_array_equal(unpacked, packed)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("size", "kernel", "ic", "oc", "padding", "dilation", "stride"),
    [
        (7, 3, 64, 140, 1, 1, 1), (9, 3, 10, 8, 2, 1, 2), (40, 3, 20, 40, 1, 1, 1), (31, 5, 6, 24, 3, 1, 1), (12, 2, 1030, 16, 0, 1, 2),
        (6, 3, 8, 16, 9, 9, 1), (30, 3, 16, 16, 12, 12, 1), (5, 3, 8, 40, 7, 1, 1),
    ],
)  # fmt: skip
def test_taps_of_a_weight_that_is_not_packed(size, kernel, ic, oc, padding, dilation, stride, groups, threads):
    """One after the other, so that sums have another order: integers show each tap that is lost, doubled or misplaced."""
    options = {"padding": padding, "dilation": dilation, "stride": stride, "activation": "relu"}
    packed, unpacked = packed_and_unpacked(lambda shape: RNG.integers(-4, 5, shape), "NHWC", size, kernel, ic, oc, groups, threads, **options)
    np.testing.assert_array_equal(unpacked, packed)


def test_wrong_arrays_after_it_are_refused():
    x, weight, bias = arrays()
    out = conv2d(x, weight, bias)
    before = out.copy()
    cases = [
        ("weight", (x, weight[:, :2], bias), out), ("bias", (x, weight, bias[:3]), out), ("out: shape", (x, weight, bias), out[:1]),
        ("out: dtype", (x, weight, bias), out.astype(np.float64)), ("weight: kernel height 3", (x[:, :, :1], weight, bias), out),
    ]  # fmt: skip
    for name, given, target in cases:
        with pytest.raises((ValueError, TypeError), match=name):
            conv2d(*given, out=target)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        conv2d(x, weight, bias, out=out)
    assert np.array_equal(out, before)


@pytest.mark.parametrize("name", ["x", "weight", "bias"])
def test_out_must_not_be_an_input(name):
    memory = np.zeros(4096, np.float32)
    x, weight, bias = arrays()
    conv2d(x, weight, bias)
    given = {"x": x, "weight": weight, "bias": bias}
    place = memory[: given[name].size].reshape(given[name].shape)
    place[...] = given[name]
    out = memory[2 : 2 + 2 * 4 * 7 * 6].reshape(2, 4, 7, 6)
    with pytest.raises(ValueError, match=f"out: must not overlap {name}"):
        conv2d(**(given | {name: place}), out=out)
