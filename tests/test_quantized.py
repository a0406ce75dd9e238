"""Convolutions of 8-bit integers: exact to the last bit, for every mix of signedness, against integer NumPy, PyTorch and ONNX Runtime."""

import importlib
from dataclasses import replace

import numpy as np
import pytest

import cpuconv
from cpuconv import Problem, quantized, reference
from cpuconv.algorithms import ALGORITHMS
from cpuconv.plan import Quantization, types
from cpuconv.problem import INTEGER_DTYPES
from oracle import INTEGER_CPUS, case_id, seed
from shapes import FEW, PROBLEMS, both_layouts, other_images
from test_memory import Fenced, fenced, mprotect

INTEGERS = [a for a in ALGORITHMS if a.name.startswith("int8")]
MIXES = [(x, w) for x in ("int8", "uint8") for w in ("int8", "uint8")]


def draw(rng, shape, dtype) -> np.ndarray:
    return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)


def by_slices(x, w, x_zero=0, w_zero=0, stride=1, padding=0, dilation=1, groups=1):
    """Channels first, in int64: the definition, one tap at a time."""
    rank = x.ndim - 2
    stride, padding, dilation = (np.broadcast_to(v, rank).tolist() for v in (stride, padding, dilation))
    w_zero = np.broadcast_to(w_zero, len(w)).reshape(-1, *[1] * (rank + 1))
    x = np.pad(x.astype(np.int64) - x_zero, ((0, 0), (0, 0), *((p, p) for p in padding)))
    w = (w.astype(np.int64) - w_zero).reshape(groups, -1, *w.shape[1:])
    x = x.reshape(len(x), groups, -1, *x.shape[2:])
    taps = w.shape[3:]
    out = [(x.shape[3 + i] - dilation[i] * (taps[i] - 1) - 1) // stride[i] + 1 for i in range(rank)]
    y = 0
    for tap in np.ndindex(*taps):
        window = tuple(slice(t * d, t * d + (o - 1) * s + 1, s) for t, d, o, s in zip(tap, dilation, out, stride, strict=True))
        y = y + np.einsum("ngc...,goc->ngo...", x[(..., *window)], w[(..., *tap)])
    return y.reshape(len(x), -1, *out)


def requantized(sums, scale, y_zero) -> np.ndarray:
    """Rounding half to even, then the zero point, then saturation; channels first."""
    limits = np.iinfo(y_zero.dtype)
    channels = np.broadcast_to(np.float32(scale), sums.shape[1]).reshape(-1, *[1] * (sums.ndim - 2))
    scaled = sums.astype(np.int32).astype(np.float32) * channels
    return np.clip(np.rint(scaled) + y_zero.astype(np.int32), limits.min, limits.max).astype(y_zero.dtype)


def nhwc(x, w):
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)), np.ascontiguousarray(np.moveaxis(w, (1, 0), (-2, -1)))


# What every algorithm of integers promises


def arrays(problem: Problem, zero_points: bool = True):
    """x, weight, bias and Quantization, of numbers from the whole range."""
    rng, kinds = seed(problem), types(problem.dtype)
    x, w, bias = draw(rng, problem.x_shape, kinds.x), draw(rng, problem.weight_shape, kinds.weight), rng.integers(-(10**6), 10**6, problem.oc)
    w_zero = draw(rng, problem.oc, kinds.weight) if zero_points else np.zeros(problem.oc)
    q = Quantization(int(draw(rng, (), kinds.x)) if zero_points else 0, w_zero.astype(np.int32))
    if problem.dtype[4:] != "s32":
        root = 73 * 73 * problem.k**0.5  # the sums' standard deviation, or so
        q = q._replace(scale=rng.uniform(20 / root, 200 / root, problem.oc).astype(np.float32), y_zero_point=int(draw(rng, (), kinds.y)))
    return x, w, bias.astype(np.int32), q


def run(plan, data, threads=1):
    x, w, bias, q = data
    out = np.full(plan.problem.y_shape, 77, types(plan.problem.dtype).y)
    plan.run(x, plan.pack(w, bias, q), None, out, threads)
    return out


