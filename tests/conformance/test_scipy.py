"""SciPy's own tests of two-dimensional convolution and of n-dimensional correlation, with cpuconv behind SciPy's functions.

What is not real, or breaks SciPy's rules, is left to SciPy, whose messages its tests want.
"""

import functools
import warnings
from collections import Counter

import numpy as np
import pytest
from scipy import ndimage, signal

import cpuconv

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # marks that SciPy's own configuration registers
    test_filters = pytest.importorskip("scipy.ndimage.tests.test_filters", reason="SciPy without its tests")
    test_signaltools = pytest.importorskip("scipy.signal.tests.test_signaltools", reason="SciPy without its tests")

RUNS: Counter[str] = Counter()
"""Calls that cpuconv computed, by SciPy's name."""

NUMPY_MODES = {"reflect": "symmetric", "constant": "constant", "nearest": "edge", "mirror": "reflect", "wrap": "wrap"}
"""What np.pad calls the ways of ndimage to go on beyond the border."""


def correlation(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of real arrays of 1 to 3 axes, where they overlap wholly."""
    conv = getattr(cpuconv, f"conv{x.ndim}d")
    return conv(x.astype(np.float64)[None], weights.astype(np.float64)[None, None])[0]


def cast(values: np.ndarray, dtype) -> np.ndarray:
    return (values if np.dtype(dtype).kind == "f" else np.rint(values)).astype(dtype)


def real(*arrays: np.ndarray) -> bool:
    return all(a.dtype.kind in "biuf" and a.dtype.itemsize <= 8 and a.size for a in arrays)


def ndimage_adapter(name: str, flipped: bool, one_axis: bool):
    scipys = getattr(ndimage, name)

    @functools.wraps(scipys)
    def adapter(input, weights, *args, **kwargs):
        x, w = np.asarray(input), np.asarray(weights)
        names = ("axis", "output", "mode", "cval", "origin") if one_axis else ("output", "mode", "cval", "origin")
        given = {"axis": -1, "output": None, "mode": "reflect", "cval": 0.0, "origin": 0, **dict(zip(names, args, strict=False)), **kwargs}
        if one_axis and w.ndim == 1:
            w = np.expand_dims(w, [i for i in range(x.ndim) if i != given["axis"] % x.ndim])
        origins = np.broadcast_to(given["origin"], x.ndim)
        if one_axis:
            origins = [given["origin"] if size > 1 else 0 for size in w.shape]
        before = [size // 2 + origin for size, origin in zip(w.shape, origins, strict=False)]
        if flipped:
            w = np.flip(w)
            before = [(size - 1) // 2 - origin for size, origin in zip(w.shape, origins, strict=False)]
        inside = all(0 <= b < size for b, size in zip(before, w.shape, strict=True))
        out = given["output"]
        dtype = x.dtype if out is None else out.dtype if isinstance(out, np.ndarray) else np.dtype(out)
        if not (real(x, w) and dtype.kind in "biuf" and x.ndim == w.ndim <= 3 and inside and given["mode"] in NUMPY_MODES and "axes" not in kwargs):
            return scipys(input, weights, *args, **kwargs)
        RUNS[name] += 1
        widths = [(b, size - 1 - b) for b, size in zip(before, w.shape, strict=True)]
        fill = {"constant_values": given["cval"]} if given["mode"] == "constant" else {}
        y = cast(correlation(np.pad(x, widths, NUMPY_MODES[given["mode"]], **fill), w), dtype)
        if isinstance(out, np.ndarray):
            out[...] = y
            return out
        return y

    return adapter


def signal_adapter(name: str, flipped: bool):
    scipys = getattr(signal, name)

    @functools.wraps(scipys)
    def adapter(in1, in2, mode="full", boundary="fill", fillvalue=0):
        x, w = np.asarray(in1), np.asarray(in2)
        pads = {"fill": "constant", "wrap": "wrap", "symm": "symmetric"}
        known = mode in ("full", "valid", "same") and boundary in pads and np.ndim(fillvalue) == 0
        larger = x.ndim == w.ndim == 2 and all(a >= b for a, b in zip(x.shape, w.shape, strict=True))
        if not (real(x, w) and x.ndim == w.ndim == 2 and known and np.isreal(fillvalue) and (larger or mode != "valid")):
            return scipys(in1, in2, mode, boundary, fillvalue)
        RUNS[name] += 1
        kh, kw = w.shape
        if mode != "valid":
            fill = {"constant_values": fillvalue} if boundary == "fill" else {}
            x = np.pad(x, ((kh - 1,) * 2, (kw - 1,) * 2), pads[boundary], **fill)
        y = correlation(x, w[::-1, ::-1] if flipped else w)
        if mode == "same":
            top, left = ((kh - 1) // 2, (kw - 1) // 2) if flipped else (kh // 2, kw // 2)
            y = y[top:, left:][: np.shape(in1)[0], : np.shape(in1)[1]]
        return cast(y, np.result_type(np.asarray(in1), w))

    return adapter


@pytest.fixture(autouse=True)
def cpuconv_behind_scipy(monkeypatch):
    for name, flipped, one_axis in (
        ("correlate", False, False), ("convolve", True, False), ("correlate1d", False, True), ("convolve1d", True, True),
    ):  # fmt: skip
        monkeypatch.setattr(ndimage, name, ndimage_adapter(name, flipped, one_axis))
    for name, flipped in (("correlate2d", False), ("convolve2d", True)):
        adapter = signal_adapter(name, flipped)
        monkeypatch.setattr(signal, name, adapter)
        monkeypatch.setattr(test_signaltools, name, adapter, raising=False)
    before = RUNS.total()
    yield
    assert RUNS.total() > before, "cpuconv computed nothing"


@pytest.fixture
def xp():
    return np


def some_of(case: type, wanted) -> type:
    """A class of some of the tests of one of SciPy's, and all of its helpers."""
    members = {name: getattr(case, name) for name in dir(case) if not name.startswith("__")}
    return type(case.__name__, (), {name: member for name, member in members.items() if not name.startswith("test") or wanted(name)})


LEFT_OUT = (
    "complex", "complx", "axes", "invalid", "errors", "mode_sequence",  # not real, or refused by SciPy
    "empty", "correlate09", "correlate10",  # no data
    "with_boundary", "correlate_funcs",  # SciPy's own function bound where the test is made; of other functions
    "large",  # 4 GB
)  # fmt: skip


def applies(name: str) -> bool:
    return name.endswith("correlate_funcs_2") or not any(word in name for word in LEFT_OUT)


TestConvolve2d = some_of(test_signaltools.TestConvolve2d, applies)
TestCorrelate2d = some_of(test_signaltools.TestCorrelate2d, applies)
TestNdimage = some_of(test_filters.TestNdimageFilters, lambda name: name.startswith("test_correlate") and applies(name))
