"""Every mistake raises ValueError or TypeError that names the argument and its value, before anything is written."""

import re

import numpy as np
import pytest

import cpuconv
from cpuconv import Conv2d, UnsupportedError, conv2d
from cpuconv.algorithms import ALGORITHMS
from cpuconv.problem import Activation
from oracle import CPUS, normal, with_epilogue
from oracle import conv2d as conv2d_of
from shapes import PROBLEMS, both_layouts

X = np.ones((2, 4, 6, 5), np.float32)
W = np.ones((6, 4, 3, 3), np.float32)
NAN = float("nan")
readonly = np.ones((2, 6, 4, 3), np.float32)
readonly.flags.writeable = False


class Unreadable:
    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("no data today")


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


# what is passed in place of a correct call's arguments; the exception; what its message must hold
MISTAKES = [
    ({"x": ones(4, 5)}, ValueError, "x", "(4, 5)", "3 or 4 axes"),
    ({"x": ones(1, 1, 4, 5, 6)}, ValueError, "x", "(1, 1, 4, 5, 6)", "3 or 4 axes"),
    ({"x": np.float32(1)}, ValueError, "x", "()"),
    ({"x": ones(2, 3, 6, 5)}, ValueError, "x", "3 channels", "(2, 3, 6, 5)", "(6, 4, 3, 3)"),
    ({"x": ones(2, 6, 5, 4)}, ValueError, "x", "6 channels"),
    ({"x": X, "layout": "NHWC"}, ValueError, "x", "5 channels", "(N, H, W, C)"),
    ({"x": ones(2, 4, 2, 5)}, ValueError, "weight", "height 3", "larger than the padded input", "2"),
    ({"x": ones(2, 4, 6, 2)}, ValueError, "weight", "width 3", "larger than the padded input", "2"),
    ({"x": ones(2, 4, 0, 5)}, ValueError, "weight", "height", "larger than the padded input"),
    ({"x": ones(2, 4, 6, 5), "dilation": 3}, ValueError, "weight", "7", "dilation 3", "larger than the padded input"),
    ({"x": X.astype(np.int32)}, TypeError, "x", "int32", "float32"),
    ({"x": X.astype(np.int64)}, TypeError, "x", "int64", "float32"),
    ({"x": X.astype(bool)}, TypeError, "x", "bool"),
    ({"x": X.astype(complex)}, TypeError, "x", "complex128"),
    ({"x": X.astype(object)}, TypeError, "x", "object"),
    ({"x": X.astype("U1")}, TypeError, "x", "<U1"),
    ({"x": X.astype(np.longdouble)}, TypeError, "x", str(np.dtype(np.longdouble))),
    ({"x": np.zeros((2, 4, 6, 5), [("a", "f4")])}, TypeError, "x", "'a'"),
    ({"x": np.zeros((2, 4, 6, 5), "M8[s]")}, TypeError, "x", "datetime64"),
    ({"x": None}, TypeError, "x", "object"),
    ({"x": "image.png"}, TypeError, "x", "<U9"),
    ({"x": [[1.0, 2.0], [3.0]]}, TypeError, "x"),
    ({"x": Unreadable()}, TypeError, "x", "Unreadable", "no data today"),
    ({"weight": ones(6, 4, 3)}, ValueError, "weight", "(6, 4, 3)", "(O, C/groups, kH, kW)"),
    ({"weight": ones(3, 3)}, ValueError, "weight", "(3, 3)"),
    ({"weight": ones(6, 4, 3, 3, 1)}, ValueError, "weight", "(6, 4, 3, 3, 1)"),
    ({"weight": ones(3, 3, 4), "layout": "NHWC"}, ValueError, "weight", "(3, 3, 4)", "(kH, kW, C/groups, O)"),
    ({"weight": ones(0, 4, 3, 3)}, ValueError, "weight", "(0, 4, 3, 3)"),
    ({"weight": ones(6, 4, 0, 3)}, ValueError, "weight", "(6, 4, 0, 3)"),
    ({"weight": ones(6, 0, 3, 3)}, ValueError, "weight", "(6, 0, 3, 3)"),
    ({"weight": W.astype(np.int16)}, TypeError, "weight", "int16"),
    ({"weight": W.astype(object)}, TypeError, "weight", "object"),
    ({"weight": None}, TypeError, "weight", "object"),
    ({"bias": ones(5)}, ValueError, "bias", "(5,)", "(6,)"),
    ({"bias": ones(6, 1)}, ValueError, "bias", "(6, 1)", "(6,)"),
    ({"bias": np.float32(1)}, ValueError, "bias", "()", "(6,)"),
    ({"bias": np.ones(6, int)}, TypeError, "bias", "int64"),
    ({"bias": "zeros"}, TypeError, "bias", "<U5"),
    ({"stride": 0}, ValueError, "stride", "0", "at least 1"),
    ({"stride": -1}, ValueError, "stride", "-1", "at least 1"),
    ({"stride": (1, 0)}, ValueError, "stride", "(1, 0)"),
    ({"stride": (1, 1, 1)}, ValueError, "stride", "(1, 1, 1)", "pair"),
    ({"stride": ()}, ValueError, "stride", "()", "pair"),
    ({"stride": 1.0}, TypeError, "stride", "1.0", "int"),
    ({"stride": (1, 2.0)}, TypeError, "stride", "2.0", "int"),
    ({"stride": NAN}, TypeError, "stride", "nan"),
    ({"stride": None}, TypeError, "stride", "None"),
    ({"stride": True}, TypeError, "stride", "True"),
    ({"stride": "2"}, TypeError, "stride", "'2'"),
    ({"dilation": 0}, ValueError, "dilation", "0", "at least 1"),
    ({"dilation": -2}, ValueError, "dilation", "-2"),
    ({"dilation": (1, 0)}, ValueError, "dilation", "(1, 0)"),
    ({"dilation": 1.5}, TypeError, "dilation", "1.5"),
    ({"dilation": NAN}, TypeError, "dilation", "nan"),
    ({"dilation": [1, 2, 3]}, ValueError, "dilation", "[1, 2, 3]"),
    ({"padding": -1}, ValueError, "padding", "-1"),
    ({"padding": (0, -1)}, ValueError, "padding", "(0, -1)"),
    ({"padding": ((0, 0), (0, -3))}, ValueError, "padding", "-3"),
    ({"padding": (1, 2, 3)}, ValueError, "padding", "(1, 2, 3)"),
    ({"padding": (1, 1, 1, 1)}, ValueError, "padding", "(1, 1, 1, 1)"),
    ({"padding": ((1, 2), 3)}, ValueError, "padding", "((1, 2), 3)"),
    ({"padding": ((1, 2, 3), (1, 1))}, ValueError, "padding", "(1, 2, 3)"),
    ({"padding": ((1, 2), (1, 1), (0, 0))}, ValueError, "padding", "((1, 2), (1, 1), (0, 0))"),
    ({"padding": ((1, 2), (1, 1.5))}, TypeError, "padding", "1.5"),
    ({"padding": "full"}, ValueError, "padding", "'full'", "same"),
    ({"padding": "SAME"}, ValueError, "padding", "'SAME'", "same"),
    ({"padding": 0.5}, TypeError, "padding", "0.5"),
    ({"padding": NAN}, TypeError, "padding", "nan"),
    ({"padding": None}, TypeError, "padding", "None"),
    ({"groups": 3}, ValueError, "x", "12", "groups=3"),
    ({"groups": 4}, ValueError, "groups", "4", "6 output channels"),
    ({"groups": 0}, ValueError, "groups", "0", "at least 1"),
    ({"groups": -2}, ValueError, "groups", "-2", "at least 1"),
    ({"groups": 1.0}, TypeError, "groups", "1.0"),
    ({"groups": NAN}, TypeError, "groups", "nan"),
    ({"groups": None}, TypeError, "groups", "None"),
    ({"layout": "NCWH"}, ValueError, "layout", "'NCWH'", "NHWC"),
    ({"layout": "nchw"}, ValueError, "layout", "'nchw'", "NCHW"),
    ({"layout": None}, ValueError, "layout", "None"),
    ({"layout": ["NCHW"]}, ValueError, "layout", "['NCHW']"),
    ({"padding_mode": "mirror"}, ValueError, "padding_mode", "'mirror'", "reflect"),
    ({"padding_mode": None}, ValueError, "padding_mode", "None"),
    ({"padding_mode": 3}, ValueError, "padding_mode", "3"),
    ({"padding_mode": "reflect", "padding": 6}, ValueError, "padding", "6", "reflect"),
    ({"padding_mode": "circular", "padding": (0, 6)}, ValueError, "padding", "6", "circular"),
    ({"activation": "swish"}, ValueError, "activation", "'swish'", "silu"),
    ({"activation": "ReLU"}, ValueError, "activation", "'ReLU'", "relu"),
    ({"activation": 7}, ValueError, "activation", "7"),
    ({"activation": ()}, ValueError, "activation", "()"),
    ({"activation": "leaky_relu"}, ValueError, "activation", "'leaky_relu'", "1 parameter"),
    ({"activation": "clip"}, ValueError, "activation", "'clip'", "2 parameters"),
    ({"activation": ("clip", 0)}, ValueError, "activation", "('clip', 0)", "2 parameters"),
    ({"activation": ("relu", 1)}, ValueError, "activation", "('relu', 1)"),
    ({"activation": ("leaky_relu", NAN)}, ValueError, "activation", "nan"),
    ({"activation": ("clip", 0, NAN)}, ValueError, "activation", "nan"),
    ({"activation": ("clip", 1, 0)}, ValueError, "activation", "('clip', 1, 0)"),
    ({"activation": ("clip", "a", "b")}, TypeError, "activation", "'a'"),
    ({"activation": ("leaky_relu", None)}, TypeError, "activation", "None"),
    ({"residual": ones(2, 6, 4, 4)}, ValueError, "residual", "(2, 6, 4, 4)", "(2, 6, 4, 3)"),
    ({"residual": ones(6, 4, 3)}, ValueError, "residual", "(6, 4, 3)", "(2, 6, 4, 3)"),
    ({"residual": ones(1, 6, 1, 1)}, ValueError, "residual", "(1, 6, 1, 1)"),
    ({"residual": ones(2, 6, 4, 3, dtype=int)}, TypeError, "residual", "int64"),
    ({"residual": 1.0}, ValueError, "residual", "()"),
    ({"algorithm": "fft2"}, ValueError, "algorithm", "'fft2'", "implicit_gemm"),
    ({"algorithm": "Direct"}, ValueError, "algorithm", "'Direct'", "direct"),
    ({"algorithm": "winograd_f9x9"}, ValueError, "algorithm", "'winograd_f9x9'"),
    ({"algorithm": ""}, ValueError, "algorithm", "''"),
    ({"algorithm": None}, (ValueError, TypeError), "algorithm", "None"),
    ({"algorithm": ["direct"]}, (ValueError, TypeError), "algorithm", "['direct']"),
    ({"accuracy": 0}, ValueError, "accuracy", "0"),
    ({"accuracy": -1e-5}, ValueError, "accuracy", "-1e-05"),
    ({"accuracy": NAN}, ValueError, "accuracy", "nan"),
    ({"accuracy": "loose"}, (ValueError, TypeError), "accuracy", "'loose'", "strict"),
    ({"accuracy": True}, TypeError, "accuracy", "True"),
    ({"accuracy": [1e-5]}, TypeError, "accuracy", "[1e-05]"),
    ({"workspace_limit": -1}, ValueError, "workspace_limit", "-1"),
    ({"workspace_limit": 1.5}, TypeError, "workspace_limit", "1.5"),
    ({"workspace_limit": "1M"}, TypeError, "workspace_limit", "'1M'"),
    ({"workspace_limit": NAN}, TypeError, "workspace_limit", "nan"),
    ({"out": ones(2, 6, 4, 4)}, ValueError, "out", "(2, 6, 4, 4)", "(2, 6, 4, 3)"),
    ({"out": ones(2, 4, 3, 6)}, ValueError, "out", "(2, 4, 3, 6)"),
    ({"out": ones(1, 2, 6, 4, 3)}, ValueError, "out", "(1, 2, 6, 4, 3)"),
    ({"out": ones(2, 6, 4, 3, dtype=np.float64)}, TypeError, "out", "float64", "float32"),
    ({"out": ones(2, 6, 4, 3, dtype=np.float16)}, TypeError, "out", "float16", "float32"),
    ({"out": ones(2, 6, 4, 3), "x": X.astype(np.float64)}, TypeError, "out", "float32", "float64"),
    ({"out": ones(2, 6, 4, 3), "bias": np.ones(6)}, TypeError, "out", "float32", "float64"),
    ({"out": readonly}, ValueError, "out", "writable"),
    ({"out": [[0.0]]}, TypeError, "out", "list"),
    ({"padding": 2**62}, ValueError, "addressed"),
    ({"padding": 2**40}, ValueError, "addressed"),
    ({"stride": 2**70, "x": ones(2, 4, 2, 2)}, ValueError, "weight", "larger than the padded input"),
    ({"dilation": 2**70}, ValueError, "weight", "larger than the padded input"),
]  # fmt: skip


