"""Transposed convolution against PyTorch on the up-sampling layers of known networks: ``python benchmarks/transposed.py [NAME...]``.

U-Net (Ronneberger et al. 2015), DCGAN (Radford et al. 2016), FCN-8s (Long et al. 2015), FSRCNN (Dong et al. 2016). One thread each, NCHW as
PyTorch has it; the calls take turns, and the shortest time of each counts.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

import cpuconv

# channels in and out, kernel size, stride, padding, size of the input
LAYERS = {
    "unet 1024-512@28": (1024, 512, 2, 2, 0, 28),
    "unet 512-256@56": (512, 256, 2, 2, 0, 56),
    "unet 256-128@112": (256, 128, 2, 2, 0, 112),
    "unet 128-64@224": (128, 64, 2, 2, 0, 224),
    "dcgan 100-1024@1": (100, 1024, 4, 1, 0, 1),
    "dcgan 1024-512@4": (1024, 512, 4, 2, 1, 4),
    "dcgan 512-256@8": (512, 256, 4, 2, 1, 8),
    "dcgan 256-128@16": (256, 128, 4, 2, 1, 16),
    "dcgan 128-3@32": (128, 3, 4, 2, 1, 32),
    "fcn 21-21 16x16 s8": (21, 21, 16, 8, 4, 70),
    "fcn 21-21 4x4 s2": (21, 21, 4, 2, 1, 34),
    "fsrcnn 56-1 9x9 s3": (56, 1, 9, 3, 4, 64),
}
SECONDS = 1.0


def times(calls: list[Callable[[], object]]) -> list[float]:
    """The shortest time of each; they take turns, for the machine's speed drifts."""
    best = [math.inf] * len(calls)
    start = time.perf_counter()
    while time.perf_counter() - start < SECONDS or math.inf in best:
        for i, call in enumerate(calls):
            for _ in range(2):  # the first call finds the other's data in the caches
                begin = time.perf_counter()
                call()
                best[i] = min(best[i], time.perf_counter() - begin)
    return best


def measure(ic: int, oc: int, kernel: int, stride: int, padding: int, size: int) -> tuple[list[float], float]:
    """Seconds of cpuconv in NCHW, in NHWC, and of PyTorch in either; and cpuconv's error relative to PyTorch's largest result."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, ic, size, size), np.float32), rng.standard_normal((ic, oc, kernel, kernel), np.float32)
    bias = rng.standard_normal(oc, np.float32)
    first = cpuconv.ConvTranspose2d(w, bias, stride, padding)
    last = cpuconv.ConvTranspose2d(w.transpose(2, 3, 1, 0), bias, stride, padding, layout="NHWC")
    y, x_last = first(x), np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    y_last = last(x_last)
    tensors = tuple(map(torch.from_numpy, (x, w, bias)))
    tensors_last = (tensors[0].to(memory_format=torch.channels_last), tensors[1].to(memory_format=torch.channels_last), tensors[2])
    function = torch.nn.functional.conv_transpose2d
    with torch.inference_mode():
        expected = function(*tensors, stride, padding).numpy()
        seconds = times([
            lambda: first(x, out=y), lambda: last(x_last, out=y_last),
            lambda: function(*tensors, stride, padding), lambda: function(*tensors_last, stride, padding),
        ])  # fmt: skip
    return seconds, float(abs(y - expected).max() / abs(expected).max())


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    cpuconv.set_num_threads(1)
    chosen = {name: layer for name, layer in LAYERS.items() if not names or any(part in name for part in names)}
    print(f"{'layer':<20}{'NCHW us':>9}{'NHWC us':>9}{'torch us':>9}{'last us':>9}{'ratio':>7}{'last':>7}{'GFLOP/s':>9}  error")
    ratios = []
    for name, layer in chosen.items():
        (first, last, torch_first, torch_last), error = measure(*layer)
        ic, oc, kernel, _, _, size = layer
        ratios.append((torch_first / first, torch_last / last))
        rate = 2 * ic * oc * kernel**2 * size**2 / first / 1e9
        micros = "".join(f"{seconds * 1e6:9.0f}" for seconds in (first, last, torch_first, torch_last))
        print(f"{name:<20}{micros}{ratios[-1][0]:7.2f}{ratios[-1][1]:7.2f}{rate:9.0f}  {error:.0e}", flush=True)
    means = [math.exp(sum(map(math.log, column)) / len(column)) for column in zip(*ratios, strict=True)]
    print(f"geometric means of torch / cpuconv: NCHW {means[0]:.2f}, NHWC against channels_last {means[1]:.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
