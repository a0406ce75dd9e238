"""Time `SeparableConv2d` against its two convolutions one after the other, on layers of MobileNetV1 and V2.

    python benchmarks/separable.py

float32, as Markdown: microseconds of the two calls and of the one, and how many times as fast it is. Needs a quiet machine.
"""

from functools import partial

import click
import numpy as np

import cpuconv
from cpuconv.bench.measure import minima

LAYERS = [  # input channels, size of the input, stride, output channels
    (32, 112, 1, 64), (64, 112, 2, 128), (128, 56, 1, 128), (256, 28, 1, 256), (512, 14, 1, 512), (1024, 7, 1, 1024),
    (32, 112, 1, 16), (96, 112, 2, 24), (144, 56, 1, 24), (192, 28, 1, 32), (384, 14, 1, 64), (576, 14, 1, 96), (960, 7, 1, 160),
]  # fmt: skip


def layer(ic: int, size: int, stride: int, oc: int, batch: int, layout: str, seconds: float) -> tuple[float, float]:
    """Seconds of two calls and of one."""
    rng = np.random.default_rng(0)
    x, d, p = (rng.standard_normal(shape, np.float32) for shape in ((batch, ic, size, size), (ic, 1, 3, 3), (oc, ic, 1, 1)))
    if layout == "NHWC":
        x, d, p = np.ascontiguousarray(x.transpose(0, 2, 3, 1)), d.transpose(2, 3, 1, 0), p.transpose(2, 3, 1, 0)
    depthwise = cpuconv.Conv2d(d, np.zeros(ic, np.float32), stride, 1, groups=ic, layout=layout, activation="relu6")
    pointwise = cpuconv.Conv2d(p, np.zeros(oc, np.float32), layout=layout, activation="relu6")
    both = cpuconv.SeparableConv2d(
        d, p, np.zeros(oc, np.float32), stride, 1, layout=layout, depth_bias=np.zeros(ic, np.float32), depth_activation="relu6", activation="relu6"
    )
    between = np.empty_like(depthwise(x))
    y = np.empty_like(both(x))
    calls = {"two": lambda: pointwise(depthwise(x, out=between), out=y), "one": partial(both, x, out=y)}
    times = minima(calls, seconds)
    return times["two"], times["one"]


@click.command(help=__doc__.splitlines()[0])
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1))
@click.option("--threads", default=1, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=0.2, show_default=True, help="For each layer and layout.")
def main(batch: int, threads: int, seconds: float) -> None:
    cpuconv.set_num_threads(threads)
    print("| layer | NCHW: two | one | | NHWC: two | one | |\n|---|---|---|---|---|---|---|")
    for ic, size, stride, oc in LAYERS:
        cells = []
        for layout in ("NCHW", "NHWC"):
            two, one = layer(ic, size, stride, oc, batch, layout, seconds)
            cells += [f"{two * 1e6:.0f}", f"{one * 1e6:.0f}", f"{two / one:.2f}x"]
        print(f"| {ic}-{oc}{f'/{stride}' if stride > 1 else ''} @{size} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
