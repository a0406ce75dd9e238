"""The public functions and `Conv2d`: every form in which arguments may come, and what is promised beside the numbers."""

import gc
import inspect
import math
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest

import cpuconv
from cpuconv import Conv2d, Problem, UnsupportedError, conv2d
from oracle import FLOATING, normal, suited, with_epilogue

RNG = np.random.default_rng(2)
X = RNG.standard_normal((3, 8, 12, 11)).astype(np.float32)
W = RNG.standard_normal((6, 8, 3, 3)).astype(np.float32)
B = RNG.standard_normal(6).astype(np.float32)
Y = conv2d(X, W, B)
R = RNG.standard_normal(Y.shape).astype(np.float32)


def nhwc(a):
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1))


def hwio(w):
    return np.ascontiguousarray(w.transpose(2, 3, 1, 0))


def unaligned(a):
    raw = np.empty(a.nbytes + 1, np.uint8)
    raw[1:] = np.frombuffer(a.tobytes(), np.uint8)
    return raw[1:].view(a.dtype).reshape(a.shape)


def readonly(a):
    a = a.copy()
    a.flags.writeable = False
    return a


class HasArray:
    def __init__(self, a):
        self.a = a

    def __array__(self, dtype=None, copy=None):
        return self.a


class HasDlpack:
    def __init__(self, a):
        self.a = a

    def __dlpack__(self, **options):
        return self.a.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.a.__dlpack_device__()


FORMS = {
    "every second column": lambda a: np.repeat(a, 2, -1)[..., ::2],
    "reversed": lambda a: np.flip(np.flip(a).copy()),
    "fortran order": np.asfortranarray,
    "turned": lambda a: np.moveaxis(np.moveaxis(a, 0, -1).copy(), -1, 0),
    "inside a larger array": lambda a: np.pad(a, 3)[(slice(3, -3),) * a.ndim],
    "unaligned": unaligned,
    "read-only": readonly,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "subclass": lambda a: a.view(np.memmap),
    "__array__": HasArray,
    "__dlpack__": HasDlpack,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("name", ["x", "weight", "bias", "residual"])
@pytest.mark.parametrize("algorithm", [a.name for a in FLOATING])
def test_forms_of_arrays(form, name, algorithm):
    p = suited(algorithm, with_epilogue(Problem.parse("n3_ic8_ih12_iw11_oc6_kh3_kw3_s1_p0_d1_g1_f32_nchw")))
    arrays = normal(p)._asdict()
    options = {"stride": p.stride, "groups": p.groups, "algorithm": algorithm}
    plain = conv2d(**arrays, **options)
    result = conv2d(**arrays | {name: form(arrays[name])}, **options)
    assert type(result) is np.ndarray and result.dtype == np.float32 and result.dtype.isnative
    np.testing.assert_array_equal(result, plain)


def test_lists():
    result = conv2d([[[1.0, 2.0], [3.0, 4.0]]], [[[[1.0, 0.0], [0.0, 1.0]]]], [0.5])
    np.testing.assert_array_equal(result, [[[5.5]]])
    assert result.dtype == np.float64


def test_a_list_as_bias_takes_no_part_in_promotion():
    assert conv2d(X, W, B.tolist()).dtype == np.float32


DTYPES = ["float16", "bfloat16", "float32", "float64"]


@pytest.mark.parametrize("xt", DTYPES)
@pytest.mark.parametrize("wt", DTYPES)
def test_dtypes_promote(xt, wt):
    pytest.importorskip("ml_dtypes")  # makes the name bfloat16 known
    x, w = X.astype(xt), W.astype(wt)
    if {xt, wt} == {"float16", "bfloat16"}:
        with pytest.raises(TypeError, match=f"x, weight.*{xt}, {wt} have no common type"):
            conv2d(x, w)
        return
    result = conv2d(x, w, activation="relu")
    wanted = max(xt, wt, key=lambda t: np.dtype(t).itemsize)
    assert result.dtype == wanted
    exact = conv2d(x.astype(np.float64), w.astype(np.float64), activation="relu")
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 1e-6, "float64": 1e-15}[wanted]
    # one rounding at the end: float16 and bfloat16 are accumulated in float32, with the default accuracy
    accuracy = 1e-5 if unit > 1e-14 else 1e-13
    np.testing.assert_allclose(result.astype(np.float64), exact, rtol=unit, atol=accuracy * np.abs(exact).max())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_everywhere(dtype):
    pytest.importorskip("ml_dtypes")
    x, w, b, r = (a.astype(dtype) for a in (X, W, B, R))
    out = np.empty(Y.shape, dtype)
    assert Conv2d(w, b)(x, r, out) is out
    exact = conv2d(*(a.astype(np.float64) for a in (x, w, b)), residual=r.astype(np.float64))
    np.testing.assert_allclose(out.astype(np.float64), exact, rtol=2.0 ** (-11 if dtype == "float16" else -8), atol=1e-5 * np.abs(exact).max())


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_unbatched(layout):
    x, w, y, r = (X, W, Y, R) if layout == "NCHW" else (nhwc(X), hwio(W), nhwc(Y), nhwc(R))
    one = conv2d(x[1], w, B, layout=layout)
    assert one.shape == y.shape[1:]
    np.testing.assert_array_equal(one, conv2d(x, w, B, layout=layout)[1])
    out = np.empty_like(one)
    assert conv2d(x[1], w, B, layout=layout, residual=r[1], out=out) is out
    np.testing.assert_array_equal(out, conv2d(x, w, B, layout=layout, residual=r)[1])


