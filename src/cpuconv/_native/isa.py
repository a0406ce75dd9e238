"""The instruction sets that the micro-kernels are compiled for: the one table that the build and the run time read.

``setup.py`` compiles ``ukernels/<name>.c`` with ``flags`` for each row of the target machine; ``cpu.py`` picks, of the rows
whose ``features`` the CPU and the operating system have, the last. A row's features are all that its flags let the compiler use.
"""

from typing import NamedTuple


class Isa(NamedTuple):
    name: str  # of the stub in ukernels/, with "_" for "-"
    machines: tuple[str, ...]
    flags: tuple[str, ...]
    features: tuple[str, ...]  # as __builtin_cpu_supports spells them; on aarch64, as /proc/cpuinfo does
    vector_bytes: int
    fma_per_cycle: int  # vector FMAs (or multiply-add pairs) that a usual core of this level starts in a cycle
    level: str | None = None  # the row whose floating kernels serve here too, where only those of 8-bit integers have new instructions

    @property
    def symbol(self) -> str:
        return self.name.replace("-", "_")

    @property
    def floats(self) -> str:
        """Name of the row that has the floating kernels."""
        return self.level or self.name


_X86_64 = ("x86_64", "amd64")
_AARCH64 = ("aarch64", "arm64")
_V2 = ("popcnt", "sse3", "ssse3", "sse4.1", "sse4.2")
_V3 = (*_V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")

ISAS = (
    Isa("generic", (), (), (), 16, 1),
    Isa("x86-64-v2", _X86_64, ("-march=x86-64-v2",), _V2, 16, 1),
    Isa("x86-64-v3", _X86_64, ("-march=x86-64-v3",), _V3, 32, 2),
    Isa("x86-64-v3-vnni", _X86_64, ("-march=x86-64-v3", "-mavxvnni"), (*_V3, "avxvnni"), 32, 2, "x86-64-v3"),
    Isa("x86-64-v4", _X86_64, ("-march=x86-64-v4", "-mprefer-vector-width=512"), _V4, 64, 1),
    Isa("x86-64-v4-vnni", _X86_64, ("-march=x86-64-v4", "-mprefer-vector-width=512", "-mavx512vnni"), (*_V4, "avx512vnni"), 64, 1, "x86-64-v4"),
    Isa("aarch64-neon", _AARCH64, ("-march=armv8-a",), (), 16, 2),
    Isa("aarch64-neon-dotprod", _AARCH64, ("-march=armv8.2-a+dotprod",), ("asimddp",), 16, 2, "aarch64-neon"),
)


def isas_of(machine: str) -> tuple[Isa, ...]:
    """Rows for a machine as ``platform.machine()`` names it, weakest first; the generic row where it is none of ours."""
    return tuple(isa for isa in ISAS if machine.lower() in isa.machines) or ISAS[:1]
