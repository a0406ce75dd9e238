"""The shape of the package: which way imports run, what importing costs, what the compiled baseline may contain."""

import ast
import functools
import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

import cpuconv
from cpuconv._native import core
from cpuconv._native.isa import ISAS, isas_of
from cpuconv.algorithms import ALGORITHMS

PACKAGE = Path(cpuconv.__file__).parent
ROOT = Path(__file__).parents[1]
NATIVE = ROOT / "src/cpuconv/_native"

# What each part may import, of this package. A part is a module or a subpackage; nothing listed here may be imported by
# those above it, so imports run one way.
LEAVES = {"errors", "version"}
MAY_IMPORT = {
    "errors": set(),
    "version": set(),
    "verbose": set(),
    "files": set(),
    "problem": set(),
    "_native": {"_native"},
    "_jit": {"_jit", "_native"},
    "cpu": {"_native", *LEAVES},
    "threads": {"cpu", "_native", *LEAVES},
    "plan": {"_native", "cpu", "problem", *LEAVES},
    "reference": {"plan", "problem", *LEAVES},
    "algorithms": {"algorithms", "_jit", "_native", "cpu", "plan", "problem", "reference", "threads", *LEAVES},
    "wisdom": {"cpu", "problem", *LEAVES},
    "pieces": {"problem", *LEAVES},
    "composite": {"pieces", "cpu", "plan", "problem", "reference", "threads", *LEAVES},
    "planner": {"algorithms", "composite", "cpu", "plan", "problem", "verbose", "wisdom", *LEAVES},
    "arguments": {"plan", "problem", *LEAVES},
    "options": {"arguments", "plan", "problem", *LEAVES},
    "layer": {"options", "arguments", "planner", "plan", "problem", "threads", "wisdom", *LEAVES},
    "layers": {"layer", "options", *LEAVES},
    "tuning": {"layer", "planner", "cpu", "plan", "problem", "wisdom", *LEAVES},
    "calibration": {"_native", "planner", "cpu", "plan", "problem", "wisdom", *LEAVES},
    "once": {"layer", "options", "arguments", "planner", "plan", "threads", *LEAVES},
    "functional": {"once", "options", "plan", *LEAVES},
    "transposed": {"functional", "once", "options", "plan", *LEAVES},
    "shapes": {"functional", "options", "arguments", "problem", *LEAVES},
    "quantized": {"quantized", "layer", "options", "arguments", "plan", *LEAVES},
    "receptive": {"layer", "options", "arguments", *LEAVES},
    "stencils": {"functional", "arguments", "plan", *LEAVES},
    "involution": {"algorithms", "_native", "options", "arguments", "cpu", "plan", "problem", "threads", *LEAVES},
    "separable": {"layer", "layers", "algorithms", "_native", "arguments", "cpu", "plan", "problem", "threads", *LEAVES},
    "grad": {"functional", "once", "options", "arguments", "planner", "plan", "problem", "threads", *LEAVES},
    "config": {"cpu", "threads", "wisdom", *LEAVES},
}
FREE = {"__init__", "__main__", "bench", "cli"}  # the outermost: may import everything


def modules() -> list[Path]:
    return sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Modules of this package that a file imports, anywhere in it, as dotted names without the package's."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("cpuconv.") for name in found if name.split(".")[0] == "cpuconv"}


@pytest.mark.parametrize("path", modules(), ids=str)
def test_imports_run_one_way(path):
    part = path.parts[0].removesuffix(".py")
    if part in FREE:
        return
    assert part in MAY_IMPORT, f"{part} is new: say above what it may import"
    foreign = {name for name in imports(path) if name.split(".")[0] not in MAY_IMPORT[part]}
    assert not foreign


@pytest.mark.parametrize("path", [p for p in modules() if p.parts[0] == "algorithms"], ids=str)
def test_algorithms_do_not_import_each_other(path):
    families = {type(a).__module__.removeprefix("cpuconv.") for a in ALGORITHMS}
    if path.name != "__init__.py":
        own = ".".join(path.with_suffix("").parts)
        others = {family for family in families - {own} if any(f"{name}.".startswith(f"{family}.") for name in imports(path))}
        assert not others


@pytest.mark.skipif(not NATIVE.exists(), reason="needs the sources")
def test_the_native_core_knows_no_problem():
    for part in NATIVE.glob("*.px*"):
        assert not re.search(r"cpuconv\.(?!_native)|import .*problem", part.read_text()), part.name


def fresh(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False)


HEAVY = ["numba", "llvmlite", "torch", "scipy", "click", "rich", "matplotlib", "PIL", "ml_dtypes", "multiprocessing", "platformdirs", "email"]


@pytest.mark.parametrize("heavy", HEAVY)
def test_importing_is_light(heavy):
    assert loaded_by_import().isdisjoint({heavy})


