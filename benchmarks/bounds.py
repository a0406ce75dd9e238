"""Print what binds layers that the direct method computes: the time of each beside that of its multiply-adds at the peak and of moving its bytes.

    pip install '.[cli]' && python benchmarks/bounds.py

1x1 and depthwise layers of the standard networks, float32, batch 1, one thread, prepared, in the better layout, as Markdown. NumPy reads as many
bytes as image and weight have and writes as many as the result has, in the caches if those hold them. Needs a quiet machine.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import click
import numpy as np
from rich.console import Console
from rich.progress import track

import cpuconv
from cpuconv.bench.layers import Layer, all_layers, class_of
from cpuconv.bench.measure import data, layer_of, minima
from cpuconv.bench.report import geometric_mean, setting, table
from cpuconv.bench.roofs import measure_roofs
from cpuconv.plan import aligned_empty

KINDS = ("1x1", "depthwise")
ROUNDS = 12


@dataclass(frozen=True)
class Row:
    """Seconds: of the better layout, of the multiply-adds at the peak, of moving the bytes."""

    layer: Layer
    ours: float
    arithmetic: float
    moving: float

    @property
    def reached(self) -> float:
        """Share of the peak."""
        return self.arithmetic / self.ours

    @property
    def allowed(self) -> float:
        """The share that bytes leave, if all of the arithmetic were done while they move."""
        return self.arithmetic / max(self.arithmetic, self.moving)


def mover(read: int, written: int) -> Callable[[], None]:
    """Copies so many numbers, and reads, or writes, the rest."""
    source, target = (aligned_empty((count,), np.dtype(np.float32)) for count in (read, written))
    source.fill(1)
    copied = min(read, written)

    def move() -> None:
        np.copyto(target[:copied], source[:copied])
        target[copied:].fill(0)
        source[copied:].max(initial=0)

    return move


def measure(layer: Layer, seconds: float, peak: float) -> Row:
    p = layer.problem
    calls: dict[str, Callable[[], object]] = {"moving": mover(math.prod(p.x_shape) + math.prod(p.weight_shape), math.prod(p.y_shape))}
    for layout in ("nchw", "nhwc"):
        q = replace(p, layout=layout)
        x, w, b = data(q)
        calls[layout] = partial(layer_of(q, w, b), x, out=aligned_empty(q.y_shape, np.dtype(np.float32)))
    best = minima(calls, seconds, rounds=ROUNDS, threads=1)
    return Row(layer, min(best["nchw"], best["nhwc"]), p.flops / peak / 1e9, best["moving"])


@click.command(help=__doc__.splitlines()[0])
@click.option("--layers", "pattern", default="", metavar="REGEX", help="Only layers whose name matches.")
@click.option("--seconds", default=0.1, show_default=True, help="For each layer, each layout and moving its bytes.")
def main(pattern: str, seconds: float) -> None:
    cpuconv.set_num_threads(1)
    peak = measure_roofs(1).core_gflops
    layers = [layer for layer in all_layers() if class_of(layer.problem) in KINDS and re.search(pattern, layer.name)]
    console = Console(stderr=True)
    rows = [measure(layer, seconds, peak) for layer in track(layers, description="Layers", console=console, transient=True)]

    summary = []
    for kind in KINDS:
        if found := [r for r in rows if class_of(r.layer.problem) == kind]:
            shares = (geometric_mean(getattr(r, share) for r in found) for share in ("reached", "allowed"))
            bound = sum(r.moving > r.arithmetic for r in found)
            summary.append([f"{kind} ({len(found)})", *(f"{share:.3f}" for share in shares), str(bound)])
    print(f"{setting(1)}; {peak:.0f} GFLOP/s of multiply-adds\n")
    head = ("class (layers)", "share of the peak", "share that bytes leave", "layers whose bytes take longer than their multiply-adds")
    print(table(head, summary) + "\n")
    details = []
    for r in sorted(rows, key=lambda r: r.reached):
        times = (f"{t * 1e6:.1f}" for t in (r.ours, r.arithmetic, r.moving))
        details.append([r.layer.name, f"{r.reached:.2f}", f"{r.allowed:.2f}", *times])
    print(table(("layer", "share of the peak", "left by bytes", "us", "multiply-adds us", "bytes us"), details))


if __name__ == "__main__":
    main()