def mistake_id(mistake) -> str:
    def short(value) -> str:
        return f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else re.sub(r" object at 0x\w+", "", repr(value))

    return ",".join(f"{key}={short(value)}" for key, value in mistake[0].items())


@pytest.mark.parametrize("mistake", MISTAKES, ids=mistake_id)
def test_mistakes(mistake):
    given, exception, *words = mistake
    arguments = {"x": X, "weight": W, "out": np.full((2, 6, 4, 3), 77, np.float32)} | given
    out = arguments["out"]
    before = np.array(out).copy()
    with pytest.raises(exception) as raised:
        conv2d(**arguments)
    assert not isinstance(raised.value, UnsupportedError)
    for word in words:
        assert word in str(raised.value)
    np.testing.assert_array_equal(out, before)


@pytest.mark.parametrize("mistake", [m for m in MISTAKES if not {"x", "residual", "out"} & set(m[0])], ids=mistake_id)
def test_mistakes_of_a_layer(mistake):
    """Conv2d finds what it can when it is made, and the rest when it is called."""
    given, exception, *words = mistake
    with pytest.raises(exception) as raised:
        Conv2d(**({"weight": W} | given))(X)
    for word in words:
        assert word in str(raised.value)


def test_the_call_that_the_mistakes_change_is_right():
    out = np.full((2, 6, 4, 3), 77, np.float32)
    assert conv2d(X, W, out=out) is out
    assert (out == 36).all()


