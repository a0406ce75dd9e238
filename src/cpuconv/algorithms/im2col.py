"""`im2col`: blocks of the column matrix, each small enough to stay in L2, multiplied by OpenBLAS (scipy-openblas32).

The library is the one that NumPy and SciPy ship; its functions are looked up at run time, so that nothing is linked and the
package works without it. It is set to one thread once; the blocks are what runs in parallel.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import math
from pathlib import Path

from cpuconv._native import core
from cpuconv.algorithms import native
from cpuconv.cpu import Cpu
from cpuconv.plan import Cost, Rejection
from cpuconv.problem import Problem

MAX_INT = 2**31 - 1  # the BLAS takes 32-bit sizes


@functools.cache
def gemm_addresses() -> dict[str, int]:
    """Addresses of cblas_sgemm and cblas_dgemm by dtype; empty where the library is not to be had."""
    try:
        package = importlib.import_module("scipy_openblas32")
        library = ctypes.CDLL(str(next(Path(package.get_lib_dir()).glob(f"lib{package.get_library()}.*"))))
        library.scipy_openblas_set_num_threads(1)
        return {
            dtype: ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
            for dtype, name in (("f32", "scipy_cblas_sgemm"), ("f64", "scipy_cblas_dgemm"))
        }
    except (ImportError, OSError, AttributeError, StopIteration):
        return {}


class Im2col:
    name = "im2col"
    version = 1
    plain = True
    strided = False
    turns = False

    def supports(self, problem: Problem, cpu: Cpu) -> Rejection | None:
        p = problem
        if p.dtype not in gemm_addresses():
            return Rejection("scipy-openblas32 is not installed")
        if max(p.k, p.ic, p.oc, p.oh * p.ow) > MAX_INT:
            return Rejection("sizes beyond 32 bits")
        return native.unsupported(problem)

    def blocking(self, p: Problem, cpu: Cpu) -> native.Blocking:
        return native.Blocking(max(16, min(1024, cpu.l2 // 2 // (p.k * p.itemsize))))

    def estimate(self, problem: Problem, cpu: Cpu) -> Cost:
        p = problem
        block = min(self.blocking(p, cpu).block, p.oh * p.ow)
        pointwise = p.kh == p.kw == 1 and p.stride == (1, 1) and not any(p.padding)
        pixels = p.n * p.oh * p.ow
        # OpenBLAS packs both operands and loses on small ones; a call costs about a microsecond
        efficiency = 0.8 * min(1.0, p.ocg / 64 + 0.1) * min(1.0, p.k / 64 + 0.1) * min(1.0, block / 64)
        calls = math.ceil(pixels / block) * p.groups
        traffic = (p.n * (p.ic * p.ih * p.iw + p.oc * p.oh * p.ow) + p.oc * p.k) * p.itemsize
        weight = p.ocg * p.k * p.itemsize  # each call packs it
        seconds = max(p.flops / cpu.peak(p.dtype) / efficiency, 1.2 * traffic / cpu.bandwidth(traffic))
        seconds += calls * (1e-6 + 0.5 * weight / cpu.bandwidth(2 * weight))
        if not pointwise:
            run = p.icg if p.layout == "nhwc" else p.ow / (1 if p.stride[1] == 1 else 8)
            seconds += pixels * p.groups * p.k * (1 / cpu.vector_length(p.dtype) + 2 / max(1, run)) * 2 / (1e9 * cpu.ghz)
        return Cost(2e-6 + seconds, 0 if pointwise else block * p.k * p.itemsize, 0, native.plain_error(p))

    def build(self, problem: Problem, cpu: Cpu) -> native.NativePlan:
        p = problem
        convolution = core.Convolution(
            cpu.isa, p.dtype, core.IM2COL, native.geometry(p, cpu), native.activation(p.epilogue.activation),
            self.blocking(p, cpu), gemm_addresses()[p.dtype],
        )  # fmt: skip
        return native.NativePlan(p, self.estimate(p, cpu), (native.AS_IT_IS, 0), convolution, packs=False)
