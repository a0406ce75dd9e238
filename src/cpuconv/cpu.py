"""Frozen facts about the CPU: which ISA may be used, how many cores this process may use, how large the caches are."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

from cpuconv._native import core
from cpuconv._native.isa import ISAS, Isa, isas_of

PIECEWISE = 0.5  # the share of a stream's rate that convolutions reach, which read rows and tiles


class Rates(NamedTuple):
    """What one core does, for cost models: `calibrate` measures it, `typical_rates` stands in where it has not."""

    ghz: float  # cycles
    fma_per_cycle: float  # multiply-adds of vectors
    l2: float  # GB/s read and written in a stream, going round half of this cache
    l3: float
    memory: float

    def __str__(self) -> str:
        streams = f"streams of {self.l2:.0f} GB/s in L2, {self.l3:.0f} in L3, {self.memory:.0f} in memory"
        return f"{self.ghz:.2f} GHz, {self.fma_per_cycle:.2f} multiply-adds of vectors a cycle, {streams}"


def typical_rates(isa: Isa, model: str) -> Rates:
    """Those of an AMD Zen 4 core, on which the cost models were fitted; with AVX-512 on an Intel Xeon, those of a virtual machine on such a one
    (Emerald Rapids): two multiply-adds a cycle, but a slow L3; on an AMD Zen 5 those of a virtual machine on an EPYC."""
    if isa.vector_bytes == 64 and "Xeon" in model:
        return Rates(ghz=3.0, fma_per_cycle=1.8, l2=69.0, l3=29.0, memory=13.0)
    if isa.vector_bytes == 64 and "AMD" in model and "family 26" in model:
        return Rates(ghz=4.2, fma_per_cycle=2.0, l2=187.0, l3=115.0, memory=42.0)
    return Rates(ghz=3.5, fma_per_cycle=isa.fma_per_cycle, l2=92.0, l3=80.0, memory=30.0)


@dataclass(frozen=True)
class Cpu:
    """What algorithms may know about the machine. Cache sizes in bytes; `l3` is shared by all cores."""

    model: str
    isa: str
    cores: int
    l1: int
    l2: int
    l3: int
    measured: Rates | None = None

    @cached_property
    def isa_row(self) -> Isa:
        return next(row for row in ISAS if row.name == self.isa)

    @cached_property
    def rates(self) -> Rates:
        return self.measured or typical_rates(self.isa_row, self.model)

    @cached_property
    def _pace(self) -> tuple[float, float]:
        """Gigacycles a second, and multiply-adds of vectors in a cycle, as cost models count them. An AMD core whose pipes are all as wide as
        vectors of AVX-512 (Zen 5) counts as one of half the width (Zen 4) and twice the clock: all that it does with vectors takes half as
        many cycles. The wide cores of Intel have a second port for multiply-adds, and little else besides."""
        ghz, fma_per_cycle = self.rates[:2]
        alike = self.isa_row.vector_bytes == 64 and "AMD" in self.model
        return (ghz * fma_per_cycle, 1.0) if alike else (ghz, fma_per_cycle)

    @property
    def ghz(self) -> float:
        return self._pace[0]

    @property
    def fma_per_cycle(self) -> float:
        return self._pace[1]

    @property
    def quickness(self) -> float:
        """Multiply-adds a cycle over those of a usual core of this level: what takes cycles beside them costs so many times as many of them."""
        return self.fma_per_cycle / self.isa_row.fma_per_cycle

    @property
    def slow_l3(self) -> bool:
        """Whether L3 lies across a mesh of many cores, as an Intel Xeon's, of which one reads 10 bytes a cycle; AMD's give 18 to 27."""
        return self.rates.l3 < 15 * self.rates.ghz

    @property
    def halves(self) -> bool:
        """Whether two multiply-adds of half vectors take as long as one of whole ones, as on an AMD Zen 4 with AVX-512: there, panels may end in
        half a vector. It is of the model, not measured: what was packed stays as it is."""
        return self.isa_row.vector_bytes == 64 and typical_rates(self.isa_row, self.model).fma_per_cycle < 1.5

    def packed_columns(self, dtype: str, columns: int) -> int:
        """Columns of a GEMM operand after padding to panels."""
        return core.packed_columns(self.isa, dtype, self.halves, columns)

    def peak(self, dtype: str) -> float:
        """Floating-point operations a second of one core in multiply-adds."""
        return 2e9 * self.ghz * self.fma_per_cycle * self.vector_length(dtype)

    def vector_length(self, dtype: str) -> int:
        return self.isa_row.vector_bytes // (8 if dtype == "f64" else 4)

    def bandwidth(self, working_set: float) -> float:
        """Bytes a second that one core streams in convolutions that go round `working_set` bytes."""
        if working_set <= self.l2:
            return PIECEWISE * 1e9 * self.rates.l2
        missing = max(0.0, 1 - self.l3 / working_set)
        return PIECEWISE * 1e9 / ((1 - missing) / self.rates.l3 + missing / self.rates.memory)


def available_isas() -> tuple[str, ...]:
    """ISAs that this CPU and operating system can run, weakest first."""
    features = core.cpu_features()
    return tuple(row.name for row in isas_of(platform.machine()) if features.issuperset(row.features))


@cache
def detect() -> Cpu:
    """The CPU this process runs on, capped by ``CPUCONV_MAX_ISA``.

    Raises
    ------
    ValueError
        If ``CPUCONV_MAX_ISA`` is not the name of an ISA.
    RuntimeError
        If the CPU lacks even the weakest ISA of this build.
    """
    usable = list(available_isas())
    if not usable:
        raise RuntimeError(f"cpuconv needs a CPU with at least {isas_of(platform.machine())[0].name}")
    if limit := os.environ.get("CPUCONV_MAX_ISA"):
        names = [row.name for row in isas_of(platform.machine())]
        if limit not in names:
            raise ValueError(f"CPUCONV_MAX_ISA: {limit!r} is not one of {', '.join(names)}")
        usable = [isa for isa in usable if names.index(isa) <= names.index(limit)]
    l1, l2, l3 = _caches()
    return Cpu(_model(), usable[-1], _cores(), l1, l2, l3)


def with_isa(cpu: Cpu, isa: str) -> Cpu:
    """The same machine restricted to another ISA."""
    return replace(cpu, isa=isa)


def _model() -> str:
    """What /proc/cpuinfo calls the first CPU; on x86 with the numbers of its kind, as virtual machines often tell no more than the maker's name."""
    facts: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    name = next((facts[key] for key in ("model name", "Model", "Hardware") if key in facts), "")
    if not name:
        return platform.processor() or platform.machine()
    return f"{name} (family {facts['cpu family']}, model {facts['model']})" if {"cpu family", "model"} <= facts.keys() else name


def _cores() -> int:
    """Cores that the scheduler gives this process: its affinity, cut by the cgroup's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return cores


def _caches() -> tuple[int, int, int]:
    """L1 data, L2 and L3 in bytes; where the system does not say, those of a small core of today."""
    sizes = {1: 32 << 10, 2: 512 << 10, 3: 0}
    for entry in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            if (entry / "type").read_text().strip() != "Instruction":
                sizes[int((entry / "level").read_text())] = int((entry / "size").read_text().strip().removesuffix("K")) << 10
        except (OSError, ValueError):
            continue
    return sizes[1], sizes[2], sizes[3] or sizes[2]