@pytest.mark.parametrize(
    "view",
    [lambda a: a, lambda a: np.repeat(a, 2, -1)[..., ::2], np.asfortranarray, lambda a: np.flip(a), unaligned],
    ids=["contiguous", "strided", "fortran", "reversed", "unaligned"],
)
@pytest.mark.parametrize("residual", [None, R], ids=["alone", "residual"])
def test_out(view, residual):
    out = view(np.full(Y.shape, 9, np.float32))
    assert conv2d(X, W, B, residual=residual, out=out) is out
    np.testing.assert_array_equal(out, conv2d(X, W, B, residual=residual))


@pytest.mark.parametrize("algorithm", ["auto", "implicit_gemm", "reference", "winograd", "im2col", "direct"])
@pytest.mark.parametrize("out_of", [lambda r: r, lambda r: r[::-1], lambda r: r.T.copy().T], ids=["same", "reversed", "copy"])
def test_residual_may_overlap_out(algorithm, out_of):
    y = R.copy()
    out = out_of(y)
    conv2d(X, W, B, residual=y, out=out, activation="tanh", algorithm=algorithm)
    np.testing.assert_array_equal(out, conv2d(X, W, B, residual=R, activation="tanh", algorithm=algorithm))


@pytest.mark.parametrize("shift", [1, 37, -37])
def test_residual_and_out_may_be_shifted_views(shift):
    memory = np.zeros(R.size + abs(shift), np.float32)
    first, second = memory[: R.size].reshape(R.shape), memory[abs(shift) :].reshape(R.shape)
    residual, out = (first, second) if shift > 0 else (second, first)
    residual[...] = R
    conv2d(X, W, B, residual=residual, out=out)
    np.testing.assert_array_equal(out, conv2d(X, W, B, residual=R))


def test_an_accumulating_loop():
    """The idiom that overlap is for: y += conv(x)."""
    conv, y = Conv2d(W), np.zeros_like(Y)
    for _ in range(3):
        conv(X, residual=y, out=y)
    np.testing.assert_allclose(y, 3 * conv(X), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("n", [0, 1])
def test_empty_batch(n):
    assert conv2d(X[:n], W, B, activation="gelu").shape == (n, *Y.shape[1:])
    assert conv2d(nhwc(X[:n]), hwio(W), layout="NHWC", padding_mode="reflect", padding=1).shape == (n, 12, 11, 6)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [1, (2, 0), ((0, 3), (1, 2)), "same", "same_lower", "valid"], ids=str)
