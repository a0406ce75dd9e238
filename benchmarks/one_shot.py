"""Time `cpuconv.conv2d`, which packs its weight at every call, against PyTorch's `conv2d` on the layers of the standard networks.

    pip install '.[cli]' torch && python benchmarks/one_shot.py

float32, batch 1, both layouts (PyTorch's channels_last for NHWC), as Markdown: how many times as fast as PyTorch. Needs a quiet machine.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import click
import torch
from rich.console import Console
from rich.progress import track

import cpuconv
from cpuconv import Problem, planner
from cpuconv.bench.layers import CLASSES, Layer, all_layers, class_of
from cpuconv.bench.measure import data, minima
from cpuconv.bench.report import geometric_mean, setting, table
from cpuconv.planner import Budget

ROUNDS = 20  # of few, a busy second decides some


@dataclass(frozen=True)
class Row:
    """Seconds of both, and of packing the weight for cpuconv's choice."""

    layer: Layer
    layout: str
    ours: float
    theirs: float
    algorithm: str
    packing: float

    @property
    def ratio(self) -> float:
        return self.theirs / self.ours


def measure(layer: Layer, layout: str, threads: int, seconds: float) -> Row:
    p = replace(layer.problem, layout=layout, epilogue=replace(layer.problem.epilogue, bias=True))
    x, w, b = data(p)
    plan = planner.plan(p, Budget(one_shot=True))
    padding = (p.padding[:2], p.padding[2:])
    tx, tw = (torch.from_numpy(a) for a in (x, w))
    if layout == "nhwc":
        tx, tw = tx.permute(0, 3, 1, 2), tw.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    tb = torch.from_numpy(b)

    def theirs() -> None:
        with torch.inference_mode():
            torch.nn.functional.conv2d(tx, tw, tb, p.stride, (p.padding[0], p.padding[2]), p.dilation, p.groups)

    calls: dict[str, Callable[[], object]] = {
        "ours": lambda: cpuconv.conv2d(x, w, b, p.stride, padding, p.dilation, p.groups, layout=layout.upper()),
        "theirs": theirs,
        "packing": lambda: plan.pack(w, b),
    }
    times = minima(calls, seconds, rounds=ROUNDS, threads=threads)
    return Row(layer, layout, times["ours"], times["theirs"], algorithm_of(p), times["packing"])


def algorithm_of(p: Problem) -> str:
    return planner.choose(p, Budget(one_shot=True), cpuconv.cpu.detect()).algorithm.name


@click.command(help=__doc__.splitlines()[0])
@click.option("--layers", "pattern", default="", metavar="REGEX", help="Only layers whose name matches.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=0.05, show_default=True, help="For each layer and library.")
@click.option("--worst", default=20, show_default=True, help="How many layers to print.")
def main(pattern: str, threads: int, seconds: float, worst: int) -> None:
    cpuconv.set_num_threads(threads)
    torch.set_num_threads(threads)
    layers = [layer for layer in all_layers() if re.search(pattern, layer.name)]
    pairs = [(layer, layout) for layer in layers for layout in ("nchw", "nhwc")]
    console = Console(stderr=True)
    rows = [measure(*pair, threads, seconds) for pair in track(pairs, description="Layers", console=console, transient=True)]

    summary = []
    for layout in ("nchw", "nhwc"):
        for title in (*CLASSES, "all"):
            found = [r for r in rows if r.layout == layout and title in ("all", class_of(r.layer.problem))]
            if found:
                last = min(found, key=lambda r: r.ratio)
                slower = str(sum(r.ratio < 1 for r in found))
                mean = geometric_mean(r.ratio for r in found)
                summary.append([layout.upper(), f"{title} ({len(found)})", f"{mean:.2f}x", f"{last.ratio:.2f}x {last.layer.name}", slower])
    print(setting(threads) + "\n")
    print(table(("layout", "class (layers)", "geometric mean", "worst layer", "layers slower than PyTorch"), summary) + "\n")
    details = []
    for r in sorted(rows, key=lambda r: r.ratio)[:worst]:
        times = (f"{t * 1e6:.0f}" for t in (r.ours, r.theirs, r.packing))
        details.append([r.layer.name, r.layout.upper(), f"{r.ratio:.2f}x", *times, r.algorithm])
    print(table(("layer", "layout", "ratio", "cpuconv us", "PyTorch us", "packing us", "algorithm"), details))


if __name__ == "__main__":
    main()
