"""PyTorch as a second oracle of the forms besides `conv2d`: 1-D, 3-D, transposed, gradients of the input, in float64."""

import itertools

import numpy as np
import pytest

import cpuconv
from cpuconv import grad

torch = pytest.importorskip("torch")
functional = torch.nn.functional
RNG = np.random.default_rng(3)
CHOICES = {1: [9], 2: [9, 11], 3: [5, 9, 8]}  # sizes of x
LAYOUTS = {1: ("NCL", "NLC"), 2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def exact(*arrays):
    return [None if a is None else torch.tensor(a).double() for a in arrays]


def check(result, expected):
    expected = expected.numpy()
    assert result.shape == expected.shape and result.dtype == np.float32
    assert np.abs(result - expected).max() <= 2e-5 * max(1, np.abs(expected).max())


def last(x):
    return np.moveaxis(x, 1, -1)


def first(y):
    return np.moveaxis(y, -1, 1)


def turned(weight):
    return np.moveaxis(weight, (0, 1), (-1, -2))


KERNELS = {1: [(1,), (4,), (5,)], 2: [(1, 2), (3, 3), (4, 5)], 3: [(1, 1, 1), (3, 3, 3), (2, 1, 4)]}
STRIDES = {1: [1, 2, 3], 2: [1, 2, (3, 1)], 3: [1, 2, (3, 1, 2)]}
PADDINGS = {1: [0, 2, "same"], 2: [0, 1, (0, 2), "same"], 3: [0, 1, (2, 0, 1), "same"]}
DILATIONS = {1: [1, 2, 3], 2: [1, 2, (3, 1)], 3: [1, 2, (1, 2, 1)]}


def grid(*ranks):
    for rank in ranks:
        for kernel, stride, padding, dilation, groups in itertools.product(KERNELS[rank], STRIDES[rank], PADDINGS[rank], DILATIONS[rank], [1, 2, 6]):
            span = [d * (k - 1) + 1 for k, d in zip(kernel, dilation if isinstance(dilation, tuple) else (dilation,) * rank, strict=True)]
            pads = padding if isinstance(padding, tuple) else (0 if padding == "same" else padding,) * rank
            fits = all(size + 2 * pad >= s for size, pad, s in zip(CHOICES[rank], pads, span, strict=True))
            if (padding == "same" and stride == 1) or (padding != "same" and fits):  # torch has no "same" with strides
                yield rank, kernel, stride, padding, dilation, groups


GRID = list(grid(1, 2, 3))[::7]  # 7 has no factor in common with the number of any choice, so that each meets each other one
named = pytest.mark.parametrize(("rank", "kernel", "stride", "padding", "dilation", "groups"), GRID, ids=str)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(("rank", "kernel", "stride", "padding", "dilation", "groups"), [case for case in GRID if case[0] != 2], ids=str)
def test_convolutions(rank, kernel, stride, padding, dilation, groups):
    x, weight, bias = normal(2, 6, *CHOICES[rank]), normal(12, 6 // groups, *kernel), normal(12)
    options = (stride, padding, dilation, groups)
    expected = getattr(functional, f"conv{rank}d")(*exact(x, weight, bias), *options)
    conv = getattr(cpuconv, f"conv{rank}d")
    check(conv(x, weight, bias, *options), expected)
    check(first(conv(last(x), turned(weight), bias, *options, layout=LAYOUTS[rank][1])), expected)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@named
def test_gradients_of_the_input(rank, kernel, stride, padding, dilation, groups):
    x, weight = normal(2, 6, *CHOICES[rank]), normal(12, 6 // groups, *kernel)
    options = (stride, padding, dilation, groups)
    leaf, w = exact(x, weight)
    leaf.requires_grad_()
    y = getattr(functional, f"conv{rank}d")(leaf, w, None, *options)
    g = normal(*y.shape)
    y.backward(torch.tensor(g).double())
    conv_input = getattr(grad, f"conv{rank}d_input")
    check(conv_input(x.shape, weight, g, *options), leaf.grad)
    check(first(conv_input(last(x).shape, turned(weight), last(g), *options, layout=LAYOUTS[rank][1])), leaf.grad)


def extras(case):
    """The output paddings that the case allows: none, and the largest along each axis."""
    rank, _, stride, _, dilation, _ = case
    strides, dilations = (v if isinstance(v, tuple) else (v,) * rank for v in (stride, dilation))
    most = tuple(max(pair) - 1 for pair in zip(strides, dilations, strict=True))
    return {(0,) * rank, most}


def reached(case, extra):
    """Whether any output is left: torch has no empty ones."""
    rank, kernel, stride, padding, dilation, _ = case
    wide = [v if isinstance(v, tuple) else (v,) * rank for v in (stride, padding, dilation)]
    axes = zip(CHOICES[rank], kernel, *wide, extra, strict=True)
    return all((size - 1) * s - 2 * p + d * (k - 1) + 1 + e > 0 for size, k, s, p, d, e in axes)


TRANSPOSED = [(*case, extra) for case in GRID if case[3] != "same" for extra in sorted(extras(case)) if reached(case, extra)]


@pytest.mark.parametrize(("rank", "kernel", "stride", "padding", "dilation", "groups", "extra"), TRANSPOSED, ids=str)
def test_transposed(rank, kernel, stride, padding, dilation, groups, extra):
    x, weight, bias = normal(2, 12, *CHOICES[rank]), normal(12, 6 // groups, *kernel), normal(6)
    options = (stride, padding, extra, groups, dilation)
    expected = getattr(functional, f"conv_transpose{rank}d")(*exact(x, weight, bias), *options)
    transpose = getattr(cpuconv, f"conv_transpose{rank}d")
    check(transpose(x, weight, bias, *options), expected)
    check(first(transpose(last(x), turned(weight), bias, *options, layout=LAYOUTS[rank][1])), expected)