def test_padding_modes_are_those_of_numpy(layout, mode, padding):
    widths = {1: (1, 1, 1, 1), (2, 0): (2, 2, 0, 0), ((0, 3), (1, 2)): (0, 3, 1, 2), "same": (1, 1, 0, 1), "same_lower": (1, 1, 1, 0)}
    top, bottom, left, right = widths.get(padding, (0, 0, 0, 0))
    weight = W[:, :, :, :2].copy()
    padded = np.pad(X, ((0, 0), (0, 0), (top, bottom), (left, right)), {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode])
    turn = (lambda a: a, lambda a: a) if layout == "NCHW" else (nhwc, hwio)
    result = conv2d(turn[0](X), turn[1](weight), padding=padding, padding_mode=mode, layout=layout)
    np.testing.assert_array_equal(result, conv2d(turn[0](padded), turn[1](weight), layout=layout))


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("dilation", [1, 2])
def test_same_padding_gives_ceil_of_size_over_stride(size, kernel, stride, dilation):
    shapes = ((1, 1, size, size), (1, 1, kernel, kernel))
    for name in ("same", "same_lower"):
        assert cpuconv.output_shape(*shapes, stride, name, dilation)[2:] == (math.ceil(size / stride),) * 2
    reach = (math.ceil(size / stride) - 1) * stride + (kernel - 1) * dilation + 1
    if reach >= size:  # else nothing is padded, and the pixels left over are at the end in both
        x, w = np.arange(size**2, dtype=np.float32).reshape(1, size, size), np.arange(kernel**2, dtype=np.float32).reshape(1, 1, kernel, kernel)
        upper = conv2d(x, w, None, stride, "same", dilation)
        lower = conv2d(x[:, ::-1, ::-1], w[:, :, ::-1, ::-1], None, stride, "same_lower", dilation)
        np.testing.assert_array_equal(upper, lower[:, ::-1, ::-1])


def test_same_puts_the_odd_pixel_at_the_end():
    x, w = np.float32([[[1, 2]]]), np.float32([[[[1, 10]]]])
    np.testing.assert_array_equal(conv2d(x, w, padding="same"), [[[21, 2]]])
    np.testing.assert_array_equal(conv2d(x, w, padding="same_lower"), [[[10, 21]]])


def clip_at_three(v):
    return min(v, 3.0)


def test_a_python_function_as_activation():
    np.testing.assert_allclose(conv2d(X, W, B, activation=clip_at_three), np.minimum(conv2d(X, W, B), 3), rtol=1e-5, atol=1e-4)
    conv = Conv2d(W, B, activation=clip_at_three)
    np.testing.assert_allclose(conv(X.astype(np.float64)), np.minimum(conv2d(X.astype(np.float64), W, B), 3), rtol=1e-9, atol=1e-11)


def test_positional_arguments_are_those_of_torch():
    names = ["x", "weight", "bias", "stride", "padding", "dilation", "groups"]
    for function, first in ((conv2d, names), (Conv2d, names[1:])):
        parameters = inspect.signature(function).parameters.values()
        assert [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD] == first
    keywords = [p.name for p in inspect.signature(conv2d).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert keywords == ["layout", "padding_mode", "activation", "residual", "algorithm", "accuracy", "workspace_limit", "out"]


def test_a_layer_is_the_function():
    options = {"activation": "silu", "algorithm": "implicit_gemm"}  # of its own accord either may take another, for one of them packing counts
    conv = Conv2d(W, B, 2, "same", 1, 1, **options)
    np.testing.assert_array_equal(conv(X), conv2d(X, W, B, 2, "same", **options))
    np.testing.assert_array_equal(conv(X[:, :, :7, :5]), conv2d(X[:, :, :7, :5], W, B, 2, "same", **options))
    assert repr(conv) == "Conv2d(8, 6, kernel_size=(3, 3), stride=(2, 2), padding='same', dilation=(1, 1), groups=1, bias=True, layout='NCHW')"
    assert (conv.in_channels, conv.out_channels) == (8, 6)


@pytest.mark.parametrize("algorithm", ["auto", "reference", "implicit_gemm", "winograd", "im2col", "direct"])
def test_a_layer_keeps_its_own_weights(algorithm):
    w, b = W.copy(), B.copy()
    conv = Conv2d(w, b, algorithm=algorithm)
    before = conv(X)
    w[:], b[:] = 0, 0
    np.testing.assert_array_equal(conv(X), before)
    np.testing.assert_array_equal(conv(X[:1]), before[:1])
    np.testing.assert_array_equal(Conv2d(W, B, algorithm=algorithm)(X), before)


def test_results_are_fresh_arrays():
    conv = Conv2d(W)
    first = conv(X)
    kept = first.copy()
    second = conv(-X)
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, kept)


