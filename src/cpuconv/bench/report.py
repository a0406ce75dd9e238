"""What was measured, as JSON and as Markdown."""

from __future__ import annotations

import json
import math
import platform
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cpuconv import cpu
from cpuconv.bench.layers import CLASSES, class_of
from cpuconv.bench.measure import Result
from cpuconv.bench.peers import ALL, OURS, PEERS
from cpuconv.bench.roofs import Roofs
from cpuconv.files import whole_file
from cpuconv.version import __version__

NOTABLE = 1e-5  # errors below this part of max|y| are float32's own


def geometric_mean(values: Iterable[float]) -> float:
    logs = [math.log(v) for v in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def setting(threads: int, batch: int = 1) -> str:
    """What figures were measured on, in a line."""
    machine = cpu.detect()
    return f"{threads} thread{'s' * (threads > 1)}, float32, batch {batch}, {machine.isa}, {machine.model}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """In Markdown."""
    head = list(head)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


@dataclass(frozen=True)
class Report:
    """One run: its results and what they were measured on. `missing`: peers asked for, and the modules that they lack."""

    results: list[Result]
    names: list[str]
    missing: dict[str, list[str]]
    roofs: Roofs
    threads: int
    seconds: float
    batch: int = 1

    @property
    def ours(self) -> list[str]:
        return [name for name in self.names if name in OURS]

    @property
    def peers(self) -> list[str]:
        return [name for name in self.names if name in PEERS]

    @property
    def setting(self) -> str:
        return setting(self.threads, self.batch)

    @property
    def versions(self) -> dict[str, str]:
        packages = {ALL[name].package: ALL[name].version for name in self.peers}
        return {"cpuconv": __version__, "python": platform.python_version(), "numpy": np.__version__} | packages

    def ratio(self, result: Result, ours: Iterable[str], peers: Iterable[str]) -> float | None:
        """How many times as fast as the best of `peers` the best of `ours` was."""
        a, b = result.best(dict.fromkeys(ours)), result.best(dict.fromkeys(peers))
        return result.seconds[b] / result.seconds[a] if a and b else None

    def classes(self) -> dict[str, list[Result]]:
        """The results by class, those without any left out, then all of them."""
        rows = {name: [r for r in self.results if class_of(r.layer.problem) == name] for name in CLASSES}
        return {name: row for name, row in rows.items() if row} | {"all": self.results}


def write_json(path: Path, report: Report) -> None:
    machine = cpu.detect()
    document: dict[str, Any] = {
        "cpu": machine.model, "isa": machine.isa, "cores": machine.cores, "threads": report.threads, "batch": report.batch,
        "seconds": report.seconds,
        "versions": report.versions, "missing": report.missing, "roofs": asdict(report.roofs),
        "layers": [
            {
                "network": r.layer.network, "layer": r.layer.label, "class": class_of(r.layer.problem), "problem": str(r.layer.problem),
                "count": r.layer.count, "us": {k: v * 1e6 for k, v in r.seconds.items()}, "gflops": {k: r.gflops(k) for k in r.seconds},
                "error": {k: v if math.isfinite(v) else None for k, v in r.errors.items()}, "failures": r.failures,
            }
            for r in report.results
        ],
    }  # fmt: skip
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


def write_markdown(path: Path, report: Report, pictures: Iterable[Path]) -> None:
    with whole_file(path) as temporary:
        temporary.write_text("\n\n".join(_sections(report, pictures)) + "\n")


def _sections(report: Report, pictures: Iterable[Path]) -> Iterable[str]:
    roofs = report.roofs
    yield "# Convolution layers: cpuconv and its peers"
    yield f"{report.setting}. Versions: " + ", ".join(f"{k} {v}" for k, v in report.versions.items()) + "."
    yield (
        f"Measured roofs: {roofs.core_gflops:.0f} GFLOP/s of multiply-adds on one core, {roofs.gflops:.0f} on {report.threads}; "
        f"{roofs.memory:.0f} GB/s copied in memory, {roofs.cache:.0f} within L2. Figures are minima over interleaved rounds, "
        f"{report.seconds:g} s for each layer and contestant; weights are packed ahead. GFLOP/s counts the direct method's operations, "
        "so that algorithms that need fewer exceed the peak."
    )
    if report.missing:
        yield "Not installed, so not measured: " + ", ".join(f"{ALL[k].title} ({', '.join(v)})" for k, v in report.missing.items()) + "."
    yield "## By class"
    yield "Geometric means of GFLOP/s; in brackets the number of layers, where a contestant could not do all."
    yield _class_table(report)
    if report.peers:
        yield "How many times as fast as the best peer of each layer, geometric mean and worst layer:"
        yield _ratio_table(report)
        yield "How many times as fast as each peer: the same layout against the same layout, then cpuconv's better layout of each layer:"
        yield _peer_table(report)
    yield from (f"![{picture.stem}]({picture.name})" for picture in pictures)
    yield "## By layer"
    yield "GFLOP/s; the best is bold. Layers are named by kernel, /stride, d(ilation), channels and size of the input."
    yield _layer_table(report)
    notes = _notes(report)
    if notes:
        yield f"## Errors above {NOTABLE:g} of max|y|, and what could not be done"
        yield "\n".join(notes)


def _notes(report: Report) -> list[str]:
    """Notable errors, and failures; what a contestant says of several layers in one line."""
    where: dict[tuple[str, str], list[str]] = defaultdict(list)
    for r in report.results:
        errors = {name: f"error {error:.1e} of max|y|" for name, error in r.errors.items() if name in r.seconds and error > NOTABLE}
        for name, text in (errors | r.failures).items():
            where[name, text].append(r.layer.name)
    return [f"- {ALL[name].title}: {text} ({names[0] if len(names) == 1 else f'{len(names)} layers'})" for (name, text), names in where.items()]


def _class_table(report: Report) -> str:
    def cell(results: list[Result], name: str) -> str:
        done = [r for r in results if name in r.seconds]
        if not done:
            return "-"
        return f"{geometric_mean(r.gflops(name) for r in done):.0f}" + (f" ({len(done)})" if len(done) < len(results) else "")

    rows = [[f"{title} ({len(results)})", *(cell(results, name) for name in report.names)] for title, results in report.classes().items()]
    return table(["class (layers)", *(ALL[name].title for name in report.names)], rows)


def _ratio_table(report: Report) -> str:
    rows = []
    for title, results in report.classes().items():
        cells = []
        for ours in (report.ours, *([name] for name in report.ours)):
            ratios = [(ratio, r.layer.name) for r in results if (ratio := report.ratio(r, ours, report.peers))]
            worst, where = min(ratios, default=(math.nan, ""))
            cells += [f"{geometric_mean(ratio for ratio, _ in ratios):.2f}x", f"{worst:.2f}x {where}"]
        rows.append([f"{title} ({len(results)})", *cells])
    head = [text for title in ("better layout", *(ALL[name].title for name in report.ours)) for text in (title, "worst layer")]
    return table(["class (layers)", *head], rows)


def _peer_table(report: Report) -> str:
    def mean(results: list[Result], ours: list[str], peer: str) -> str:
        value = geometric_mean(ratio for r in results if (ratio := report.ratio(r, ours, [peer])))
        return "-" if math.isnan(value) else f"{value:.2f}x"

    rows = []
    for title, results in report.classes().items():
        cells = []
        for peer in report.peers:
            same = [name for name in report.ours if ALL[name].layout == ALL[peer].layout]
            cells.append(f"{mean(results, same, peer)}, {mean(results, report.ours, peer)}")
        rows.append([f"{title} ({len(results)})", *cells])
    return table(["class (layers)", *(f"{ALL[peer].title} ({ALL[peer].layout})" for peer in report.peers)], rows)


def _layer_table(report: Report) -> str:
    rows = []
    for r in report.results:
        best = r.best(ALL)
        mark: Callable[[str], str] = lambda name, best=best: "**" if name == best else ""  # type: ignore[misc]  # noqa: E731
        figures = [f"{mark(name)}{r.gflops(name):.0f}{mark(name)}" if name in r.seconds else "-" for name in report.names]
        ratio = report.ratio(r, report.ours, report.peers)
        rows.append([r.layer.name, str(r.layer.count), *figures, f"{ratio:.2f}x" if ratio else "-"])
    return table(["layer", "count", *(ALL[name].title for name in report.names), "to best peer"], rows)
