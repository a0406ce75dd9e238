"""What a second core brings: two Python threads with a layer each, and one layer on two threads of the pool.

    python benchmarks/two_threads.py

float32, as Markdown: how many times the work of one thread is done in the same time. The second part takes layers over a millisecond. Needs a
quiet machine with two cores.
"""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import click
import numpy as np

import cpuconv
from cpuconv._native import core
from cpuconv.bench.layers import Layer, all_layers
from cpuconv.bench.measure import data, layer_of, minima
from cpuconv.bench.report import geometric_mean, setting, table

LONG = 1e-3  # seconds
APART = ("ResNet-50 3x3 64-64 @56", "ResNet-50 1x1 1024-256 @14", "MobileNetV2 3x3 dw 144 @56", "MobileNetV2 1x1 24-144 @56")  # for Python threads
ROUNDS = 5
CYCLES = 1_000_000


def call_of(layer: Layer, layout: str) -> Callable[[], object]:
    p = replace(layer.problem, layout=layout, epilogue=replace(layer.problem.epilogue, bias=True))
    x, w, b = data(p)
    conv = layer_of(p, w, b)
    return partial(conv, x, out=np.empty_like(conv(x)))


def rate(calls: list[Callable[[], object]], seconds: float) -> float:
    """Calls a second of Python threads, each of which has one of the calls."""
    done = [0] * len(calls)
    barrier = threading.Barrier(len(calls) + 1)

    def repeat(i: int) -> None:
        barrier.wait()
        while not done[i] or time.perf_counter() < end:
            calls[i]()
            done[i] += 1

    threads = [threading.Thread(target=repeat, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    start = time.perf_counter()
    end = start + seconds
    barrier.wait()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - start)


def apart(calls: list[Callable[[], object]], seconds: float) -> float:
    """How many times as many calls two Python threads make as one."""
    rounds = [(rate(calls[:1], seconds / ROUNDS), rate(calls, seconds / ROUNDS)) for _ in range(ROUNDS)]
    return max(two for _, two in rounds) / max(one for one, _ in rounds)


def together(layer: Layer, layout: str, seconds: float) -> tuple[float, float]:
    """Seconds on one thread of the pool, and on two."""
    call = call_of(layer, layout)

    def on(threads: int) -> None:
        cpuconv.set_num_threads(threads)
        call()

    times = minima({"one": partial(on, 1), "two": partial(on, 2)}, seconds, pause=0)
    return times["one"], times["two"]


@click.command(help=__doc__.splitlines()[0])
@click.option("--layers", "pattern", default="", metavar="REGEX", help="Only layers whose name matches.")
@click.option("--seconds", default=0.1, show_default=True, help="For each figure.")
@click.option("--worst", default=12, show_default=True, help="How many layers to print.")
def main(pattern: str, seconds: float, worst: int) -> None:
    layers = [layer for layer in all_layers() if re.search(pattern, layer.name)]
    both = [(layer, layout) for layer in layers for layout in ("nchw", "nhwc")]
    print(setting(2) + "\n")
    cpuconv.set_num_threads(1)
    counting = partial(core.spend_cycles, CYCLES)
    rows = [["what the machine gives: no layer, counting in a register", "", f"{apart([counting] * 2, 2 * seconds):.2f}x"]]
    for layer, layout in both:
        if layer.name in APART:
            rows.append([layer.name, layout.upper(), f"{apart([call_of(layer, layout) for _ in range(2)], 2 * seconds):.2f}x"])
    print(table(("two Python threads with a layer each", "layout", "against one"), rows) + "\n")

    figures = []
    for layer, layout in both:
        one, two = together(layer, layout, 0.02)
        if one > LONG:
            one, two = together(layer, layout, seconds)
            figures.append((one / two, layer.name, layout.upper(), one))
    if figures:
        mean = geometric_mean(ratio for ratio, *_ in figures)
        print(f"One layer on two threads, {len(figures)} layers over {LONG * 1e3:g} ms: {mean:.2f}x in geometric mean. The least:\n")
        rows = [[name, layout, f"{one * 1e6:.0f}", f"{ratio:.2f}x"] for ratio, name, layout, one in sorted(figures)[:worst]]
        print(table(("layer", "layout", "us on one thread", "on two"), rows))


if __name__ == "__main__":
    main()
