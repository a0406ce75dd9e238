"""Time the layers of standard networks in cpuconv and in PyTorch, side by side, and print a Markdown table of ratios.

    pip install '.[cli]' torch
    python benchmarks/compare_torch.py --threads 1

float32, batch 1, bias, no activation; weights packed ahead in cpuconv, a fresh output in PyTorch (its API has no other). The two
take turns in rounds, so that a drift of the machine hits both; a figure is the ratio of the minima. Needs a quiet machine.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import click
import numpy as np
import torch
from rich.progress import track

import cpuconv
from cpuconv import Problem
from cpuconv.config import configuration
from networks import NETWORKS

KINDS = ("3x3 stride 1", "1x1", "depthwise", "other")


def kind(p: Problem) -> str:
    if p.groups > 1:
        return "depthwise"
    if (p.kh, p.kw) == (1, 1):
        return "1x1"
    return "3x3 stride 1" if (p.kh, p.kw, p.stride) == (3, 3, (1, 1)) else "other"


def runners(p: Problem) -> dict[str, Callable[[], object]]:
    """One call for each layout of each library, on the same data."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(p.x_shape, np.float32)
    w = rng.standard_normal(p.weight_shape, np.float32) / np.float32(math.sqrt(p.k))
    b = rng.standard_normal(p.oc, np.float32)
    calls: dict[str, Callable[[], object]] = {}
    for layout in ("NCHW", "NHWC"):
        nhwc = layout == "NHWC"
        data = np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if nhwc else x
        weight = w.transpose(2, 3, 1, 0) if nhwc else w
        layer = cpuconv.Conv2d(weight, b, p.stride, (p.padding[:2], p.padding[2:]), p.dilation, p.groups, layout=layout)
        out = np.empty_like(layer(data))
        calls[f"cpuconv {layout}"] = lambda layer=layer, data=data, out=out: layer(data, out=out)
        form = torch.channels_last if nhwc else torch.contiguous_format
        tx, tw = (torch.from_numpy(a).contiguous(memory_format=form) for a in (x, w))
        tb = torch.from_numpy(b)
        calls[f"torch {layout}"] = lambda tx=tx, tw=tw, tb=tb: torch.nn.functional.conv2d(
            tx, tw, tb, p.stride, (p.padding[0], p.padding[2]), p.dilation, p.groups
        )
    return calls


def minima(calls: dict[str, Callable[[], object]], seconds: float, rounds: int = 3) -> dict[str, float]:
    best = dict.fromkeys(calls, math.inf)
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(0.01)  # the other library's threads spin a while after their last call
            call()
            end = time.perf_counter() + seconds / rounds
            while True:
                start = time.perf_counter()
                call()
                best[name] = min(best[name], time.perf_counter() - start)
                if time.perf_counter() > end:
                    break
    return best


def geometric_mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


@click.command(help=__doc__.splitlines()[0])
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=0.15, show_default=True, help="For each layer and library.")
@click.option("--network", "networks", multiple=True, type=click.Choice(list(NETWORKS)), help="Only these; all by default.")
def main(threads: int, seconds: float, networks: tuple[str, ...]) -> None:
    cpuconv.set_num_threads(threads)
    torch.set_num_threads(threads)
    problems = {p for name in networks or NETWORKS for p in NETWORKS[name]}
    ratios: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with torch.inference_mode():
        for p in track(sorted(problems, key=str), description="Layers", transient=True):
            calls = runners(replace(p, layout="nchw"))
            t = minima(calls, seconds)
            for layout in ("NCHW", "NHWC"):
                ratios[kind(p)][layout].append(t[f"torch {layout}"] / t[f"cpuconv {layout}"])
            best = min(t["torch NCHW"], t["torch NHWC"]) / min(t["cpuconv NCHW"], t["cpuconv NHWC"])
            ratios[kind(p)]["best"].append(best)
    c = configuration()
    print(f"cpuconv {c['cpuconv']} against PyTorch {torch.__version__}, {threads} thread(s), {c['cpu']} ({c['isa']})\n")
    print("| layers | NCHW | NHWC | better layout of each | slowest layer |\n|---|---|---|---|---|")
    for name in KINDS:
        if name in ratios:
            means = " | ".join(f"{geometric_mean(ratios[name][key]):.2f}x" for key in ("NCHW", "NHWC", "best"))
            print(f"| {name} ({len(ratios[name]['best'])}) | {means} | {min(ratios[name]['best']):.2f}x |")


if __name__ == "__main__":
    main()