memory = np.ones(4 * 6 * 5 * 8, np.float32)


@pytest.mark.parametrize(
    ("name", "given"),
    {
        "x, the same memory": ("x", {"x": memory[:480].reshape(4, 4, 6, 5), "out": memory[:288].reshape(4, 6, 4, 3)}),
        "x, by one element": ("x", {"x": memory[:480].reshape(4, 4, 6, 5), "out": memory[479:767].reshape(4, 6, 4, 3)}),
        "weight": ("weight", {"weight": memory[:216].reshape(6, 4, 3, 3), "out": memory[200:344].reshape(2, 6, 4, 3)}),
        "bias": ("bias", {"bias": memory[:6], "out": memory[5:149].reshape(2, 6, 4, 3)}),
    }.values(),
    ids=str,
)  # fmt: skip
def test_out_must_not_overlap(name, given):
    memory[:] = 5
    with pytest.raises(ValueError, match=f"out: must not overlap {name}"):
        conv2d(**({"x": X, "weight": W} | given))
    assert (memory == 5).all()


def test_neighbours_in_one_buffer_do_not_overlap():
    both = np.ones((2, 4, 6, 10), np.float32)
    x, out = both[..., :5], both[:, :, :4, 5:8]
    conv2d(x, np.ones((4, 4, 3, 3), np.float32), out=out)
    assert (out == 36).all() and (x == 1).all()


