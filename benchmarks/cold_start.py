"""What comes before the first result: importing, the first call of a layer, compiling `direct`, and packing weights.

    python benchmarks/cold_start.py

Each figure is of a fresh process (the median and the least of some), as Markdown; imports are beyond NumPy's. PyTorch and ONNX Runtime are
imported too, where they are installed.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec

import click

from cpuconv.bench.report import setting, table

START = """
import json, time
import numpy as np
start = time.perf_counter()
"""
END = """
print(json.dumps(time.perf_counter() - start))
"""
LAYER = """
import cpuconv
from cpuconv.bench.layers import layers_of
from cpuconv.bench.measure import data, layer_of
cpuconv.set_num_threads(1)
p = next(layer.problem for layer in layers_of("ResNet-50") if layer.label == {label!r})
x, w, b = data(p)
start = time.perf_counter()
"""
FIRST = LAYER + "conv = layer_of(p, w, b, {algorithm!r}); conv(x)"
SECOND = LAYER + "conv = layer_of(p, w, b); conv(x); start = time.perf_counter(); conv(x)"
PYTHON_FUNCTION = LAYER + "cpuconv.conv2d(x, w, b, padding=1, activation=lambda v: v if v > 0.5 else 0.5)"
PACKING = """
from cpuconv import planner
from cpuconv.bench.layers import layers_of
from cpuconv.bench.measure import data
problems = [layer.problem for layer in layers_of("ResNet-50") for _ in range(layer.count)]
arrays = [data(p)[1:] for p in problems]
plans = [planner.plan(p, planner.Budget()) for p in problems]
start = time.perf_counter()
packed = [plan.pack(*pair) for plan, pair in zip(plans, arrays)]
"""
PLANNING = """
from cpuconv import planner
from cpuconv.bench.layers import layers_of
problems = [layer.problem for layer in layers_of("ResNet-50")]
start = time.perf_counter()
plans = [planner.plan(p, planner.Budget()) for p in problems]
"""


def seconds(code: str, cache: str) -> float:
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    done = subprocess.run([sys.executable, "-c", START + code + END], env=environment, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def row(title: str, code: str, runs: int, *, cold: bool = False) -> list[str]:
    """`cold`: with an empty cache of compiled code for each run."""
    with tempfile.TemporaryDirectory() as shared:
        times = []
        for i in range(runs + 1):
            with tempfile.TemporaryDirectory() as own:
                times.append(seconds(code, own if cold else shared))
            if cold and i == min(runs, 3) - 1:
                break
    kept = times if cold else times[1:]  # the first finds nothing in the disk's cache, nor in Numba's
    return [title, f"{statistics.median(kept) * 1e3:.1f}", f"{min(kept) * 1e3:.1f}"]


@click.command(help=__doc__.splitlines()[0])
@click.option("--runs", default=9, show_default=True, type=click.IntRange(1), help="Processes for each figure.")
def main(runs: int) -> None:
    layer = "3x3 64-64 @56"
    rows = [row("import cpuconv", "import cpuconv", runs)]
    rows += [row(f"import {name}", f"import {name}", min(runs, 3)) for name in ("torch", "onnxruntime") if find_spec(name)]
    rows += [
        row(f"first Conv2d and call, {layer}", FIRST.format(label=layer, algorithm="auto"), runs),
        row(f"second call, {layer}", SECOND.format(label=layer), runs),
        row("first `direct` layer, nothing compiled", FIRST.format(label=layer, algorithm="direct"), runs, cold=True),
        row("first `direct` layer, compiled before", FIRST.format(label=layer, algorithm="direct"), runs),
        row("first call with a Python function, nothing compiled", PYTHON_FUNCTION.format(label=layer), runs, cold=True),
        row("first call with a Python function, kernels compiled before", PYTHON_FUNCTION.format(label=layer), runs),
        row("planning the 23 distinct layers of ResNet-50", PLANNING, runs),
        row("packing the weights of ResNet-50 (53 layers)", PACKING, runs),
    ]
    print(setting(1) + "\n")
    print(table(("what", "median ms", "least ms"), rows))


if __name__ == "__main__":
    main()
