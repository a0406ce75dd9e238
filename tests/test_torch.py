"""PyTorch as a second oracle that shares no line with this library: the same call, in float64, over a wide grid of options."""

import itertools
import re

import numpy as np
import pytest

import cpuconv
from cpuconv import Conv2d, conv2d

torch = pytest.importorskip("torch")
functional = torch.nn.functional
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

ACTIVATIONS = {
    "relu": torch.relu, "relu6": functional.relu6, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "silu": functional.silu,
    "gelu": functional.gelu, "hardswish": functional.hardswish, "hardsigmoid": functional.hardsigmoid,
    ("leaky_relu", 0.2): lambda y: functional.leaky_relu(y, 0.2), ("clip", -1, 2.5): lambda y: torch.clamp(y, -1, 2.5),
}  # fmt: skip
BOUND = {torch.float32: 2e-5, torch.float64: 1e-13, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}


@pytest.fixture(autouse=True)
def one_torch_thread():
    old = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(old)


def tensors(*shapes, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(map(sum, shapes)))
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def check(result, expected, dtype=torch.float32):
    """`result` came from cpuconv in `dtype`; `expected` from torch in float64."""
    assert isinstance(result, np.ndarray)
    assert result.dtype.name == str(dtype).removeprefix("torch.")
    assert result.shape == tuple(expected.shape)
    expected = expected.numpy()
    assert np.abs(result.astype(np.float64) - expected).max(initial=0) <= BOUND[dtype] * max(1, np.abs(expected).max(initial=0))


def turned(x, weight):
    return x.permute(0, 2, 3, 1), weight.permute(2, 3, 1, 0)


