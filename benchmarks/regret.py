"""Print the planner's regret: the time of its choice over that of the best algorithm that it might have chosen, layer by layer.

    pip install '.[cli]' && python benchmarks/regret.py

All layers of the standard networks (or pictures, with `--pictures`) in both layouts, float32, batch 1, with the default budget, as Markdown.
Needs a quiet machine.

The best of several minima is partly luck. So where the choice was not the fastest, it meets the fastest again, and only those times count.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import click
import numpy as np
from rich.console import Console
from rich.progress import track

import cpuconv
from cpuconv import Problem, cpu, planner, wisdom
from cpuconv.bench.layers import Layer, all_layers
from cpuconv.bench.measure import data, layer_of, minima
from cpuconv.bench.report import geometric_mean, setting, table
from cpuconv.plan import aligned_empty
from cpuconv.planner import Budget

HOPELESS = 4.0  # candidates predicted at so many times the best are not timed, but for the first three
SURE = 3
ROUNDS = 4  # of the second meeting: each is as long as the first
CHANNELS = ((1, 1, 1), (1, 3, 1), (3, 1, 1), (3, 3, 1), (3, 3, 3), (4, 4, 4), (8, 8, 1), (8, 8, 8), (16, 32, 1), (32, 64, 1))  # in, out, groups
FILTERS = ((1, 1), (3, 1), (3, 2), (5, 1), (5, 2))  # kernel, stride
SIZES = (16, 64, 256, 1024)


@dataclass(frozen=True)
class Regret:
    layer: Layer
    layout: str
    chosen: str
    best: str
    seconds: dict[str, float]
    predicted: dict[str, float]

    @property
    def value(self) -> float:
        return max(1.0, self.seconds[self.chosen] / self.seconds[self.best])


def pictures() -> list[Layer]:
    """Filters of pictures, and of maps of few channels, whose sides are powers of two, which no network of the list has."""
    problems = (
        f"n1_ic{ic}_ih{size}_iw{size}_oc{oc}_kh{k}_kw{k}_s{stride}_p{k // 2}_d1_g{groups}_f32_nchw"
        for (ic, oc, groups), size, (k, stride) in product(CHANNELS, SIZES, FILTERS)
    )
    return [Layer("picture", Problem.parse(spec), 1) for spec in problems]


def contenders(p: Problem) -> dict[str, float]:
    """Algorithms that the default budget admits, the planner's choice first, and the seconds that they predict."""
    rows = [row for row in planner.candidates(p, Budget(), cpu.detect()) if row.cost and not row.rejection]
    predicted = {row.algorithm.name: row.cost.seconds for row in rows if row.cost and row.algorithm.name != "reference"}
    best = min(predicted.values())
    return {name: t for i, (name, t) in enumerate(predicted.items()) if i < SURE or t < HOPELESS * best}


def regret(layer: Layer, layout: str, threads: int, seconds: float) -> Regret:
    p = replace(layer.problem, layout=layout, epilogue=replace(layer.problem.epilogue, bias=True))
    x, w, b = data(p)
    predicted = contenders(p)
    out = aligned_empty(p.y_shape, np.dtype(np.float32))
    calls: dict[str, Callable[[], object]] = {}
    for name in predicted:
        calls[name] = partial(layer_of(p, w, b, name), x, out=out)
    times = minima(calls, seconds, pause=0, threads=threads)
    chosen, best = next(iter(predicted)), min(times, key=times.__getitem__)
    if chosen != best:
        times |= minima({name: calls[name] for name in (chosen, best)}, ROUNDS * seconds, rounds=ROUNDS, pause=0, threads=threads)
    return Regret(layer, layout, chosen, best, times, predicted)


@click.command(help=__doc__.splitlines()[0])
@click.option("--layers", "pattern", default="", metavar="REGEX", help="Only layers whose name matches.")
@click.option("--pictures", "of_pictures", is_flag=True, help="Pictures and maps of few channels instead of networks' layers.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=0.03, show_default=True, help="For each layer and algorithm.")
@click.option("--worst", default=20, show_default=True, help="How many layers to print.")
def main(pattern: str, of_pictures: bool, threads: int, seconds: float, worst: int) -> None:
    if wisdom.entries():
        raise click.UsageError("There is wisdom, and the cost model is to be judged: set CPUCONV_CACHE_DIR to an empty directory.")
    cpuconv.set_num_threads(threads)
    layers = [layer for layer in (pictures() if of_pictures else all_layers()) if re.search(pattern, layer.name)]
    if not layers:
        raise click.BadParameter(f"no layer matches {pattern!r}", param_hint="'--layers'")
    pairs = [(layer, layout) for layer in layers for layout in ("nchw", "nhwc")]
    console = Console(stderr=True)
    rows = [regret(*pair, threads, seconds) for pair in track(pairs, description="Layers", console=console, transient=True)]

    summary = []
    for layout in ("nchw", "nhwc"):
        values = [r.value for r in rows if r.layout == layout]
        above = (str(sum(v > limit for v in values)) for limit in (1.03, 1.15))
        summary.append([layout.upper(), str(len(values)), f"{geometric_mean(values):.3f}", f"{max(values):.2f}", *above])
    print(setting(threads) + "\n")
    print(table(("layout", "layers", "regret, geometric mean", "worst", "layers above 1.03", "above 1.15"), summary) + "\n")
    details = []
    for r in sorted(rows, key=lambda r: -r.value)[:worst]:
        cells = (f"{name}: {r.seconds[name] * 1e6:.0f} ({r.predicted[name] * 1e6:.0f})" for name in (r.chosen, r.best))
        details.append([r.layer.name, r.layout.upper(), f"{r.value:.2f}", *cells])
    print(table(("layer", "layout", "regret", "chosen: us (predicted)", "best: us (predicted)"), details))


if __name__ == "__main__":
    main()
