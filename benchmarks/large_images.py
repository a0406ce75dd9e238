"""Filters of large images: the bytes that they read and write in a second, beside those of a copy of the same arrays.

    python benchmarks/large_images.py

float32, 1080p and 4K, 1 to 3 channels, as Markdown. A filter cannot be faster than a copy; the share tells how near it comes. Needs a quiet machine.
"""

from dataclasses import replace
from functools import partial

import click
import numpy as np

import cpuconv
from cpuconv import Problem, cpu, planner
from cpuconv.bench.measure import data, layer_of, minima
from cpuconv.bench.report import setting, table
from cpuconv.plan import aligned_empty
from cpuconv.planner import Budget

SIZES = {"1080p": (1080, 1920), "4K": (2160, 3840)}
FILTERS = {"1-1": (1, 1, 1), "3-1": (3, 1, 1), "3-3": (3, 3, 1), "depthwise 3": (3, 3, 3)}  # channels in and out, groups
KERNELS = (3, 5)


def problem(size: str, channels: str, kernel: int, layout: str) -> Problem:
    (ih, iw), (ic, oc, groups) = SIZES[size], FILTERS[channels]
    p = Problem(n=1, ic=ic, ih=ih, iw=iw, oc=oc, kh=kernel, kw=kernel, padding=(kernel // 2,) * 4, groups=groups)
    return replace(p, layout=layout, epilogue=replace(p.epilogue, bias=True))


def row(size: str, channels: str, kernel: int, layout: str, threads: int, seconds: float) -> list[str]:
    p = problem(size, channels, kernel, layout)
    x, w, b = data(p)
    y = aligned_empty(p.y_shape, x.dtype)
    # The copy moves as many bytes: as many as x and y have together.
    half = (x.size + y.size) // 2
    source, target = np.ones(half, x.dtype), np.zeros(half, x.dtype)
    times = minima({"filter": partial(layer_of(p, w, b), x, out=y), "copy": partial(np.copyto, target, source)}, seconds, pause=0, threads=threads)
    moved = x.nbytes + y.nbytes
    name = planner.choose(p, Budget(), cpu.detect()).algorithm.name
    rates = [moved / times[call] / 1e9 for call in ("filter", "copy")]
    figures = (f"{times['filter'] * 1e3:.2f}", *(f"{rate:.1f}" for rate in rates), f"{rates[0] / rates[1]:.2f}")
    return [f"{size} {channels} {kernel}x{kernel}", layout.upper(), name, *figures, f"{p.flops / times['filter'] / 1e9:.0f}"]


@click.command(help=__doc__.splitlines()[0])
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1), help="Of the filter; the copy has one.")
@click.option("--seconds", default=0.2, show_default=True, help="For each filter, and for each copy.")
@click.option("--size", "sizes", multiple=True, type=click.Choice(list(SIZES)), default=list(SIZES), help="Only these.")
def main(threads: int, seconds: float, sizes: tuple[str, ...]) -> None:
    cpuconv.set_num_threads(threads)
    rows = [
        row(size, channels, kernel, layout, threads, seconds)
        for size in sizes for channels in FILTERS for kernel in KERNELS for layout in ("nchw", "nhwc")
    ]  # fmt: skip
    print(setting(threads) + "\n")
    print(table(("filter", "layout", "algorithm", "ms", "GB/s", "copy GB/s", "share of copy", "GFLOP/s"), rows))


if __name__ == "__main__":
    main()
