"""Times convolutions of 8-bit integers beside `implicit_gemm` and `depthwise` in float32, in one thread: python benchmarks/quantized.py

The layers are of ResNet-50 and, depthwise, of MobileNetV2 and EfficientNet-B0.

For each layer and layout the GFLOP/s of float32 and, for some types of x, weight and y, how many times as fast the integers are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from cpuconv import Problem, cpu
from cpuconv.algorithms.depthwise import Depthwise
from cpuconv.algorithms.implicit_gemm import ImplicitGemm
from cpuconv.algorithms.int8_depthwise import Int8Depthwise
from cpuconv.algorithms.int8_gemm import Int8Gemm
from cpuconv.plan import Plan, Quantization, types

LAYERS = """
n1_ic64_ih56_iw56_oc256_kh1_kw1_s1_p0_d1_g1
n1_ic256_ih56_iw56_oc64_kh1_kw1_s1_p0_d1_g1
n1_ic1024_ih14_iw14_oc256_kh1_kw1_s1_p0_d1_g1
n1_ic64_ih56_iw56_oc64_kh3_kw3_s1_p1_d1_g1
n1_ic128_ih28_iw28_oc128_kh3_kw3_s1_p1_d1_g1
n1_ic256_ih14_iw14_oc256_kh3_kw3_s1_p1_d1_g1
n1_ic512_ih7_iw7_oc512_kh3_kw3_s1_p1_d1_g1
n1_ic3_ih224_iw224_oc64_kh7_kw7_s2_p3_d1_g1
n1_ic144_ih56_iw56_oc144_kh3_kw3_s1_p1_d1_g144
n1_ic384_ih14_iw14_oc384_kh3_kw3_s1_p1_d1_g384
n1_ic96_ih112_iw112_oc96_kh3_kw3_s2_p1_d1_g96
n1_ic480_ih14_iw14_oc480_kh5_kw5_s1_p2_d1_g480
"""
DTYPES = ("u8s8s32", "s8s8s32", "u8s8u8", "s8s8s8")
SECONDS = 0.1


def shortest(call: Callable[[], None]) -> float:
    call()
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def seconds(plan: Plan) -> float:
    p, kinds, rng = plan.problem, types(plan.problem.dtype), np.random.default_rng(0)
    x, weight = (rng.integers(0, 100, shape).astype(kind) for shape, kind in ((p.x_shape, kinds.x), (p.weight_shape, kinds.weight)))
    scale = np.full(p.oc, 1e-3, np.float32) if kinds.y.itemsize == 1 else None
    packed = plan.pack(weight, None, Quantization(0, np.zeros(p.oc, np.int32), scale))
    out = np.empty(p.y_shape, kinds.y)
    return shortest(lambda: plan.run(x, packed, None, out, 1))


def main() -> None:
    machine = cpu.detect()
    print(f"{machine.model}, {machine.isa}")
    print(f"{'layer':46}{'layout':8}{'float32':>10}", *(f"{dtype:>9}" for dtype in DTYPES))
    for layer in LAYERS.split():
        for layout in ("nhwc", "nchw"):
            p = Problem.parse(f"{layer}_f32_{layout}")
            floating, integer = (ImplicitGemm(), Int8Gemm()) if p.groups == 1 else (Depthwise(), Int8Depthwise())
            floats = seconds(floating.build(p, machine))
            ratios = (floats / seconds(integer.build(replace(p, dtype=dtype), machine)) for dtype in DTYPES)
            print(f"{layer:46}{layout:8}{p.flops / floats / 1e9:10.1f}", *(f"{ratio:8.2f}x" for ratio in ratios), flush=True)


if __name__ == "__main__":
    main()
