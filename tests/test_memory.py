"""No algorithm reads outside its inputs or writes outside `out`: every array touches a page that may not be accessed.

A breach is a segmentation fault, which ends the run; run this file alone then, with -v, to see where.
"""

import ctypes
import math
import mmap

import numpy as np
import pytest

from cpuconv.problem import Activation
from oracle import Arrays, case_id, cases, normal, normal_results, tolerance, with_epilogue
from shapes import FEW, PROBLEMS, both_layouts, with_dtype

mprotect = getattr(ctypes.CDLL(None, use_errno=True), "mprotect", None)
pytestmark = pytest.mark.skipif(mprotect is None, reason="no mprotect on this system")

PAGE = mmap.PAGESIZE
GELU, RELU = Activation("gelu"), Activation("clip", (0.0, math.inf))


class Fenced:
    """An array with a forbidden page on both sides, that ends (or begins) exactly at one of them."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, at_end: bool) -> None:
        size = math.prod(shape) * dtype.itemsize
        self.pages = -(-size // PAGE) * PAGE
        memory = mmap.mmap(-1, self.pages + 2 * PAGE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        start = PAGE + (self.pages - size if at_end else 0)
        self.array = np.frombuffer(memory, dtype, math.prod(shape), start).reshape(shape)
        self._protect(0, PAGE, 0)
        self._protect(PAGE + self.pages, PAGE, 0)

    def _protect(self, offset: int, length: int, access: int) -> None:
        if length and mprotect(ctypes.c_void_p(self.address + offset), ctypes.c_size_t(length), access):
            raise OSError(ctypes.get_errno(), "mprotect")

    def freeze(self) -> None:
        """From here on a write to the array is a fault too."""
        self._protect(PAGE, self.pages, mmap.PROT_READ)


def fenced(value: np.ndarray | None, at_end: bool) -> np.ndarray | None:
    if value is None:
        return None
    fence = Fenced(value.shape, value.dtype, at_end)
    fence.array[...] = value
    fence.freeze()
    return fence.array


def fenced_view(value: np.ndarray, layout: str, at_end: bool) -> np.ndarray:
    """Every second row and pixel, with room for two channels more, of memory that begins with the first element and ends with the last."""
    c, h, w = value.shape[1:] if layout == "nchw" else (value.shape[3], *value.shape[1:3])
    row, plane = 2 * w + 3, (2 * h + 1) * (2 * w + 3)
    strides = ((c + 2) * plane, plane, 2 * row, 2) if layout == "nchw" else ((c + 2) * plane, 2 * row * (c + 2), 2 * (c + 2), 1)
    size = 1 + sum((length - 1) * stride for length, stride in zip(value.shape, strides, strict=True))
    fence = Fenced((size,), value.dtype, at_end)
    view = np.lib.stride_tricks.as_strided(fence.array, value.shape, [stride * value.itemsize for stride in strides])
    view[...] = value
    return view


@pytest.mark.parametrize("at_end", [True, False], ids=["fence after", "fence before"])
@pytest.mark.parametrize(
    ("algorithm", "problem", "cpu"),
    cases([with_epilogue(p, RELU) for p in both_layouts(PROBLEMS) if p.n] + with_dtype([with_epilogue(p, RELU) for p in both_layouts(FEW)], "f64")),
    ids=case_id,
)
def test_views_stay_inside_their_arrays(algorithm, problem, cpu, at_end):
    plan, arrays = algorithm.build(problem, cpu), normal(problem)
    if not algorithm.strided:
        return
    x, y = (fenced_view(value, problem.layout, at_end) for value in (arrays.x, arrays.residual))
    plan.run(x, plan.pack(arrays.weight, arrays.bias), y, y, 2)
    conv, expected = normal_results(problem)
    assert np.abs(y - expected).max(initial=0) <= tolerance(problem, plan.cost.error, conv)


@pytest.mark.parametrize("at_end", [True, False], ids=["fence after", "fence before"])
@pytest.mark.parametrize(
    ("algorithm", "problem", "cpu"),
    cases([with_epilogue(p, GELU) for p in both_layouts(PROBLEMS)] + with_dtype([with_epilogue(p, GELU) for p in both_layouts(FEW)], "f64")),
    ids=case_id,
)
def test_stays_inside_its_arrays(algorithm, problem, cpu, at_end):
    arrays = Arrays(*(fenced(value, at_end) for value in normal(problem)))
    plan = algorithm.build(problem, cpu)
    packed = plan.pack(arrays.weight, arrays.bias)
    out = Fenced(problem.y_shape, arrays.x.dtype, at_end).array
    out[...] = np.nan
    plan.run(arrays.x, packed, arrays.residual, out, 2)
    conv, expected = normal_results(problem)
    assert np.abs(out - expected).max(initial=0) <= tolerance(problem, plan.cost.error, conv)


def test_the_fence_holds():
    """The fences are where they should be: the kernel refuses to read the bytes next to the array."""
    fence = Fenced((5,), np.dtype(np.float32), at_end=True)
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        memory.seek(fence.array.ctypes.data)
        assert len(memory.read(20)) == 20
    with open("/proc/self/maps") as maps:
        access = {line.split("-")[0]: line.split()[1] for line in maps}
    assert access[f"{fence.array.ctypes.data + 20:08x}"].startswith("---")