VOLUMES = [Problem.parse(f"{spec}_f32_ncdhw") for spec in (
    "n2_ic5_id4_ih5_iw6_oc7_kd3_kh3_kw3_s1_p1_d1_g1",
    "n1_ic8_id5_ih7_iw20_oc20_kd2_kh1_kw1_s2x1x1_p2x0x0_d3x1x1_g2",
    "n1_ic16_id3_ih8_iw8_oc40_kd1_kh1_kw1_s1_p0_d1_g1",
    "n1_ic64_id3_ih4_iw4_oc64_kd3_kh3_kw3_s1_p0_d1_g1",
    "n1_ic3_id9_ih9_iw9_oc4_kd3_kh2_kw1_s3x2x1_p4x0x1_d1_g1",
)]  # fmt: skip
"""With padding only before and behind, without any, and more of it than taps."""


WIDE = [Problem.parse(f"{spec}_f32_nchw") for spec in (
    "n2_ic80_ih5_iw7_oc80_kh3_kw3_s1_p1_d1_g80",
    "n1_ic160_ih9_iw4_oc160_kh5_kw5_s2_p2_d1_g160",
    "n1_ic112_ih4_iw1_oc112_kh3_kw1_s1_p1x1x0x0_d1_g112",
    "n2_ic33_ih9_iw40_oc33_kh2_kw4_s1x3_p0_d1x2_g33",
    "n1_ic65_ih70_iw70_oc65_kh7_kw7_s1_p3_d1_g65",
    "n1_ic3_ih20_iw37_oc70_kh3_kw3_s2_p1_d1_g1",
    "n1_ic20_ih9_iw16_oc130_kh1_kw1_s1_p0_d1_g1",
)]  # fmt: skip
"""Channels and pixels that fill vectors of bytes, and half ones, and leave some over; planes of several bands."""


def each(problems):
    cases = [(a, p, cpu) for p in problems for a in INTEGERS for cpu in INTEGER_CPUS if a.supports(p, cpu) is None]
    return pytest.mark.parametrize(("algorithm", "problem", "cpu"), cases, ids=case_id)


def mixed(problems):
    """All problems, the mixes of types taking turns."""
    return [replace(p, dtype=INTEGER_DTYPES[i % len(INTEGER_DTYPES)]) for i, p in enumerate(problems)]


@each(mixed(both_layouts([*PROBLEMS, *VOLUMES, *WIDE])))
def test_every_shape(algorithm, problem, cpu):
    plan, data = algorithm.build(problem, cpu), arrays(problem)
    expected = reference.integers(problem, *data)
    for threads in (1, 3):
        np.testing.assert_array_equal(run(plan, data, threads), expected)


@each([replace(p, dtype=dtype) for p in both_layouts(FEW) for dtype in INTEGER_DTYPES])
@pytest.mark.parametrize("zero_points", [False, True])
def test_every_mix(algorithm, problem, cpu, zero_points):
    data = arrays(problem, zero_points)
    np.testing.assert_array_equal(run(algorithm.build(problem, cpu), data), reference.integers(problem, *data))


SOME = [Problem.parse(f"{spec}_f32_nchw") for spec in ("n1_ic9_ih5_iw7_oc64_kh1_kw1_s1_p0_d1_g1", "n1_ic72_ih6_iw9_oc72_kh3_kw3_s1_p1_d1_g72")]


@each([replace(p, dtype=dtype) for p in both_layouts(SOME) for dtype in INTEGER_DTYPES if dtype[4:] != "s32"])
@pytest.mark.parametrize("scale", [0.999, 1.0, 3e4, 1e20])
@pytest.mark.parametrize("zero_points", [False, True])
def test_what_is_beyond_int32_saturates(algorithm, problem, cpu, scale, zero_points):
    x, w, bias, q = arrays(problem, zero_points)
    data = x, w, bias, q._replace(scale=q.scale / q.scale.max() * np.float32(scale))
    np.testing.assert_array_equal(run(algorithm.build(problem, cpu), data), reference.integers(problem, *data))


@each(mixed(both_layouts([*WIDE, *VOLUMES, *PROBLEMS])))
def test_the_packed_weight_serves_every_image_that_it_says(algorithm, problem, cpu):
    plan, (_, w, bias, q) = algorithm.build(problem, cpu), arrays(problem)
    packed = {plan.weight_format: plan.pack(w, bias, q)}
    for other in other_images(problem):
        plan = algorithm.build(other, cpu)
        if plan.weight_format in packed:
            x, out = arrays(other)[0], np.full(other.y_shape, 77, types(other.dtype).y)
            plan.run(x, packed[plan.weight_format], None, out, 1)
            np.testing.assert_array_equal(out, reference.integers(other, x, w, bias, q))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("taps", [258, 259])
