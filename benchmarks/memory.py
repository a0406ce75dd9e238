"""Peak memory of the layers of ResNet-50, one after the other, in cpuconv, ncnn and PyTorch, each in a process of its own.

    pip install '.[bench]' torch && python benchmarks/memory.py

float32, one thread, as Markdown: peak resident memory beyond that after importing and making one small layer; once with every layer freed before the
next is made, and once with all kept, as a network keeps them. Then what cpuconv says of itself: scratch and packed weights.
"""

import json
import subprocess
import sys

import click

from cpuconv import planner
from cpuconv.bench.layers import layers_of
from cpuconv.bench.peers import ALL
from cpuconv.bench.report import setting, table
from cpuconv.planner import Budget
from cpuconv.problem import Problem

NAMES = ("cpuconv_nchw", "cpuconv_nhwc", "ncnn", "torch", "torch_cl", "ort")
MIB = 1 << 20

WORKER = """
import json, os, resource, sys
from cpuconv import Problem
from cpuconv.bench.measure import data
from cpuconv.bench.peers import ALL

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def run(p):
    x, w, b = data(p)
    runner = ALL[name].build(p, x, w, b, 1)
    runner.run()
    return runner, (w, b)

name, keep, specs = json.loads(sys.argv[1])
run(Problem(n=1, ic=16, ih=8, iw=8, oc=16, kh=3, kw=3))
before, kept = peak(), []
for spec in specs:
    made = run(Problem.parse(spec))
    if keep:
        kept.append(made)
    del made
sys.stdout.write(str(peak() - before))
sys.stdout.flush()
os._exit(0)
"""


def peak(name: str, keep: bool, problems: list[Problem]) -> str:
    job = json.dumps([name, keep, list(map(str, problems))])
    done = subprocess.run([sys.executable, "-c", WORKER, job], capture_output=True, text=True)
    return f"{int(done.stdout) / MIB:.0f}" if done.returncode == 0 else "failed"


@click.command(help=__doc__.splitlines()[0])
@click.option("--layers", "count", default=53, show_default=True, type=click.IntRange(1), help="Only so many of the network's 53.")
def main(count: int) -> None:
    problems = [layer.problem for layer in layers_of("ResNet-50") for _ in range(layer.count)][:count]
    weights = sum(4 * p.oc * (p.k + 1) for p in problems)
    largest = max(4 * (p.oc * (p.k + 1) + p.ic * p.ih * p.iw + p.oc * p.oh * p.ow) for p in problems)
    rows = [[ALL[name].title, *(peak(name, keep, problems) for keep in (False, True))] for name in NAMES if not ALL[name].missing]
    rows.append(["the data themselves: of the largest layer, all weights", f"{largest / MIB:.0f}", f"{weights / MIB:.0f}"])
    print(setting(1) + "\n")
    print(table(("contestant", "peak MiB, layers freed", "peak MiB, layers kept"), rows) + "\n")
    costs = [planner.plan(p, Budget()).cost for p in problems]
    rows = [
        ["scratch of a thread, largest", f"{max(c.workspace for c in costs) / MIB:.1f}"],
        ["packed weight, largest", f"{max(c.packed for c in costs) / MIB:.1f}"],
        ["packed weights, all", f"{sum(c.packed for c in costs) / MIB:.1f}"],
        ["weights, all", f"{weights / MIB:.1f}"],
    ]
    print(table(("cpuconv NCHW", "MiB"), rows))


if __name__ == "__main__":
    main()