@functools.cache
def loaded_by_import() -> set[str]:
    # NumPy's own imports do not count
    done = fresh("import sys, numpy; before = set(sys.modules); import cpuconv; print(*(set(sys.modules) - before))")
    assert done.returncode == 0, done.stderr
    assert "cpuconv.planner" in done.stdout
    return {name.split(".")[0] for name in done.stdout.split()}


def test_a_plain_call_compiles_nothing():
    call = "cpuconv.conv2d(np.ones((1, 64, 30, 30), 'f4'), np.ones((64, 64, 3, 3), 'f4'))"
    code = f"import sys, numpy as np, cpuconv; {call}; print('numba' in sys.modules)"
    assert fresh(code).stdout.split() == ["False"]


@pytest.mark.parametrize("isa", cpuconv.cpu.available_isas())
def test_the_isa_can_be_capped(isa):
    assert fresh("import cpuconv.cpu; print(cpuconv.cpu.detect().isa)", CPUCONV_MAX_ISA=isa).stdout.strip() == isa


def test_a_wrong_cap_names_the_variable():
    error = fresh("import cpuconv.cpu; cpuconv.cpu.detect()", CPUCONV_MAX_ISA="avx9").stderr
    assert re.search(r"ValueError: CPUCONV_MAX_ISA: 'avx9' is not one of .*" + isas_of(platform.machine())[0].name, error)


def test_types_are_shipped():
    assert resources.files(cpuconv).joinpath("py.typed").is_file()


def test_the_public_names_are_sorted_and_there():
    assert cpuconv.__all__ == sorted(cpuconv.__all__)
    assert all(hasattr(cpuconv, name) for name in cpuconv.__all__)


on_x86 = pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="x86-64 only")
needs_objdump = pytest.mark.skipif(not shutil.which("objdump"), reason="needs objdump")

# Of BMI, LZCNT and MOVBE, which x86-64-v2 lacks. (TZCNT is how objdump spells "rep bsf", which runs everywhere.)
BEYOND_V2 = {"andn", "bextr", "blsi", "blsr", "blsmsk", "bzhi", "mulx", "pdep", "pext", "rorx", "sarx", "shlx", "shrx", "lzcnt", "movbe"}


def objdump(*options: str) -> str:
    return subprocess.run(["objdump", *options, core.__file__], check=True, capture_output=True, text=True).stdout


@functools.cache
def beyond_baseline() -> dict[str, set[str]]:
    """By source file of the extension ("" for exported functions): instructions that x86-64-v2 lacks, and wide registers."""
    sources, source = {}, ""
    for address, scope, kind, name in re.findall(r"^([0-9a-f]{16}) (.).....(.) \S+\t\S+ +(?:\.hidden )?(\S*)$", objdump("-t"), re.MULTILINE):
        if kind == "f":
            source = name
        elif kind == "F" and scope == "l":
            sources[int(address, 16)] = source
    if not sources:
        pytest.skip("the extension is stripped of its symbols")
    found = {source: set() for source in sources.values()}
    for function in objdump("-d", "--no-show-raw-insn").split("\n\n"):
        if start := re.match(r"([0-9a-f]{16}) <", function):
            mnemonics = set(re.findall(r"^\s+[0-9a-f]+:\t(?:(?:rep|repz|repnz|lock|data16|notrack|cs|bnd) )*(\w+)", function, re.MULTILINE))
            wide = {m for m in mnemonics if m.startswith("v") or m.rstrip("lqw") in BEYOND_V2 or m in BEYOND_V2}
            found.setdefault(sources.get(int(start[1], 16), ""), set()).update(wide, re.findall(r"%([yz]mm|k[0-7]\b)", function))
    return found


@on_x86
@needs_objdump
def test_only_kernels_above_the_baseline_use_avx():
    above = {f"{row.symbol}.c" for row in isas_of("x86_64")} - {"x86_64_v2.c"}
    assert {"", "core.c", "pool.c", "separable.c", "x86_64_v2.c"} <= beyond_baseline().keys()
    assert {source: wide for source, wide in beyond_baseline().items() if wide and source not in above} == {}


@on_x86
@needs_objdump
def test_the_search_for_avx_finds_it():
    found = beyond_baseline()["x86_64_v3.c"]
    assert "ymm" in found and found & BEYOND_V2 and any(m.startswith("v") for m in found)


@on_x86
def test_each_isa_states_all_that_its_flags_allow():
    """A level's features contain those of the level below, so that no weaker CPU slips through."""
    rows = [row for row in isas_of("x86_64") if row.level is None]
    for weaker, stronger in itertools.pairwise(rows):
        assert set(weaker.features) < set(stronger.features)
        assert weaker.vector_bytes < stronger.vector_bytes


@pytest.mark.parametrize("row", [row for row in ISAS if row.level], ids=lambda row: row.name)
def test_an_isa_of_new_dot_products_comes_after_its_level(row):
    """The last row that a CPU can run is taken."""
    (level,) = (other for other in ISAS if other.name == row.level)
    assert set(level.features) < set(row.features)
    assert level.vector_bytes == row.vector_bytes
    assert ISAS.index(level) < ISAS.index(row)
