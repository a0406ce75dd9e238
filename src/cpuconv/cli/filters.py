"""The demo's bank of image filters, each one a convolution."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import cpuconv
from cpuconv.cli import measure
from cpuconv.layers import Conv2d
from cpuconv.plan import Array

LUMINANCE = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


@dataclass(frozen=True)
class Filter:
    """`taps`: (outputs, height, width). A colour filter works on each of red, green and blue, any other one on the luminance.

    `develop` makes a picture with values from 0 to 1, (height, width) or (height, width, 3), of (height, width, outputs).
    """

    name: str
    taps: Array
    colour: bool
    develop: Callable[[Array], Array]

    def weight(self, layout: str) -> Array:
        mix = np.ones((3, 1, 1, 1)) if self.colour else LUMINANCE[:, None, None]
        weight = mix * self.taps[:, None]
        return np.ascontiguousarray(weight if layout == "NCHW" else weight.transpose(2, 3, 1, 0), np.float32)


@dataclass(frozen=True)
class Filtered:
    """A filter's result."""

    filter: Filter
    picture: Array
    measured: measure.Measured


def gaussian(size: int, sigma: float) -> Array:
    t = np.arange(size) - size // 2
    g = np.exp(-(t**2) / (2 * sigma**2))
    g /= g.sum()
    return np.outer(g, g)


def laplacian_of_gaussian(size: int, sigma: float) -> Array:
    y, x = np.mgrid[:size, :size] - size // 2
    taps = gaussian(size, sigma) * ((x**2 + y**2) / sigma**2 - 2)
    return np.asarray(taps - taps.mean())  # cut off at the rim, it would answer to flat areas


def unsharp(size: int, sigma: float, amount: float) -> Array:
    """``x + amount (x - blurred x)``."""
    taps = -amount * gaussian(size, sigma)
    taps[size // 2, size // 2] += 1 + amount
    return taps


def disc(size: int) -> Array:
    """The image of a point through a lens out of focus."""
    y, x = np.mgrid[:size, :size] - size // 2
    taps = np.clip(size / 2 - np.hypot(x, y), 0, 1)
    return np.asarray(taps / taps.sum())


def motion(size: int, angle: float) -> Array:
    """The trace of a point while the camera moves along `angle` (radians), anti-aliased."""
    y, x = np.mgrid[:size, :size] - size // 2
    across = np.abs(x * np.sin(angle) + y * np.cos(angle))
    taps = np.clip(1 - across, 0, 1) * (np.hypot(x, y) <= size / 2)
    return np.asarray(taps / taps.sum())


def gabor(size: int, angle: float, wavelength: float, sigma: float) -> Array:
    """An odd Gabor wavelet: answers to edges at `angle` (radians)."""
    y, x = np.mgrid[:size, :size] - size // 2
    across = y * np.cos(angle) - x * np.sin(angle)
    taps = np.exp(-(x**2 + y**2) / (2 * sigma**2)) * np.sin(2 * np.pi * across / wavelength)
    return np.asarray(taps / np.abs(taps).sum())


def sobel() -> Array:
    horizontal = np.outer([1, 2, 1], [-1, 0, 1]) / 8
    return np.stack([horizontal, horizontal.T])


def _clip(y: Array) -> Array:
    return np.clip(y, 0, 1)


def _stretch(y: Array) -> Array:
    """Non-negative values with the brightest of them at 1; the top half per cent may saturate."""
    return _clip(y / max(float(np.percentile(y, 99.5)), 1e-6))


def _magnitude(y: Array) -> Array:
    return _stretch(np.hypot(y[..., 0], y[..., 1]))


def _signed(y: Array) -> Array:
    """Zero as middle grey."""
    return _clip(0.5 + 0.5 * y[..., 0] / max(float(np.percentile(np.abs(y), 99.5)), 1e-6))


def _relief(y: Array) -> Array:
    return _clip(0.5 + y[..., 0])


def _hues(y: Array) -> Array:
    """Each output, that is each orientation, glows in its own hue."""
    turn = np.arange(y.shape[-1])[:, None] / y.shape[-1] + np.array([0, 1 / 3, 2 / 3])
    return _stretch(np.abs(y) @ (0.5 + 0.5 * np.cos(2 * np.pi * turn)))


ORIENTATIONS = np.arange(6) * np.pi / 6
BANK = (
    Filter("Gaussian blur", gaussian(9, 1.8)[None], True, _clip),
    Filter("Lens blur", disc(15)[None], True, _clip),
    Filter("Motion blur", motion(15, np.pi / 6)[None], True, _clip),
    Filter("Sharpen", unsharp(5, 1.2, 2.0)[None], True, _clip),
    Filter("Emboss", np.array([[[-2.0, -1, 0], [-1, 0, 1], [0, 1, 2]]]), False, _relief),
    Filter("Laplacian of Gaussian", laplacian_of_gaussian(11, 1.6)[None], False, _signed),
    Filter("Sobel edges", sobel(), False, _magnitude),
    Filter("Gabor orientations", np.stack([gabor(15, a, 8.0, 3.0) for a in ORIENTATIONS]), False, _hues),
)
SMALLEST = 1 + max(f.taps.shape[-1] for f in BANK) // 2
"""Pixels that reflection at the border needs along each axis."""


def run(photo: Array, layout: str) -> Iterator[Filtered]:
    """Filter a photo, (height, width, 3) from 0 to 1."""
    x = photo[None] if layout == "NHWC" else np.ascontiguousarray(photo.transpose(2, 0, 1)[None])
    for f in BANK:
        yield _filtered(f, x, layout)


def _filtered(f: Filter, x: Array, layout: str) -> Filtered:
    weight = f.weight(layout)
    options: dict[str, Any] = {"padding": "same", "padding_mode": "reflect", "groups": 3 if f.colour else 1, "layout": layout}
    chosen = measure.candidates(Conv2d(weight, **options), x)[0]
    assert chosen.cost
    y = cpuconv.conv2d(x, weight, **options)
    seconds = measure.best_times({"": lambda: cpuconv.conv2d(x, weight, **options)}, 0.05)[""]
    # Differences cancel on smooth pictures, so max|y| says nothing of the sums' size; the largest sum that could be, does.
    scale = float(np.abs(x).max() * np.abs(f.taps).sum(axis=(1, 2)).max()) or 1.0
    error = measure.error(y, measure.reference(x, weight, **options), scale)
    image = y[0] if layout == "NHWC" else y[0].transpose(1, 2, 0)
    return Filtered(f, f.develop(image.astype(np.float64)), measure.Measured(chosen.algorithm.name, seconds, error, chosen.cost.error))
