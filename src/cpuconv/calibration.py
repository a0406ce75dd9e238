"""`calibrate`: measures what a core of this CPU does in a second, which cost models go by, and keeps it with the wisdom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from cpuconv import cpu as cpu_module
from cpuconv import planner, wisdom
from cpuconv._native import core
from cpuconv.cpu import Cpu, Rates
from cpuconv.plan import aligned_empty
from cpuconv.planner import Budget
from cpuconv.problem import Problem

SECONDS = 0.15  # for each rate
CYCLES = 200_000
DENSE = Problem.parse("n1_ic256_ih14_iw14_oc256_kh1_kw1_s1_p0_d1_g1_f32_nhwc")  # stays in L2
SHARE = 0.97  # of its time that implicit_gemm multiplies there
L3_STREAM = 4  # times L2: layers are seldom larger, and of an L3 that many share, as in the cloud, little more is to be had
LARGEST = 256 << 20  # bytes: more than most caches hold


def calibrate() -> Rates:
    """Measure the rates of this CPU that cost models rest on: clock, multiply-adds, and streams through caches and memory.

    Takes about a second of one core. What is measured is saved with the wisdom (see `cpuconv.wisdom`) and serves all later processes on
    this CPU, whose choice of algorithms it may change, and with that the last bits of results; `wisdom.forget` forgets it. Nothing calls this but
    the user: until then the rates are those of the CPU that the models were fitted on, which `show_config` shows as "typical".

    Returns
    -------
    Rates
        Clock in GHz, multiply-adds of vectors in a cycle, and GB/s read and written in L2, L3 and memory.

    Warns
    -----
    RuntimeWarning
        If the rates cannot be saved; they are used in this process all the same.

    Examples
    --------
    >>> calibrate()
    Rates(ghz=..., fma_per_cycle=..., l2=..., l3=..., memory=...)
    """
    cpu = cpu_module.detect()
    rates = _measure(cpu)
    wisdom.record_rates(cpu, rates)
    return rates


def _measure(cpu: Cpu) -> Rates:
    ghz = CYCLES / _shortest(lambda: core.spend_cycles(CYCLES)) / 1e9
    pairs = DENSE.flops / 2 / cpu.vector_length("f32") / SHARE
    fma_per_cycle = pairs / _shortest(_multiplication(cpu)) / ghz / 1e9
    l2 = _stream(cpu.l2 // 2)
    l3 = _stream(min(cpu.l3 // 2, L3_STREAM * cpu.l2)) if cpu.l3 > 2 * cpu.l2 else l2
    return Rates(ghz, fma_per_cycle, l2, l3, _stream(min(4 * cpu.l3, LARGEST)))


def _multiplication(cpu: Cpu) -> Callable[[], object]:
    plan = planner.plan(DENSE, Budget("implicit_gemm"), cpu)
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape, np.float32) for shape in (DENSE.x_shape, DENSE.weight_shape))
    packed, out = plan.pack(weight, None), aligned_empty(DENSE.y_shape, x.dtype)
    return lambda: plan.run(x, packed, None, out, 1)


def _stream(working_set: int) -> float:
    """GB/s of one core that reads an array and writes another, which together have so many bytes."""
    x, y = (np.ones(working_set // 8, np.float32) for _ in range(2))
    return 2 * x.nbytes / _shortest(lambda: np.multiply(x, 1.5, out=y)) / 1e9


def _shortest(call: Callable[[], object]) -> float:
    call()
    best, end = math.inf, time.perf_counter() + SECONDS
    while True:
        start = time.perf_counter()
        call()
        stop = time.perf_counter()
        best = min(best, stop - start)
        if stop > end:
            return best
