"""What a call costs beside its arithmetic: a layer of 8 channels on 8x8 pixels, in cpuconv, PyTorch and ONNX Runtime.

    pip install '.[bench]' && python benchmarks/overhead.py

float32, one thread, as Markdown. The arithmetic alone is the time of an image in a batch of 64, whose call is shared. Needs a quiet machine.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import click
import numpy as np

import cpuconv
from cpuconv import Problem
from cpuconv.bench.measure import data, layer_of, minima
from cpuconv.bench.peers import PEERS
from cpuconv.bench.report import setting, table

SMALL = Problem(n=1, ic=8, ih=8, iw=8, oc=8, kh=3, kw=3, padding=(1, 1, 1, 1))
BATCH = 64
REPEATS = 100  # of a call between two looks at the clock


def repeated(call: Callable[[], object]) -> Callable[[], None]:
    def calls() -> None:
        for _ in range(REPEATS):
            call()

    return calls


def ours(p: Problem) -> dict[str, Callable[[], object]]:
    x, w, b = data(p)
    conv = layer_of(p, w, b)
    out = np.empty_like(conv(x))
    layout, padding = p.layout.upper(), p.padding[0]
    return {
        f"Conv2d, out=, {layout}": partial(conv, x, out=out),
        f"Conv2d, {layout}": partial(conv, x),
        f"conv2d, {layout}": partial(cpuconv.conv2d, x, w, b, padding=padding, layout=layout),
    }


def arithmetic(p: Problem, seconds: float) -> float:
    batch = replace(p, n=BATCH)
    x, w, b = data(batch)
    conv = layer_of(batch, w, b)
    return minima({"": partial(conv, x, out=np.empty_like(conv(x)))}, seconds, pause=0, threads=1)[""] / BATCH


@click.command(help=__doc__.splitlines()[0])
@click.option("--seconds", default=0.3, show_default=True, help="For each contestant.")
def main(seconds: float) -> None:
    cpuconv.set_num_threads(1)
    both = [replace(SMALL, layout=layout) for layout in ("nchw", "nhwc")]
    calls = {name: call for p in both for name, call in ours(p).items()}
    for name in ("torch", "torch_cl", "ort"):
        if not PEERS[name].missing:
            calls[PEERS[name].title] = PEERS[name].build(SMALL, *data(SMALL), 1).run
    times = {name: t / REPEATS for name, t in minima({name: repeated(call) for name, call in calls.items()}, seconds).items()}
    alone = {p.layout: arithmetic(p, seconds) for p in both}
    print(setting(1) + "\n")
    rows = [[name, f"{t * 1e6:.2f}"] for name, t in times.items()]
    rows += [[f"the arithmetic alone, {layout.upper()}", f"{t * 1e6:.2f}"] for layout, t in alone.items()]
    print(table((f"{SMALL}", "us"), rows))


if __name__ == "__main__":
    main()