def test_shapes_whose_product_overflows():
    """A view of one element stands for an image that no machine holds."""
    huge = np.broadcast_to(np.float32(1), (2**20, 1, 2**18, 2**18))
    with pytest.raises(ValueError, match=r"output: shape .* more elements than can be addressed"):
        conv2d(huge, np.ones((2**10, 1, 1, 1), np.float32))


@pytest.mark.parametrize("function", [cpuconv.output_shape, cpuconv.flops], ids=["output_shape", "flops"])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (((2, 4, 6), (6, 4)), ("weight", "(6, 4)")),
        (((2, 4, 6, 6), (6, 4, 3)), ("x", "(2, 4, 6, 6)")),
        (((4, 5), (6, 4, 3, 3)), ("x", "(4, 5)")),
        (((1, 4, 2, 2), (6, 4, 3, 3)), ("weight", "larger")),
        (((1, 5, 6, 6), (6, 4, 3, 3)), ("x", "5 channels")),
        (((1, 4, 6, 6), (6, 4, 3, 3), 0), ("stride", "0")),
        (((1, 4, 6, 6), (6, 4, 3, 3), 1, "no"), ("padding", "'no'")),
        (((-1, 4, 6, 6), (6, 4, 3, 3)), ("x", "-1")),
        (((1.5, 4, 6, 6), (6, 4, 3, 3)), ("x_shape", "1.5")),
        ((None, (6, 4, 3, 3)), ("x_shape", "None")),
        ((((1, 4, 6, 6), 3)), ("weight_shape", "3")),
    ],
    ids=str,
)  # fmt: skip
def test_mistakes_of_shape_helpers(function, given, words):
    with pytest.raises((ValueError, TypeError)) as raised:
        function(*given)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize("n", [0, -1, 1.0, "2", None, True, NAN], ids=repr)
