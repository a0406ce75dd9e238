"""Builds the one extension: Cython glue, the thread pool, and the micro-kernels once per instruction set."""

import importlib.util
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

NATIVE = Path("src/cpuconv/_native")
# Contraction is what makes a*b+c an FMA; without errno and traps the compiler may vectorise selections. Loops that clear or copy a few vectors
# stay loops: calls of memset and memcpy cost more.
FLAGS = ["-std=gnu11", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
         "-fno-tree-loop-distribute-patterns", "-g0", "-pthread", "-fvisibility=hidden"]

spec = importlib.util.spec_from_file_location("isa", NATIVE / "isa.py")
isa = importlib.util.module_from_spec(spec)
spec.loader.exec_module(isa)
ISAS = isa.isas_of(sysconfig.get_platform().rsplit("-", 1)[-1])  # the target's, when cross-compiling
KERNELS = ["setup.py", *(str(p) for pattern in ("isa.py", "*.h", "ukernels/*.c") for p in NATIVE.rglob(pattern))]  # what these are made of


class BuildExt(build_ext):
    def build_extension(self, ext):
        def objects(row):
            sources = [str(NATIVE / "ukernels" / f"{row.symbol}.c")]
            (made,) = self.compiler.object_filenames(sources, output_dir=self.build_temp)
            if self.force or newer_group(KERNELS, made, "newer"):
                self.compiler.compile(sources, output_dir=self.build_temp, extra_postargs=[*FLAGS, *row.flags])
            return made

        with ThreadPoolExecutor() as pool:
            ext.extra_objects += pool.map(objects, ISAS)
        super().build_extension(ext)


features = dict.fromkeys(f for row in ISAS for f in row.features)
core = Extension(
    "cpuconv._native.core",
    [str(NATIVE / "core.pyx"), str(NATIVE / "pool.c"), str(NATIVE / "separable.c")],
    include_dirs=[str(NATIVE)],
    define_macros=[
        ("CPUCONV_TABLES", " ".join(f"TABLE({row.symbol}, {row.floats.replace('-', '_')}, \"{row.name}\")" for row in ISAS)),
        ("CPUCONV_FEATURES", " ".join(f'FEATURE("{f}")' for f in features)),
    ],
    extra_compile_args=FLAGS,
    extra_link_args=["-pthread"],
    libraries=["m"],
    depends=[*KERNELS, *(str(p) for p in NATIVE.glob("*.px*"))],
)
setup(ext_modules=cythonize([core], include_path=[str(NATIVE)]), cmdclass={"build_ext": BuildExt})
