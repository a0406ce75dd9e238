"""The demo's pictures: photographs in and out, the contact sheet, the chart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import cbook
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image, ImageOps

from cpuconv.cli.filters import Filtered
from cpuconv.cli.network import Comparison
from cpuconv.files import whole_file
from cpuconv.plan import Array
from cpuconv.planner import algorithms

INK, FAINT, GRID = "#222222", "#777777", "#e4e4e4"
# Okabe and Ito's colours, which the colour-blind tell apart; black is left for the text
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#8c6d31", "#7b4fa3", "#b5b800", "#5f6b6d")


def default_photo() -> Path:
    """Grace Hopper's official portrait (U.S. Navy, public domain), which Matplotlib ships."""
    return Path(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))


def read_photo(path: Path, longest: int) -> Image.Image:
    """An image file as RGB, upright, its longer side at most so many pixels.

    Raises
    ------
    ValueError
        If the file is not an image that can be read.
    """
    try:
        with Image.open(path) as image:
            photo = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        raise ValueError(f"{str(path)!r} is not an image that can be read: {e}") from e
    photo.thumbnail((longest, longest))
    return photo


def pixels(image: Image.Image) -> Array:
    return np.asarray(image, np.float32) / 255


def square(image: Image.Image, size: int) -> Array:
    """The middle of a picture, scaled to size x size."""
    return pixels(ImageOps.fit(image, (size, size)))


def write_picture(path: Path, picture: Array) -> None:
    """Write (height, width) or (height, width, 3) values from 0 to 1."""
    with whole_file(path) as temporary:
        Image.fromarray(np.rint(picture * 255).astype(np.uint8)).save(temporary)


def write_sheet(path: Path, photo: Image.Image, results: Sequence[Filtered]) -> None:
    """Write the photo and all filtered pictures side by side, with what computed them."""
    tiles: list[tuple[str, str, Array]] = [("Original", f"{photo.width} x {photo.height} pixels", pixels(photo))]
    for r in results:
        kernels, height, width = r.filter.taps.shape
        size = f"{height}x{width}" + (f", {kernels} kernels" if kernels > 1 else "")
        tiles.append((r.filter.name, f"{size}   {r.measured.name}   {r.measured.seconds * 1e3:.2f} ms", r.picture))
    columns = 3
    rows = math.ceil(len(tiles) / columns)
    width, caption, margin, head = 3.2, 0.5, 0.12, 0.62  # inches
    height = width * photo.height / photo.width
    total_w, total_h = columns * (width + margin) + margin, rows * (height + caption) + head + margin
    figure = Figure(figsize=(total_w, total_h), dpi=110, facecolor="white")
    title = f"One photograph, {len(results)} filters, all by cpuconv.conv2d"
    figure.text(margin / total_w, 1 - 0.3 / total_h, title, size=15, weight="bold", color=INK, va="center")
    for i, (name, facts, picture) in enumerate(tiles):
        left = margin + (i % columns) * (width + margin)
        bottom = total_h - head - (i // columns) * (height + caption) - height
        axes = figure.add_axes((left / total_w, bottom / total_h, width / total_w, height / total_h))
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, aspect="auto")
        axes.set_axis_off()
        figure.text(left / total_w, (bottom - 0.13) / total_h, name, size=10, weight="bold", color=INK, va="center")
        figure.text(left / total_w, (bottom - 0.3) / total_h, facts, size=8, color=FAINT, va="center")
    _save(figure, path)


def write_chart(path: Path, results: Sequence[Comparison], subtitle: str) -> None:
    """Write a chart of each algorithm's speed-up over NumPy, layer by layer: the planner's choice as a bar, the others as marks."""
    used = {m.name for r in results for m in (r.chosen, *r.others)}
    names = [name for name in algorithms() if name in used]  # in one order, so that colours stay from run to run
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    figure = Figure(figsize=(11, 2.3 + 0.44 * len(results)), dpi=120, facecolor="white", layout="constrained")
    engine = figure.get_layout_engine()
    assert engine
    engine.set(w_pad=0.14, h_pad=0.1)  # type: ignore[call-arg]
    axes = figure.add_subplot()
    for row, result in enumerate(results):
        _draw_row(axes, row, result, colour)
    _column(axes, 0, -1, "cpuconv", weight="bold")
    _column(axes, 1, -1, "NumPy", color=FAINT)
    axes.axvline(1, color=INK, linewidth=1.2)

    speedups = [r.speedup(m) for r in results for m in (r.chosen, *r.others)]
    low, high = min(0.7, 0.8 * min(speedups)), 1.35 * max(2, *speedups)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    ticks = [t * 10.0**e for e in range(-4, 5) for t in (1, 2, 5) if low <= t * 10.0**e <= high]
    axes.set_xticks(ticks, [f"{t:g}x" for t in ticks])
    axes.set_xticks([], minor=True)
    axes.set_yticks(range(len(results)), [f"{r.label}  ({r.size})" for r in results])
    axes.set_ylim(len(results) - 0.4, -0.6)
    axes.tick_params(length=0, colors=INK)
    axes.grid(axis="x", color=GRID)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("times as fast as plain NumPy (im2col and matmul), logarithmic", color=INK)
    figure.suptitle("How much faster is a layer with cpuconv than with NumPy?", x=0.012, ha="left", size=15, weight="bold", color=INK)
    figure.text(0.012, 1 - 0.45 / figure.get_figheight(), subtitle, size=9.5, color=FAINT, va="center")
    axes.set_title(" ", size=26)  # room for the subtitle
    handles: list[Artist] = [
        Patch(color="#999999", label="bar: the planner's choice"),
        Line2D([], [], color="#999999", marker="o", linestyle="", label="dot: another algorithm"),
        Line2D([], [], color="#999999", marker="o", markerfacecolor="white", linestyle="", label="ring: over the default accuracy"),
        *(Line2D([], [], color=colour[name], marker="s", markersize=9, linestyle="", label=name) for name in names),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9, labelcolor=INK)
    _save(figure, path)


def _draw_row(axes: Axes, row: int, result: Comparison, colour: Mapping[str, str]) -> None:
    chosen = result.chosen
    reach = result.speedup(chosen)
    axes.barh(row, reach - 1, left=1, height=0.64, color=colour[chosen.name], alpha=0.85)
    marks = [result.speedup(m) for m in result.others]
    for m, x in zip(result.others, marks, strict=True):
        axes.plot(x, row, marker="o", markersize=8, color="white" if m.eligible else colour[m.name])
        axes.plot(x, row, marker="o", markersize=6 if m.eligible else 5, color=colour[m.name] if m.eligible else "white")
    beyond = max([reach, 1, *marks])
    axes.annotate(f"{reach:.1f}x", (beyond, row), xytext=(9, 0), textcoords="offset points", va="center", size=10, weight="bold", color=INK)
    _column(axes, 0, row, f"{chosen.seconds * 1e3:.2f} ms", weight="bold")
    _column(axes, 1, row, f"{result.numpy.seconds * 1e3:.2f} ms", color=FAINT)


def _column(axes: Axes, column: int, row: int, text: str, **style: str) -> None:
    """Text in one of the columns right of the chart."""
    where = {"xy": (1, row), "xycoords": ("axes fraction", "data"), "xytext": (70 + 70 * column, 0), "textcoords": "offset points"}
    axes.annotate(text, **where, ha="right", va="center", size=9.5, annotation_clip=False, **{"color": INK} | style)  # type: ignore[arg-type]


def _save(figure: Figure, path: Path) -> None:
    with whole_file(path) as temporary:
        figure.savefig(temporary)