def test_the_largest_sums_of_a_channel_are_exact(taps, layout):
    """258 products of 255 have 24 bits, as a float has; of 259, a float would lose the last."""
    x, w = np.full((1, 2, 1, taps), 255, np.uint8), np.full((2, 1, 1, taps), 255, np.uint8)
    w[1, 0, 0, 0] = 254
    if layout == "NHWC":
        x, w = nhwc(x, w)
    y = cpuconv.conv2d(x, w, groups=2, layout=layout)
    assert y.ravel().tolist() == [taps * 255 * 255, taps * 255 * 255 - 255]


def test_one_layer_at_every_width():
    """What a layer keeps for one image serves the next."""
    rng = np.random.default_rng(5)
    w = draw(rng, (3, 3, 1, 96), "int8")
    layer = quantized.Conv2d(w, 0.5, 128, 0.25, 0, 0.5, np.uint8(10), padding=1, groups=96, layout="NHWC")
    for width in (8, 1, 8, 2, 1):
        x = draw(rng, (1, 8, width, 96), "uint8")
        sums = by_slices(np.moveaxis(x, -1, 1), np.moveaxis(w, (-1, -2), (0, 1)), 128, 0, padding=1, groups=96)
        np.testing.assert_array_equal(np.moveaxis(layer(x), -1, 1), requantized(sums, 0.25, np.uint8(10)))


@each(mixed(both_layouts([*WIDE, *PROBLEMS])))
@pytest.mark.skipif(mprotect is None, reason="no mprotect on this system")
@pytest.mark.parametrize("at_end", [True, False], ids=["fence after", "fence before"])
def test_stays_inside_its_arrays(algorithm, problem, cpu, at_end):
    plan, (x, w, bias, q) = algorithm.build(problem, cpu), arrays(problem)
    out = Fenced(problem.y_shape, types(problem.dtype).y, at_end).array
    plan.run(fenced(x, at_end), plan.pack(w, bias, q), None, out, 1)
    np.testing.assert_array_equal(out, reference.integers(problem, x, w, bias, q))


@each([replace(p, dtype="u8s8s32") for p in both_layouts(PROBLEMS)])
def test_the_estimate_makes_sense(algorithm, problem, cpu):
    cost = algorithm.estimate(problem, cpu)
    assert 0 < cost.seconds < 10 and 0 < cost.pack_seconds < 10
    assert cost.workspace > 0 and cost.packed > 0 and cost.error == 0
    assert algorithm.build(problem, cpu).cost == cost


def test_floating_algorithms_say_why_not():
    text = cpuconv.explain("n1_ic8_ih9_iw9_oc8_kh3_kw3_s1_p1_d1_g1_u8s8s32_nchw")
    assert "*  int8_gemm" in text and "floating point" in text
    assert "8-bit integers" in cpuconv.explain("n1_ic8_ih9_iw9_oc8_kh3_kw3_s1_p1_d1_g1_f32_nchw")


# The public functions