GRID = [
    (kernel, stride, padding, dilation, groups)
    for kernel, stride, padding, dilation, groups in itertools.product(
        [(1, 1), (3, 3), (2, 5), (7, 7)], [1, 2, (3, 1)], [0, 1, (2, 3), "valid", "same"], [1, 2, (1, 3)], [1, 2, 6]
    )
    if padding != "same" or stride == 1  # torch has no "same" with strides
]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation", "groups"), GRID, ids=str)
def test_options(kernel, stride, padding, dilation, groups, layout):
    x, weight, bias = tensors((2, 6, 23, 25), (12, 6 // groups, *kernel), (12,))
    expected = functional.conv2d(x.double(), weight.double(), bias.double(), stride, padding, dilation, groups)
    if layout == "NCHW":
        result = conv2d(x, weight, bias, stride, padding, dilation, groups)
    else:
        result = conv2d(*turned(x, weight), bias, stride, padding, dilation, groups, layout=layout).transpose(0, 3, 1, 2)
    check(result, expected)


@pytest.mark.parametrize("pads", [(0, 1, 2, 3), (3, 0, 0, 0), (1, 1, 4, 0), (0, 0, 7, 9)], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
def test_asymmetric_padding(pads, stride):
    top, bottom, left, right = pads
    x, weight = tensors((2, 5, 11, 9), (7, 5, 3, 3))
    expected = functional.conv2d(functional.pad(x.double(), (left, right, top, bottom)), weight.double(), stride=stride)
    check(conv2d(x, weight, stride=stride, padding=((top, bottom), (left, right))), expected)


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [1, (2, 1), (0, 4), "same"], ids=str)
@pytest.mark.parametrize("kernel", [3, (5, 2)], ids=str)
def test_padding_modes(mode, padding, kernel):
    torch.manual_seed(1)
    layer = torch.nn.Conv2d(4, 6, kernel, padding=padding, padding_mode=mode, dtype=torch.float64)
    (x,) = tensors((2, 4, 10, 12))
    with torch.no_grad():
        expected = layer(x.double())
        conv = Conv2d(layer.weight.float(), layer.bias.float(), padding=padding, padding_mode=mode)
        check(conv(x), expected)


@pytest.mark.parametrize("dtype", BOUND, ids=str)
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_dtypes(dtype, kernel):
    x, weight, bias = tensors((2, 24, 14, 13), (20, 24, kernel, kernel), (20,), dtype=dtype)
    expected = functional.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    check(conv2d(x, weight, bias, padding=1), expected, dtype)


@pytest.mark.parametrize("name", ["bias", "residual"])
def test_tensors_take_part_in_promotion(name):
    x, weight, bias, residual = tensors((1, 2, 4, 4), (3, 2, 3, 3), (3,), (1, 3, 2, 2))
    arguments = {"bias": bias, "residual": residual}
    assert conv2d(x, weight, **arguments).dtype == np.float32
    assert conv2d(x, weight, **arguments | {name: arguments[name].double()}).dtype == np.float64


def test_bfloat16_arrays():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x, weight = tensors((1, 9, 8, 8), (5, 9, 3, 3), dtype=torch.bfloat16)
    arrays = [t.float().numpy().astype(ml_dtypes.bfloat16) for t in (x, weight)]
    result = conv2d(*arrays)
    check(result, functional.conv2d(x.double(), weight.double()), torch.bfloat16)
    np.testing.assert_array_equal(conv2d(x, weight), result)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_activations(activation, dtype):
    x, weight, bias, residual = tensors((2, 8, 15, 16), (10, 8, 3, 3), (10,), (2, 10, 15, 16), dtype=dtype)
    before = functional.conv2d(x.double(), weight.double(), bias.double(), padding=1) + residual.double()
    check(conv2d(x, weight, bias, padding=1, residual=residual, activation=activation), ACTIVATIONS[activation](before), dtype)


def test_channels_last():
    """A channels_last tensor is the NHWC array behind a view: both readings give the same numbers."""
    x, weight = tensors((2, 16, 12, 12), (8, 16, 3, 3))
    expected = functional.conv2d(x.double(), weight.double())
    last = x.contiguous(memory_format=torch.channels_last)
    check(conv2d(last, weight.contiguous(memory_format=torch.channels_last)), expected)
    check(conv2d(last.permute(0, 2, 3, 1), weight.permute(2, 3, 1, 0), layout="NHWC").transpose(0, 3, 1, 2), expected)


def test_tensors_that_require_grad():
    x, weight = tensors((1, 3, 6, 6), (2, 3, 3, 3))
    with torch.no_grad():
        expected = conv2d(x, weight)
    with pytest.raises((TypeError, ValueError), match=r"weight: .*grad"):
        conv2d(x, torch.nn.Parameter(weight))
    np.testing.assert_array_equal(conv2d(x, torch.nn.Parameter(weight).detach()), expected)


@pytest.mark.parametrize("n", [0, 1])
def test_unbatched_and_empty(n):
    x, weight = tensors((3, 4, 9, 9), (5, 4, 3, 3))
    check(conv2d(x[n], weight), functional.conv2d(x[n].double(), weight.double()))
    check(conv2d(x[:n], weight), functional.conv2d(x[:n].double(), weight.double()))


@pytest.mark.parametrize("shape", [(1, 64, 56, 56, 64), (1, 128, 28, 28, 128), (2, 256, 14, 14, 256), (1, 512, 7, 7, 512)], ids=str)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("algorithm", ["auto", *(name for name in cpuconv.algorithms() if re.fullmatch("winograd_f.x3", name))])
def test_layers_of_a_real_network(shape, layout, algorithm):
    """Full-sized, where blocking of the channels and of the tiles shows. "auto" holds its default accuracy."""
    n, ic, ih, iw, oc = shape
    x, weight = tensors((n, ic, ih, iw), (oc, ic, 3, 3))
    expected = functional.conv2d(x.double(), weight.double(), padding=1).numpy()
    arrays = (x, weight) if layout == "NCHW" else turned(x, weight)
    result = conv2d(*arrays, padding=1, layout=layout, algorithm=algorithm)
    error = np.abs(result.transpose(0, 3, 1, 2) - expected if layout == "NHWC" else result - expected).max()
    assert error <= (1e-5 if algorithm == "auto" else 3e-5) * np.abs(expected).max()


KINDS = [
    ((3, 3), 2, 1), ((3, 3), 1, 2), ((3, 3), 1, 6), ((2, 2), 1, 1), ((4, 4), 1, 1), ((5, 5), 1, 1), ((7, 7), 1, 1), ((1, 7), 1, 1), ((5, 1), 1, 3),
]  # fmt: skip


@pytest.mark.parametrize(("kernel", "stride", "dilation"), KINDS)
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_winograd_beyond_3x3(kernel, stride, dilation, layout):
    x, weight = tensors((2, 290, 30, 29), (80, 290, *kernel))
    expected = functional.conv2d(x.double(), weight.double(), stride=stride, padding=2, dilation=dilation).numpy()
    arrays = (x, weight) if layout == "NCHW" else turned(x, weight)
    result = conv2d(*arrays, stride=stride, padding=2, dilation=dilation, layout=layout, algorithm="winograd", accuracy=1e-4)
    error = np.abs(result.transpose(0, 3, 1, 2) - expected if layout == "NHWC" else result - expected).max()
    assert error <= 3e-5 * np.abs(expected).max()
