"""The charts: a roofline of all layers, the sum over each network, and every layer against the best peer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from cpuconv.bench.layers import CLASSES, GROUPED_NETWORKS, NETWORKS, class_of
from cpuconv.bench.measure import Result
from cpuconv.bench.peers import ALL, OURS, PEERS
from cpuconv.bench.report import Report
from cpuconv.files import whole_file
from cpuconv.problem import Problem

INK, FAINT, GRID = "#222222", "#777777", "#e8e8e8"
# Okabe and Ito's colours, which the colour-blind tell apart
COLOURS = dict(zip(CLASSES, ("#0072b2", "#e69f00", "#009e73", "#56b4e9", "#cc79a7"), strict=True))
BEST, TORCH = "#9aa3ad", "#ee6c4d"
FAR = 3.0  # bars of sums are cut at so many times ours
TORCHES = ("torch", "torch_cl")


def write_all(directory: Path, report: Report) -> list[Path]:
    """Write the charts; return their paths."""
    networks = [name for name in (*NETWORKS, *GROUPED_NETWORKS) if any(r.layer.network == name for r in report.results)]
    figures = {"roofline": roofline(report), "networks": network_sums(report, networks)}
    for name in networks:
        figures[f"layers-{re.sub('[^a-z0-9]', '', name.lower())}"] = layer_bars(report, name)
    paths = []
    for stem, figure in figures.items():
        paths.append(directory / f"{stem}.png")
        with whole_file(paths[-1]) as temporary:
            figure.savefig(temporary)
    return paths


def intensity(p: Problem) -> float:
    """Operations for each byte of input, weight and output."""
    return p.flops / (p.itemsize * (math.prod(p.x_shape) + math.prod(p.weight_shape) + math.prod(p.y_shape)))


def roofline(report: Report) -> Figure:
    """Every layer as a point; a stem leads from the best peer to it."""
    figure = _figure(11, 7.4, "What the machine allows, and what the layers reach", f"cpuconv, better layout of each layer; {report.setting}")
    axes = figure.add_subplot()
    points: list[tuple[float, float]] = []
    for r in report.results:
        if not (ours := r.best(OURS)):
            continue
        x, y, colour = intensity(r.layer.problem), r.gflops(ours), COLOURS[class_of(r.layer.problem)]
        points.append((x, y))
        if best := r.best(PEERS):
            points.append((x, r.gflops(best)))
            axes.plot([x, x], [r.gflops(best), y], color=colour, linewidth=1.2, alpha=0.45, zorder=2)
            axes.plot(x, r.gflops(best), marker="_", markersize=6, markeredgewidth=1.4, color=FAINT, alpha=0.8, zorder=2)
        axes.plot(x, y, marker="o", markersize=7, color=colour, markeredgecolor="white", markeredgewidth=0.6, zorder=3)
    roofs = report.roofs
    xs, ys = zip(*points, strict=True) if points else ((1.0,), (1.0,))
    left, right = min(0.5 * min(xs), 0.2 * roofs.gflops / roofs.cache), 2 * max(*xs, 2 * roofs.gflops / roofs.memory)
    low, high = 0.6 * min(*ys, roofs.gflops / 8), 1.6 * max(*ys, roofs.gflops)
    ridge = roofs.gflops / roofs.cache
    axes.plot([ridge, right], [roofs.gflops] * 2, color=INK, linewidth=1.6, zorder=1)
    cores = "one core" if report.threads == 1 else f"{report.threads} threads"
    text = f"multiply-add peak of {cores}: {roofs.gflops:.0f} GFLOP/s"
    axes.annotate(text, (ridge, roofs.gflops), xytext=(24, 6), textcoords="offset points", size=9, color=INK)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    for rate, style in ((roofs.cache, "-"), (roofs.memory, (0, (5, 3)))):
        end = roofs.gflops / rate
        axes.plot([left / 10, end], [left / 10 * rate, roofs.gflops], color=INK, linewidth=1.6, linestyle=style, zorder=1)
    _log_ticks(axes, (left, right), (low, high))
    caption = "Winograd multiplies less than the direct method, and taps on padding are skipped: so points may lie above the roof."
    axes.set_xlabel(f"arithmetic intensity: operations for each byte of input, weight and output\n\n{caption}", color=INK)
    axes.set_ylabel("GFLOP/s, of the direct method's operations", color=INK)
    _plain(axes, "both")
    used = {class_of(r.layer.problem) for r in report.results}
    handles: list[Artist] = [
        Line2D([], [], color=colour, marker="o", markersize=8, linestyle="", label=name) for name, colour in COLOURS.items() if name in used
    ]
    if report.peers:
        handles.append(Line2D([], [], color=FAINT, marker="_", markersize=9, markeredgewidth=1.6, linestyle="", label="best peer, with a stem"))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, labelcolor=INK)
    figure.draw_without_rendering()  # only now the slopes on paper are known
    for rate, name in ((roofs.cache, "copying within L2"), (roofs.memory, "copying in memory")):
        x = max(left, low / rate) * 1.15
        (x0, y0), (x1, y1) = axes.transData.transform([(x, x * rate), (2 * x, 2 * x * rate)])
        angle = math.degrees(math.atan2(y1 - y0, x1 - x0))
        where: dict[str, Any] = {"xytext": (-5, 6), "textcoords": "offset points", "rotation": angle, "rotation_mode": "anchor"}
        axes.annotate(f"{name}: {rate:.0f} GB/s", (x, x * rate), **where, size=9, color=INK)
    return figure


def network_sums(report: Report, networks: list[str]) -> Figure:
    """A panel for each network: milliseconds of all its layers, by contestant, stacked by class."""
    columns = min(3, len(networks))
    rows = math.ceil(len(networks) / columns)
    figure = _figure(
        4.6 * columns + 1, (0.31 * len(report.names) + 0.75) * rows + 1.7, "How long the convolutions of a network take",
        f"milliseconds, summed over the layers measured; {report.setting}",
    )  # fmt: skip
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat[len(networks) :]:
        axes.set_visible(False)
    for panel, network in enumerate(networks):
        axes = panels.flat[panel]
        results = [r for r in report.results if r.layer.network == network]
        limit = FAR * max((_milliseconds(results, name) for name in report.ours), default=math.inf)
        for row, name in enumerate(report.names):
            _sum_bar(axes, row, name, results, limit)
        axes.set_yticks(range(len(report.names)), [ALL[name].title for name in report.names] if panel % columns == 0 else [])
        for label, name in zip(axes.get_yticklabels(), report.names, strict=False):
            label.set_fontweight("bold" if name in OURS else "normal")
        axes.set_ylim(len(report.names) - 0.4, -0.6)
        axes.set_xlim(0, axes.get_xlim()[1] * 1.16)
        axes.set_title(f"{network}  ({sum(r.layer.count for r in results)} layers)", loc="left", size=11, weight="bold", color=INK)
        _plain(axes, "x")
    used = {class_of(r.layer.problem) for r in report.results}
    figure.legend(
        handles=[Patch(color=colour, label=name) for name, colour in COLOURS.items() if name in used],
        loc="outside lower center", ncols=4, frameon=False, labelcolor=INK,
    )  # fmt: skip
    return figure


def _milliseconds(results: list[Result], name: str, title: str | None = None) -> float:
    """Of all layers, or those of one class, that the contestant did."""
    rows = (r for r in results if name in r.seconds and title in (None, class_of(r.layer.problem)))
    return sum(r.seconds[name] * r.layer.count * 1e3 for r in rows)


def _sum_bar(axes: Axes, row: int, name: str, results: list[Result], limit: float) -> None:
    if lacking := sum(name not in r.seconds for r in results):
        axes.annotate(f" not measured on {lacking} of {len(results)}", (0, row), va="center", size=8, color=FAINT)
        return
    left = 0.0
    for title, colour in COLOURS.items():
        width = min(_milliseconds(results, name, title), limit - left)
        axes.barh(row, width, left=left, height=0.72, color=colour if name in OURS else _pale(colour))
        left += width
    total = _milliseconds(results, name)
    text = (f"{total:.3g}" if total < 100 else f"{total:.0f}") + (" (cut)" if total > limit else "")
    _value(axes, left, row, text, size=9, weight="bold" if name in OURS else "normal")


def layer_bars(report: Report, network: str) -> Figure:
    """Bars of one network's layers: cpuconv, the best peer, PyTorch."""
    results = [r for r in report.results if r.layer.network == network and r.best(OURS)]
    torches = dict.fromkeys(name for name in TORCHES if name in report.names)
    bars = 1 + bool(report.peers) + bool(torches)
    height = 0.155 * (bars + 0.7)
    subtitle = f"better layout of each; {report.setting}"
    figure = _figure(10, height * len(results) + 1.9, f"{network}, layer by layer", subtitle)
    axes = figure.add_subplot()
    for row, r in enumerate(results):
        ours, best, torch = r.best(OURS), r.best(PEERS), r.best(torches)
        shown = [(ours, COLOURS[class_of(r.layer.problem)]), (best, BEST), (torch, TORCH)][: 3 if torches else bars]
        for i, (name, colour) in enumerate(shown):
            if name is None:
                continue
            y = row + (i - (bars - 1) / 2) * 0.26 * 3 / bars
            axes.barh(y, r.gflops(name), height=0.26 * 3 / bars * 0.92, color=colour)
            text = f"{r.gflops(name):.0f}"
            if i == 0 and best:
                text += f"   {r.seconds[best] / r.seconds[name]:.2f}x"
            elif i == 1:
                text += f"   {ALL[name].title}"
            _value(axes, r.gflops(name), y, text, size=7.5, **({"weight": "bold"} if i == 0 else {"color": FAINT}))
    axes.axvline(report.roofs.gflops, color=INK, linewidth=1, linestyle=(0, (5, 3)), zorder=0)
    labels = [r.layer.label + (f"  ×{r.layer.count}" if r.layer.count > 1 else "") for r in results]  # noqa: RUF001
    axes.set_yticks(range(len(results)), labels)
    axes.set_ylim(len(results) - 0.45, -0.55)
    axes.set_xlim(0, axes.get_xlim()[1] * 1.1)
    axes.set_xlabel("GFLOP/s (dashed: the multiply-add peak)", color=INK)
    _plain(axes, "x")
    used = {class_of(r.layer.problem) for r in results}
    handles = [Patch(color=colour, label=f"cpuconv, {name}") for name, colour in COLOURS.items() if name in used]
    if report.peers:
        handles.append(Patch(color=BEST, label="best peer"))
    if torches:
        handles.append(Patch(color=TORCH, label="PyTorch, better layout"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, labelcolor=INK)
    return figure


def _figure(width: float, height: float, title: str, subtitle: str) -> Figure:
    figure = Figure(figsize=(width, height), dpi=110, facecolor="white", layout="constrained")
    engine = figure.get_layout_engine()
    assert engine
    top = 0.72 / height
    engine.set(w_pad=0.12, h_pad=0.1, rect=(0, 0, 1, 1 - top))  # type: ignore[call-arg]
    figure.text(0.14 / width, 1 - 0.3 / height, title, size=15, weight="bold", color=INK, va="center")
    figure.text(0.14 / width, 1 - 0.57 / height, subtitle, size=9.5, color=FAINT, va="center")
    return figure


def _value(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text at the end of a bar."""
    blank = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    where: dict[str, Any] = {"xytext": (4, -0.5), "textcoords": "offset points", "va": "center"}
    axes.annotate(text, (x, y), **where, bbox=blank, **{"color": INK} | style)


def _pale(colour: str) -> Any:
    return 0.4 + 0.6 * np.array(to_rgb(colour))


def _plain(axes: Axes, grid: str) -> None:
    axes.grid(axis=grid, color=GRID)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=INK)


def _log_ticks(axes: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    def ticks(low: float, high: float) -> Iterable[float]:
        every = [m * 10.0**e for e in range(-3, 7) for m in (1, 2, 5)]
        return [t for t in every if low <= t <= high]

    for axis, (low, high) in ((axes.xaxis, x), (axes.yaxis, y)):
        values = np.array(ticks(low, high))
        axis.set_ticks(values, [f"{t:g}" for t in values])
        axis.set_ticks([], minor=True)