GRID = [
    ((3, 3), (1, 1), (1, 1), (1, 1), 1), ((1, 1), (1, 1), (0, 0), (1, 1), 1), ((2, 5), (3, 1), (2, 3), (1, 1), 2),
    ((3, 3), (2, 2), (1, 1), (1, 1), 6), ((3, 2), (1, 2), (4, 0), (2, 3), 3), ((7, 7), (2, 2), (3, 3), (1, 1), 1),
    ((5,), (2,), (3,), (2,), 1), ((1,), (1,), (0,), (1,), 2), ((3,), (1,), (1,), (1,), 6),
    ((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1), ((3, 2, 1), (2, 1, 2), (2, 0, 1), (2, 3, 1), 2), ((1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1),
    ((2, 3, 3), (1, 2, 1), (3, 1, 0), (1, 1, 2), 6),
]  # fmt: skip
SIZES = {1: (61,), 2: (17, 19), 3: (7, 8, 9)}
LAYOUTS = {1: ("NCL", "NLC"), 2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize(("xt", "wt"), MIXES)
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "groups"), GRID, ids=str)
def test_against_slices(kernel, stride, padding, dilation, groups, xt, wt, last):
    rng, rank = np.random.default_rng(1), len(kernel)
    x, w, bias = draw(rng, (2, 6, *SIZES[rank]), xt), draw(rng, (12, 6 // groups, *kernel), wt), rng.integers(-9999, 9999, 12).astype(np.int32)
    x_zero, w_zero, y_zero = int(draw(rng, (), xt)), draw(rng, 12, wt), draw(rng, (), wt)
    w_scale = rng.uniform(0.1, 1, 12)
    sums = by_slices(x, w, x_zero, w_zero, stride, padding, dilation, groups)
    scale = np.float32(0.25) * w_scale.astype(np.float32) / np.float32(31)
    expected = requantized(sums + bias.reshape(-1, *[1] * rank), scale, y_zero)
    a, b = nhwc(x, w) if last else (x, w)
    where = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "layout": LAYOUTS[rank][last]}

    def check(y, wanted, dtype):
        assert y.dtype == dtype
        np.testing.assert_array_equal(np.moveaxis(y, -1, 1) if last else y, wanted)

    plain, int32, conv = (getattr(module, f"conv{rank}d{end}") for module, end in ((cpuconv, ""), (quantized, "_int32"), (quantized, "")))
    check(plain(a, b, **where), by_slices(x, w, 0, 0, stride, padding, dilation, groups), np.int32)
    check(int32(a, b, x_zero, w_zero, **where), sums, np.int32)
    check(getattr(quantized, f"Conv{rank}dInt32")(b, x_zero, w_zero, **where)(a), sums, np.int32)
    check(conv(a, 0.25, x_zero, b, w_scale, w_zero, 31, y_zero, bias, **where), expected, wt)
    check(getattr(quantized, f"Conv{rank}d")(b, 0.25, x_zero, w_scale, w_zero, 31, y_zero, bias, **where)(a), expected, wt)


@pytest.mark.parametrize("function", [cpuconv.conv_transpose2d, lambda x, w: cpuconv.grad.conv2d_input((1, 4, 7, 7), w, x[:, :1].repeat(6, 1))])
def test_integers_go_forward_only(function):
    with pytest.raises(ValueError, match=r"^x, weight: integers \(u8s8s32\).*astype"):
        function(X, W.transpose(1, 0, 2, 3) if function is cpuconv.conv_transpose2d else W)


@pytest.mark.parametrize(("xt", "wt"), MIXES)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_against_torch(xt, wt, layout):
    """At the size of real layers. Sums of float64 are exact."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(2)
    for shape, oc, kernel, pad in [((1, 256, 14, 14), 256, 3, 1), ((1, 64, 56, 56), 200, 1, 0), ((1, 3, 64, 64), 64, 7, 3)]:
        x, w = draw(rng, shape, xt), draw(rng, (oc, shape[1], kernel, kernel), wt)
        x_zero = int(draw(rng, (), xt))
        doubles = torch.from_numpy(x.astype(np.float64) - x_zero), torch.from_numpy(w.astype(np.float64))
        expected = torch.nn.functional.conv2d(*doubles, padding=pad).numpy()
        operands = (x, w) if layout == "NCHW" else nhwc(x, w)
        y = quantized.conv2d_int32(*operands, x_zero, padding=pad, layout=layout)
        np.testing.assert_array_equal(y if layout == "NCHW" else y.transpose(0, 3, 1, 2), expected)


def imported(name: str):
    """A module; where it is missing, or does not fit the installed protobuf, the test is skipped."""
    try:
        return importlib.import_module(name)
    except Exception as e:
        pytest.skip(f"{name} cannot be imported: {e}")


@pytest.mark.parametrize(("xt", "wt"), MIXES)
@pytest.mark.parametrize("per_channel", [False, True])
def test_against_onnx_runtime(xt, wt, per_channel):
    onnx, runtime = imported("onnx"), imported("onnxruntime")
    if (xt, wt) == ("int8", "uint8"):
        pytest.skip("ONNX Runtime has no kernel for it")
    rng = np.random.default_rng(3)
    x, w = draw(rng, (2, 6, 13, 11), xt), draw(rng, (8, 3, 3, 3), wt)
    if wt == "int8":  # of 7 bits: without VNNI, ONNX Runtime adds two products in 16 bits, which saturate
        w //= 2
    w_zero = draw(rng, 8 if per_channel else (), wt) if wt == "uint8" and not per_channel else np.zeros(8 if per_channel else (), wt)
    scales = {"x": np.float32(0.037), "w": rng.uniform(0.01, 0.1, 8 if per_channel else ()).astype(np.float32), "y": np.float32(0.41)}
    x_zero, y_zero, bias = draw(rng, (), xt), draw(rng, (), xt), rng.integers(-3000, 3000, 8).astype(np.int32)
    constants = {"xs": scales["x"], "xz": x_zero, "w": w, "ws": scales["w"], "wz": w_zero, "ys": scales["y"], "yz": y_zero, "b": bias}
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    where = {"strides": [2, 1], "pads": [1, 2, 1, 2], "group": 2}
    node = helper.make_node("QLinearConv", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"], ["y"], **where)
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", kind, x.shape)], [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    expected = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    result = quantized.conv2d(x, scales["x"], x_zero, w, scales["w"], w_zero, scales["y"], y_zero, bias, (2, 1), (1, 2), groups=2)
    np.testing.assert_array_equal(result, expected)
    assert len(np.unique(result)) > 10


def test_against_the_evaluator_of_onnx():
    onnx, evaluator = imported("onnx"), imported("onnx.reference").ReferenceEvaluator
    rng = np.random.default_rng(4)
    x, w = draw(rng, (1, 4, 9, 8), "uint8"), draw(rng, (5, 4, 3, 2), "uint8")
    node = onnx.helper.make_node("ConvInteger", ["x", "w", "xz", "wz"], ["y"], strides=[1, 2], pads=[1, 0, 1, 0], dilations=[2, 1])
    expected = evaluator(node).run(None, {"x": x, "w": w, "xz": np.uint8(200), "wz": np.uint8(3)})[0]
    result = quantized.conv2d_int32(x, w, 200, 3, stride=(1, 2), padding=(1, 0), dilation=(2, 1))
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("y_zero", [np.int8(0), np.int8(-100), np.uint8(0), np.uint8(201)])
def test_rounding_and_saturation(y_zero, layout):
    """Sums -300 ... 300 halved: every tie, and both ends."""
    x, w = np.ones((1, 1, 1, 1), np.uint8), np.zeros((601, 1, 1, 1), np.int8)
    sums = np.arange(-300, 301, dtype=np.int32)
    result = quantized.conv2d(*((x,) if layout == "NCHW" else nhwc(x, w)[:1]), 1, 0, w if layout == "NCHW" else nhwc(x, w)[1],
                              0.5, 0, 1, y_zero, sums, layout=layout)  # fmt: skip
    limits = np.iinfo(y_zero.dtype)
    expected = [min(max(round(int(s) / 2) + int(y_zero), limits.min), limits.max) for s in sums]  # Python, too, rounds half to even
    assert result.ravel().tolist() == expected


def test_large_sums_become_floats_as_onnx_runtime_does():
    bias = np.array([2**31 - 1, -(2**31), 2**24 + 1, -(2**24) - 1], np.int32)
    x, w = np.zeros((1, 1, 1), np.uint8), np.zeros((4, 1, 1, 1), np.int8)
    result = quantized.conv2d(x, 1, 0, w, [2.0**-25, 2.0**-25, 2.0**-18, 2.0**-18], 0, 1, np.int8(0), bias)
    assert result.ravel().tolist() == [64, -64, 64, -64]


@pytest.mark.parametrize(("xt", "wt"), MIXES)
def test_sums_wrap_round(xt, wt):
    """35,000 of the largest products, more than int32 holds for u8 x u8."""
    x, w = np.full((1, 35_000, 1, 1), np.iinfo(xt).max, xt), np.full((1, 35_000, 1, 1), np.iinfo(wt).max, wt)
    exact = 35_000 * int(np.iinfo(xt).max) * int(np.iinfo(wt).max)
    for operands, layout in ((x, w), "NCHW"), (nhwc(x, w), "NHWC"):
        assert cpuconv.conv2d(*operands, layout=layout).ravel() == np.int64(exact).astype(np.int32)
    bias = np.array([2**31 - 1], np.int32)
    assert cpuconv.conv2d(x[:, :1], w[:, :1], bias).ravel() == np.int64(2**31 - 1 + exact // 35_000).astype(np.int32)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_plain_conv2d_pads_as_always(mode):
    rng = np.random.default_rng(5)
    x, w = draw(rng, (1, 3, 7, 8), np.uint8), draw(rng, (4, 3, 3, 3), np.int8)
    result = cpuconv.conv2d(x, w, padding=2, padding_mode=mode)
    expected = cpuconv.conv2d(x.astype(np.float64), w.astype(np.float64), padding=2, padding_mode=mode)
    assert result.dtype == np.int32
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(("xt", "wt", "bias", "wanted"), [
    ("int8", "float32", None, "float32"), ("float64", "uint8", None, "float64"), ("uint8", "float16", None, "float16"),
    ("int8", "uint8", "int32", "int32"), ("int8", "int8", "uint8", "int32"), ("int8", "int8", "float32", "float32"),
    ("uint8", "int8", "float64", "float64"),
])  # fmt: skip
def test_promotion(xt, wt, bias, wanted):
    x, w = np.ones((1, 2, 4, 4), xt), np.ones((3, 2, 2, 2), wt)
    y = cpuconv.conv2d(x, w, None if bias is None else np.ones(3, bias))
    assert y.dtype == wanted
    assert (y == (8 if bias is None else 9)).all()


def test_layers_serve_every_type_and_shape():
    conv = quantized.Conv2dInt32(np.full((2, 3, 3, 3), 2, np.int8), x_zero_point=5, padding=1)
    for shape, dtype in ((1, 3, 5, 5), np.uint8), ((2, 3, 4, 6), np.int8), ((3, 4, 4), np.uint8), ((0, 3, 4, 4), np.int8):
        x = np.full(shape, 6, dtype)
        y = conv(x)
        assert y.shape == (*x.shape[:-3], 2, *x.shape[-2:])
        assert (y[..., 1:-1, 1:-1] == 54).all()
        out = np.zeros(y.shape, np.int32)
        assert conv(x, out) is out and (out == y).all()
    pointwise = quantized.Conv2dInt32(np.arange(-12, 12, dtype=np.int8).reshape(4, 6, 1, 1), w_zero_point=3)
    for size in (1, 16, 7):  # whose packed weights differ
        x = np.arange(6 * size * size, dtype=np.uint8).reshape(1, 6, size, size)
        np.testing.assert_array_equal(pointwise(x), by_slices(x, pointwise._layer.weight, 0, 3))
    plain = cpuconv.Conv2d(np.full((2, 3, 3, 3), 2, np.int8))
    assert plain(np.ones((1, 3, 4, 4), np.int8)).dtype == np.int32
    assert plain(np.ones((1, 3, 4, 4), np.float32)).dtype == np.float32
    assert "int8_gemm" in conv.explain((1, 3, 8, 8)) and "u8s8s32" in conv.explain((1, 3, 8, 8))
    assert repr(conv).startswith("quantized.Conv2dInt32(3, 2, kernel_size=(3, 3)")


X, W, BIAS = np.ones((1, 4, 5, 5), np.uint8), np.ones((6, 4, 3, 3), np.int8), np.ones(6, np.int32)
NAN = float("nan")
MISTAKES = [
    ({"x": X.astype(np.float32)}, TypeError, "x", "float32", "int8 or uint8"),
    ({"x": X.astype(np.int16)}, TypeError, "x", "int16"),
    ({"x": X[0, 0]}, ValueError, "x", "(5, 5)"),
    ({"x": X[:, :3]}, ValueError, "x", "3 channels"),
    ({"weight": W.astype(np.float32)}, TypeError, "weight", "float32", "int8 or uint8"),
    ({"weight": W[0]}, ValueError, "weight", "(4, 3, 3)"),
    ({"x_zero_point": 256}, ValueError, "x_zero_point", "256", "uint8, 0 to 255"),
    ({"x_zero_point": np.int8(-1)}, ValueError, "x_zero_point", "-1"),
    ({"x_zero_point": 1.0}, TypeError, "x_zero_point", "1.0"),
    ({"w_zero_point": 128}, ValueError, "w_zero_point", "128", "int8, -128 to 127"),
    ({"w_zero_point": [0] * 5}, ValueError, "w_zero_point", "(5,)", "(6,)"),
    ({"w_zero_point": [0.0] * 6}, TypeError, "w_zero_point", "int"),
    ({"w_zero_point": [0] * 5 + [-129]}, ValueError, "w_zero_point", "-129"),
    ({"x_scale": 0}, ValueError, "x_scale", "0", "over 0"),
    ({"x_scale": -0.5}, ValueError, "x_scale", "-0.5"),
    ({"x_scale": NAN}, ValueError, "x_scale", "nan"),
    ({"x_scale": "1"}, TypeError, "x_scale", "'1'"),
    ({"x_scale": [1.0, 1.0]}, ValueError, "x_scale", "(2,)"),
    ({"w_scale": float("inf")}, ValueError, "w_scale", "inf"),
    ({"w_scale": 1e39}, ValueError, "w_scale", "1e+39"),
    ({"w_scale": [1.0] * 5 + [0.0]}, ValueError, "w_scale"),
    ({"w_scale": np.ones((6, 1))}, ValueError, "w_scale", "(6, 1)"),
    ({"y_scale": 0.0}, ValueError, "y_scale"),
    ({"x_scale": 1e30, "w_scale": 1e30}, ValueError, "x_scale, w_scale, y_scale", "finite"),
    ({"x_scale": 1e-30, "w_scale": 1e-30}, ValueError, "x_scale, w_scale, y_scale", "over 0"),
    ({"y_zero_point": 3}, TypeError, "y_zero_point", "3", "int8 or uint8"),
    ({"y_zero_point": np.int32(3)}, TypeError, "y_zero_point"),
    ({"y_zero_point": np.zeros(2, np.int8)}, TypeError, "y_zero_point"),
    ({"bias": BIAS.astype(np.float32)}, TypeError, "bias", "float32", "int32"),
    ({"bias": BIAS[:5]}, ValueError, "bias", "(5,)", "(6,)"),
    ({"stride": 0}, ValueError, "stride", "0"),
    ({"padding": -1}, ValueError, "padding", "-1"),
    ({"layout": "HWCN"}, ValueError, "layout", "'HWCN'"),
    ({"algorithm": "winograd"}, ValueError, "winograd", "floating point"),
    ({"workspace_limit": -1}, ValueError, "workspace_limit", "-1"),
]


@pytest.mark.parametrize(("change", "error", "name", "words"), [(c, e, n, w) for c, e, n, *w in MISTAKES], ids=lambda v: str(v)[:40])
def test_mistakes(change, error, name, words):
    out = np.full((1, 6, 3, 3), 77, np.uint8)
    correct = {"x": X, "x_scale": 1.0, "x_zero_point": 0, "weight": W, "w_scale": 1.0, "w_zero_point": 0, "y_scale": 1.0, "y_zero_point": np.uint8(0)}
    quantized.conv2d(**correct, out=out.copy())
    with pytest.raises(error) as raised:
        quantized.conv2d(**correct | change, out=out)
    assert name in str(raised.value) and all(word in str(raised.value) for word in words)
    assert (out == 77).all()


@pytest.mark.parametrize(("options", "error", "words"), [
    ({"bias": [1.5] * 6}, TypeError, ("bias", "floats")), ({"activation": "relu"}, ValueError, ("activation", "u8s8s32")),
    ({"residual": np.ones((1, 6, 3, 3), np.uint8)}, TypeError, ("residual", "uint8")), ({"bias": np.ones(6, np.int64)}, TypeError, ("bias", "int64")),
    ({"out": np.ones((1, 6, 3, 3), np.float32)}, TypeError, ("out", "int32")),
    ({"residual": [[[[1.5] * 3] * 3] * 6]}, ValueError, ("residual", "integers")),
])  # fmt: skip
def test_mistakes_of_plain_integers(options, error, words):
    with pytest.raises(error) as raised:
        cpuconv.conv2d(X, W, **options)
    assert all(word in str(raised.value) for word in words)


def test_an_int32_bias_belongs_to_integers():
    with pytest.raises(TypeError, match=r"^bias: dtype int32.*float32"):
        cpuconv.conv2d(X.astype(np.float32), W, BIAS)