def test_inputs_are_not_changed():
    x, w, b, r = X.copy(), W.copy(), B.copy(), R.copy()
    conv2d(x, w, b, residual=r, activation="relu")
    for a, original in ((x, X), (w, W), (b, B), (r, R)):
        np.testing.assert_array_equal(a, original)


def test_strict_takes_no_winograd():
    assert "*  winograd" not in Conv2d(W, accuracy="strict").explain((1, 8, 64, 64))
    with pytest.raises(UnsupportedError, match="strict"):
        conv2d(X, W, accuracy="strict", algorithm="winograd")


def test_algorithms():
    names = cpuconv.algorithms()
    assert {"direct", "im2col", "implicit_gemm", "winograd_f2x3", "winograd_f4x3", "winograd_f6x3", "depthwise", "reference"} <= set(names)
    assert len(set(names)) == len(names)


def test_explain():
    text = Conv2d(W, B, activation="relu").explain(X.shape)
    spec, *rows = text.splitlines()
    assert str(Problem.parse(spec.split(": ")[0])) == "n3_ic8_ih12_iw11_oc6_kh3_kw3_s1_p0_d1_g1_f32_nchw_bias_act:clip(0.0,inf)"
    assert sum(row.startswith("*") for row in rows) == 1
    for name in cpuconv.algorithms():
        assert sum(name in row.split()[:2] for row in rows) == 1
    assert "only" in cpuconv.explain(Problem.parse("n1_ic8_ih9_iw9_oc8_kh3_kw3_s1_p0_d1_g1_f32_nhwc"), accuracy="strict")
    with pytest.raises(ValueError, match="spec: 'nonsense'"):
        cpuconv.explain("nonsense")


def test_show_config(capsys):
    cpuconv.show_config()
    text = capsys.readouterr().out
    for word in ("cpuconv", cpuconv.__version__, "isa", "cores", "threads", "l2", "numba", "blas"):
        assert word in text


def test_weights_of_dead_layers_are_freed():
    """Neither the plan cache nor anything else keeps a layer's packed weight alive."""
    conv = Conv2d(W)
    conv(X)
    packed = [weakref.ref(conv.weight), *(weakref.ref(array) for value in conv._packed.values() for array in value)]
    del conv
    gc.collect()
    assert len(packed) == 3 and not any(ref() is not None for ref in packed)


