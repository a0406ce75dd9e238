"""What the machine can do at most: multiply-adds and copied bytes a second, measured."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from cpuconv import cpu

ACCUMULATORS = 12  # enough to hide the latency of two multiply-adds a cycle, and few enough for 16 registers
REPEATS = 1_000_000


@dataclass(frozen=True)
class Roofs:
    """GFLOP/s of float32 multiply-adds, of one core and of all threads; GB/s, read plus written, of a copy in memory and within L2."""

    core_gflops: float
    gflops: float
    memory: float
    cache: float


def measure_roofs(threads: int) -> Roofs:
    """Measure with so many threads, in about two seconds. Without llvmlite the peak is computed from the CPU's nominal clock."""
    machine = cpu.detect()
    vector = machine.vector_length("f32")
    with ThreadPoolExecutor(threads) as pool:
        try:
            engine, loop = _fma_loop(vector)
        except ImportError:
            core = machine.peak("f32") / 1e9
            peak = core * threads
        else:
            work = 2.0 * vector * ACCUMULATORS * REPEATS / 1e9
            core = work / _best([lambda: loop(REPEATS)], pool)
            peak = threads * work / _best([lambda: loop(REPEATS)] * threads, pool) if threads > 1 else core
            del engine  # lives as long as its code is called
        large = max(64 << 20, min(4 * machine.l3, 512 << 20))
        memory = _copy_rate(large // threads, 1, threads, pool)
        cache = _copy_rate(machine.l2 // 4, 200, threads, pool)
    return Roofs(core, peak, memory, cache)


def _best(calls: list[Callable[[], object]], pool: ThreadPoolExecutor, rounds: int = 5) -> float:
    """The shortest time in which all calls end, each in a thread."""

    def once() -> float:
        start = time.perf_counter()
        for future in [pool.submit(call) for call in calls]:
            future.result()
        return time.perf_counter() - start

    return min(once() for _ in range(rounds))


def _copy_rate(size: int, repeats: int, threads: int, pool: ThreadPoolExecutor) -> float:
    pairs = [(np.ones(size // 8), np.zeros(size // 8)) for _ in range(threads)]

    def copier(source: Any, target: Any) -> Callable[[], None]:
        def copy() -> None:
            for _ in range(repeats):
                np.copyto(target, source)

        return copy

    return 2.0 * size * repeats * threads / _best([copier(*pair) for pair in pairs], pool) / 1e9


def _fma_loop(vector: int) -> tuple[Any, Callable[[int], object]]:
    """A loop of independent multiply-adds on vectors of so many floats, and the engine that its code lives in."""
    import llvmlite.binding as llvm

    kind = f"<{vector} x float>"
    names = range(ACCUMULATORS)
    phis = "\n".join(f"  %a{i} = phi {kind} [ zeroinitializer, %entry ], [ %b{i}, %loop ]" for i in names)
    steps = "\n".join(f"  %b{i} = call {kind} @llvm.fma.v{vector}f32({kind} %x, {kind} %x, {kind} %a{i})" for i in names)
    sums = "\n".join(f"  %s{i + 1} = fadd {kind} %s{i}, %b{i}" for i in names)
    code = f"""
declare {kind} @llvm.fma.v{vector}f32({kind}, {kind}, {kind})

define void @multiply_add(i64 %count, ptr %to) {{
entry:
  %x = load {kind}, ptr %to, align 4
  br label %loop
loop:
  %n = phi i64 [ 0, %entry ], [ %m, %loop ]
{phis}
{steps}
  %m = add i64 %n, 1
  %go = icmp slt i64 %m, %count
  br i1 %go, label %loop, label %end
end:
  %s0 = fadd {kind} zeroinitializer, zeroinitializer
{sums}
  store {kind} %s{ACCUMULATORS}, ptr %to, align 4
  ret void
}}
"""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(code), target)
    engine.finalize_object()
    function = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(engine.get_function_address("multiply_add"))
    return engine, lambda count: function(count, (ctypes.c_float * vector)())
