"""Gradients against PyTorch on the layers of ResNet-50 (He et al. 2016): ``python benchmarks/gradients.py [--batch 8] [--threads 1] [NAME...]``.

PyTorch's are those of ``aten::convolution_backward``, NCHW and channels_last. The calls take turns, and the shortest time of each counts.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import cpuconv
from cpuconv import grad

# input channels, size of the input, output channels, kernel size, stride, and how often the network has the layer
LAYERS = {
    "conv1 7x7/2": (3, 224, 64, 7, 2, 1),
    "2 64-64 1x1": (64, 56, 64, 1, 1, 1), "2 64-64 3x3": (64, 56, 64, 3, 1, 3), "2 64-256 1x1": (64, 56, 256, 1, 1, 4),
    "2 256-64 1x1": (256, 56, 64, 1, 1, 2),
    "3 256-128 1x1": (256, 56, 128, 1, 1, 1), "3 128-128 3x3/2": (128, 56, 128, 3, 2, 1), "3 256-512 1x1/2": (256, 56, 512, 1, 2, 1),
    "3 128-512 1x1": (128, 28, 512, 1, 1, 4), "3 512-128 1x1": (512, 28, 128, 1, 1, 3), "3 128-128 3x3": (128, 28, 128, 3, 1, 3),
    "4 512-256 1x1": (512, 28, 256, 1, 1, 1), "4 256-256 3x3/2": (256, 28, 256, 3, 2, 1), "4 512-1024 1x1/2": (512, 28, 1024, 1, 2, 1),
    "4 256-1024 1x1": (256, 14, 1024, 1, 1, 6), "4 1024-256 1x1": (1024, 14, 256, 1, 1, 5), "4 256-256 3x3": (256, 14, 256, 3, 1, 5),
    "5 1024-512 1x1": (1024, 14, 512, 1, 1, 1), "5 512-512 3x3/2": (512, 14, 512, 3, 2, 1), "5 1024-2048 1x1/2": (1024, 14, 2048, 1, 2, 1),
    "5 512-2048 1x1": (512, 7, 2048, 1, 1, 3), "5 2048-512 1x1": (2048, 7, 512, 1, 1, 2), "5 512-512 3x3": (512, 7, 512, 3, 1, 2),
}  # fmt: skip
SECONDS = 0.4


def times(calls: list[Callable[[], object]]) -> list[float]:
    """The shortest time of each; they take turns, for the machine's speed drifts."""
    best = [math.inf] * len(calls)
    for call in calls:
        call()  # the first one makes the plan
    start = time.perf_counter()
    while time.perf_counter() - start < SECONDS or math.inf in best:
        for i, call in enumerate(calls):
            begin = time.perf_counter()
            call()
            best[i] = min(best[i], time.perf_counter() - begin)
    return best


def calls(layout: str, batch: int, ic: int, size: int, oc: int, kernel: int, stride: int) -> list[Callable[[], object]]:
    """cpuconv's weight and input gradients, then PyTorch's."""
    last, padding = layout == "NHWC", kernel // 2
    memory = torch.channels_last if last else torch.contiguous_format
    x, w = (torch.randn(s).contiguous(memory_format=memory) for s in ((batch, ic, size, size), (oc, ic, kernel, kernel)))
    g = torch.randn_like(torch.nn.functional.conv2d(x, w, None, stride, padding), memory_format=memory)
    xa, wa, ga = ((t.permute(*order) if last else t).numpy() for t, order in ((x, (0, 2, 3, 1)), (w, (2, 3, 1, 0)), (g, (0, 2, 3, 1))))
    wa = np.ascontiguousarray(wa)
    dw, dx = np.empty_like(wa), np.empty_like(xa)
    tail: tuple[Any, ...] = (None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1)
    backward = torch.ops.aten.convolution_backward
    return [
        lambda: grad.conv2d_weight(xa, wa.shape, ga, stride, padding, layout=layout, out=dw),
        lambda: grad.conv2d_input(xa.shape, wa, ga, stride, padding, layout=layout, out=dx),
        lambda: backward(g, x, w, *tail, (False, True, False)),
        lambda: backward(g, x, w, *tail, (True, False, False)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help="parts of the names of layers")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cpuconv.set_num_threads(options.threads)
    print("ratios of PyTorch's time to cpuconv's; GFLOP/s of cpuconv")
    print(f"{'layer':<18}" + "".join(f"{f'{layout} {what}':>22}" for layout in ("NCHW", "NHWC") for what in ("weight", "input", "both")))
    totals = np.zeros((2, 4))
    ratios: tuple[list[float], list[float]] = ([], [])
    for name, (*layer, count) in LAYERS.items():
        if options.names and not any(part in name for part in options.names):
            continue
        cells = []
        for i, layout in enumerate(("NCHW", "NHWC")):
            ours_w, ours_x, theirs_w, theirs_x = found = times(calls(layout, options.batch, *layer))
            totals[i] += count * np.array(found)
            ratios[i].append((theirs_w + theirs_x) / (ours_w + ours_x))
            ic, size, oc, kernel, stride = layer
            flops = 2 * options.batch * ic * oc * kernel**2 * math.ceil(size / stride) ** 2
            pairs = ((theirs_w, ours_w, flops), (theirs_x, ours_x, flops), (theirs_w + theirs_x, ours_w + ours_x, 2 * flops))
            cells += [f"{theirs / ours:8.2f} {work / ours / 1e9:7.1f} GF/s" for theirs, ours, work in pairs]
        print(f"{name:<18}" + "".join(f"{cell:>22}" for cell in cells), flush=True)
    for layout, (ours_w, ours_x, theirs_w, theirs_x), of_layers in zip(("NCHW", "NHWC"), totals, ratios, strict=True):
        both = (theirs_w + theirs_x) / (ours_w + ours_x)
        mean, worst = math.exp(np.log(of_layers).mean()), min(of_layers)
        print(
            f"whole network, {layout}: weight {theirs_w / ours_w:.2f}, input {theirs_x / ours_x:.2f}, both {both:.2f}; "
            f"layers: geometric mean {mean:.2f}, worst {worst:.2f}"
        )


if __name__ == "__main__":
    main()