@pytest.mark.parametrize("function", [cpuconv.set_num_threads, lambda n: cpuconv.threads(n).__enter__()], ids=["set_num_threads", "threads"])
def test_mistakes_of_thread_counts(function, n):
    old = cpuconv.get_num_threads()
    with pytest.raises((ValueError, TypeError), match=r"^n: "):
        function(n)
    assert cpuconv.get_num_threads() == old


def rejected() -> list:
    """For each algorithm that does not do everything, a problem that it rejects."""
    problems = both_layouts([*(with_epilogue(p, Activation("f", (), abs)) for p in PROBLEMS), *PROBLEMS])
    found = {a.name: (a, p) for a in ALGORITHMS for p in problems if p.n and a.supports(p, CPUS[-1])}
    return list(found.values())


@pytest.mark.parametrize(("algorithm", "problem"), rejected(), ids=lambda value: getattr(value, "name", str(value)))
def test_a_named_algorithm_that_cannot_says_why(algorithm, problem):
    out = np.full(problem.y_shape, 77, np.float32)
    function = problem.epilogue.activation and problem.epilogue.activation.function
    with pytest.raises(UnsupportedError) as raised:
        conv2d_of(problem, normal(problem), activation=function, algorithm=algorithm.name, out=out)
    assert f"{algorithm.name}: {algorithm.supports(problem, CPUS[-1]).reason}" in str(raised.value)
    assert (out == 77).all()


def test_unsupported_is_a_value_error():
    with pytest.raises(ValueError, match=r"winograd.*cannot do.*winograd_f2x3: "):
        conv2d(ones(1, 4, 8, 8), ones(4, 4, 3, 3), stride=3, algorithm="winograd")
