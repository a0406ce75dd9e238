"""The command `bench`: times the layers of standard networks in cpuconv and in the peers that are installed."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from cpuconv.bench import worker
from cpuconv.bench.layers import GROUPED_NETWORKS, NETWORKS, Layer, layers_of
from cpuconv.bench.peers import ALL, OURS, PEERS
from cpuconv.bench.report import Report, geometric_mean, write_json, write_markdown
from cpuconv.bench.roofs import measure_roofs


def _pattern(context: click.Context, parameter: click.Parameter, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as e:
        raise click.BadParameter(f"{text!r} is not a regular expression: {e}") from e


def _peers(context: click.Context, parameter: click.Parameter, text: str | None) -> list[str]:
    names = list(PEERS) if text is None else [name for name in text.split(",") if name]
    if unknown := [name for name in names if name not in PEERS]:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(PEERS)}")
    return list(dict.fromkeys(names))


NETWORK = click.Choice((*NETWORKS, *GROUPED_NETWORKS), case_sensitive=False)


@click.command()
@click.option("--network", "networks", multiple=True, type=NETWORK, metavar="NAME", help="Only its layers.")
@click.option("--layers", "pattern", default="", callback=_pattern, metavar="REGEX", help="Only layers whose name or problem matches.")
@click.option("--peers", callback=_peers, metavar="A,B", help=f"Of {', '.join(PEERS)}; all by default, none with ''.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="Images of an inference.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, metavar="N")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), default=0.15, show_default=True, metavar="S", help="Per layer and contestant.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default="cpuconv-bench", show_default=True, help="Where to write.")
def bench(networks: tuple[str, ...], pattern: re.Pattern[str], peers: list[str], batch: int, threads: int, seconds: float, output: Path) -> None:
    """Time the layers of standard networks in cpuconv and in other libraries.

    Each layer runs in cpuconv (both layouts) and in every peer that is installed, by turns, on the same data; each result is
    checked against a float64 reference. The machine should have nothing else to do: on one thread, all layers and peers take
    about ten minutes.

    \b
    Networks: ResNet-50, VGG-16, MobileNetV2, EfficientNet-B0, YOLOv8n, U-Net, DeepLabV3, ConvNeXt-T, TextCNN; and,
    only if named, of grouped layers: ResNeXt-50, RegNet, ShuffleNet.

    Written are results.md with tables, results.json with every figure, and charts: a roofline, the sum over each network, and
    every layer against the best peer.
    """
    known = [layer for network in networks or NETWORKS for layer in layers_of(network)]
    found = [layer for layer in known if pattern.search(layer.name) or pattern.search(str(layer.problem))]
    chosen = [replace(layer, problem=replace(layer.problem, n=batch)) for layer in found]
    if not chosen:
        raise click.BadParameter(f"no layer matches {pattern.pattern!r}", param_hint="'--layers'")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise click.BadParameter(f"cannot make {output}: {e.strerror}", param_hint="'--output'") from e
    missing = {name: PEERS[name].missing for name in peers if PEERS[name].missing}
    names = [*OURS, *(name for name in peers if name not in missing)]

    console = Console()
    for name, modules in missing.items():
        console.print(f"{PEERS[name].title} is left out: {', '.join(modules)} not installed.", style="yellow")
    report = Report([], names, missing, measure_roofs(threads), threads, seconds, batch)
    console.print(f"{len(chosen)} layers, {len(names)} contestants; {report.setting}", markup=False, highlight=False)
    columns = (TextColumn("{task.description:<52}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(chosen))

        def entering(layer: Layer, name: str) -> None:
            progress.update(task, description=f"{layer.name}  {ALL[name].title}")

        for result in worker.run(chosen, names, threads, seconds, entering):
            report.results.append(result)
            progress.advance(task)
    console.print(_summary(report))
    for path in _write(report, output):
        click.echo(f"  {path}")
    _fail_on_own_errors(report)


def _summary(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="GFLOP/s, geometric means", title_style="bold", title_justify="left", padding=(0, 1, 0, 0))
    table.add_column("contestant")
    classes = report.classes()
    for title, results in classes.items():
        table.add_column(f"{title} ({len(results)})", justify="right")
    for name in report.names:
        means = [geometric_mean(r.gflops(name) for r in results if name in r.seconds) for results in classes.values()]
        table.add_row(ALL[name].title, *("-" if math.isnan(mean) else f"{mean:.0f}" for mean in means), style="green" if name in OURS else "")
    if report.peers:
        ratios = [[q for r in results if (q := report.ratio(r, report.ours, report.peers))] for results in classes.values()]
        table.add_section()
        table.add_row("cpuconv to the best peer of each layer", *(f"{geometric_mean(q):.2f}x" for q in ratios), style="bold")
        table.add_row("its worst layer", *(f"{min(q, default=float('nan')):.2f}x" for q in ratios))
    return table


def _write(report: Report, output: Path) -> list[Path]:
    from cpuconv.bench import plots  # Matplotlib takes long to import

    figures, tables = output / "results.json", output / "results.md"
    try:
        write_json(figures, report)  # first, as all else can be drawn again from it
        pictures = plots.write_all(output, report)
        write_markdown(tables, report, pictures)
    except OSError as e:
        raise click.ClickException(f"cannot write: {e}") from e
    return [tables, figures, *pictures]


def _fail_on_own_errors(report: Report) -> None:
    wrong = [f"  {r.layer.name}, {ALL[name].title}: {r.failures[name]}" for r in report.results for name in report.ours if name in r.failures]
    if wrong:
        raise click.ClickException("\n".join(["cpuconv failed:", *wrong]))