@pytest.mark.parametrize("variable", ["CPUCONV_NUM_THREADS=2", "CPUCONV_NUM_THREADS=0", "CPUCONV_NUM_THREADS=many"])
def test_the_environment_sets_the_threads(variable):
    name, value = variable.split("=")
    code = "import cpuconv; print(cpuconv.get_num_threads())"
    environment = {**os.environ, name: value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if value == "2":
        assert done.stdout.strip() == "2"
    else:
        assert name in done.stderr.splitlines()[-1] and "Error" in done.stderr and done.returncode


@pytest.mark.parametrize("name", cpuconv.__all__)
def test_public_names_are_documented(name):
    value = getattr(cpuconv, name)
    if name != "__version__":
        assert inspect.getdoc(value) and len(inspect.getdoc(value)) > 40


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_calls_after_the_first_look_at_their_arguments_too(form, layout):
    """A layer keeps what it found out in the latest call; arrays of other forms, shapes and types still go their own way."""
    x, w = (X, W) if layout == "NCHW" else (nhwc(X), hwio(W))
    conv = Conv2d(w, B, layout=layout)
    y = conv(x)
    np.testing.assert_array_equal(conv(form(x)), y)
    out = np.empty_like(y)
    assert conv(x, out=out) is out
    np.testing.assert_array_equal(out, y)
    np.testing.assert_array_equal(conv(x[:1]), y[:1])
    np.testing.assert_array_equal(conv(x[0], out=out[0]), y[0])
    assert conv(x.astype(np.float64)).dtype == np.float64
    np.testing.assert_array_equal(conv(x, np.ones_like(y)), y + 1)
    conv(x, out=out)
    for wrong, exception in ((out[:1], ValueError), (out.astype(np.float64), TypeError), (readonly(out), ValueError), (out.tolist(), TypeError)):
        with pytest.raises(exception, match="out: "):
            conv(x, out=wrong)
    with pytest.raises(ValueError, match="x"):
        conv(x[..., :2])
    both = np.zeros(x.size + y.size, np.float32)
    view = both[: x.size].reshape(x.shape)
    view[:] = x
    with pytest.raises(ValueError, match="out: must not overlap x"):
        conv(view, out=both[x.size - 1 : -1].reshape(y.shape))
    np.testing.assert_array_equal(conv(view, out=both[x.size :].reshape(y.shape)), y)
    strided = np.zeros((*y.shape[:-1], 2 * y.shape[-1]), np.float32)[..., ::2]
    np.testing.assert_array_equal(conv(x, out=strided), y)


def test_layer_forgets_old_shapes():
    conv = cpuconv.Conv2d(np.ones((1, 1, 1, 1), np.float32))
    for size in range(1, 200):
        assert conv(np.ones((1, 1, 1, size), np.float32)).shape == (1, 1, 1, size)
    assert len(conv._prepared) <= 64


def test_silu_of_very_negative_numbers_is_zero():
    x = np.array([[[-3e38, -100, -1, 0, 100]]], np.float32)
    y = cpuconv.conv2d(x, np.ones((1, 1, 1, 1), np.float32), activation="silu", algorithm="implicit_gemm")
    np.testing.assert_allclose(y.ravel(), [0, 0, -0.26894142, 0, 100], atol=1e-6)


@pytest.mark.parametrize(("weight", "groups"), [((40, 24, 1, 1), 1), ((24, 1, 3, 3), 24)], ids=["1x1", "depthwise"])
def test_one_layer_serves_wide_and_narrow_images(weight, groups):
    """Their plans may want the weight packed in different forms."""
    weight = RNG.standard_normal(weight).astype(np.float32)
    conv = Conv2d(weight, groups=groups)
    for size in (32, 7, 14, 5, 9):
        x = RNG.standard_normal((1, 24, size, size)).astype(np.float32)
        expected = conv2d(x, weight, groups=groups, algorithm="reference")
        np.testing.assert_allclose(conv(x), expected, atol=1e-4)


@pytest.mark.parametrize("size", [(7, 7), (5, 10), (3, 11), (1, 66)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [(32, 9), (1040, 13)])
def test_planes_a_pixel_or_two_over_whole_vectors(size, stride, channels):
    """1x1 in NCHW: these pixels are summed apart from the others."""
    rng = np.random.default_rng(5)
    (height, width), (ic, oc) = size, channels
    x = rng.standard_normal((2, ic, stride * height, stride * width), np.float32)
    w = rng.standard_normal((oc, ic, 1, 1), np.float32) / np.float32(np.sqrt(ic))
    bias = rng.standard_normal(oc, np.float32)
    residual = rng.standard_normal((2, oc, height, width), np.float32)
    expected = np.einsum("oc,nchw->nohw", w[..., 0, 0].astype(float), x[..., ::stride, ::stride].astype(float)) + bias[:, None, None] + residual
    y = conv2d(x, w, bias, stride, residual=residual, activation="relu", algorithm="implicit_gemm")
    np.testing.assert_allclose(y, np.maximum(expected, 0), atol=1e-5)
