"""The command `demo`: filters a photograph, runs a network's layers on it, checks and times everything, and draws it."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path

import click
import numpy as np
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cpuconv import cpu
from cpuconv.cli import filters, measure, network, numpy_way
from cpuconv.plan import Array
from cpuconv.threads import get_num_threads, threads

LONGEST = 640  # pixels: larger photos are scaled down, for the reference takes its time


@click.command()
@click.argument("image", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default="cpuconv-demo", help="Where to write; ./cpuconv-demo by default.")
@click.option("--threads", "limit", type=click.IntRange(min=1), metavar="N", help="Threads to use; all cores by default.")
@click.option("--layout", type=click.Choice(["NCHW", "NHWC"]), default="NCHW", help="Order of the arrays' axes; NCHW by default.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=10.0, metavar="S", help="Time for measuring layers; 10 by default.")
def demo(image: Path | None, output: Path, limit: int | None, layout: str, seconds: float) -> None:
    """Filter a photograph, run network layers on it, check and time everything.

    IMAGE is any picture file; without one a portrait of Grace Hopper is taken.

    First a bank of filters (blurs, edges, Gabor wavelets ...) is applied to the photo. Then the photo passes through a stack
    of ResNet-like layers with random weights, each of them computed by the algorithm that the planner chooses, by every other
    one that can do it, and by plain NumPy. Every result is checked against a float64 reference; if one errs by more than its
    algorithm promises, the exit status is 1.

    Written are the filtered pictures, a contact sheet of them (filters.png) and a chart of the layers' speed (layers.png).
    """
    # Matplotlib takes longer to import than all the rest, and the other commands do without it.
    from cpuconv.cli import pictures

    hint = "'[IMAGE]'"
    try:
        photo = pictures.read_photo(image or pictures.default_photo(), LONGEST)
    except ValueError as e:
        raise click.BadParameter(str(e), param_hint=hint) from e
    if min(photo.size) < filters.SMALLEST:
        raise click.BadParameter(f"{photo.width} x {photo.height} pixels; each side needs at least {filters.SMALLEST}", param_hint=hint)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise click.BadParameter(f"cannot make {output}: {e.strerror}", param_hint="'--output'") from e

    console = Console()
    with threads(limit) if limit else nullcontext():
        machine = cpu.detect()
        setting = f"{layout}, float32, {get_num_threads()} thread{'s' * (get_num_threads() > 1)}, {machine.isa}, {machine.model}"
        console.print(f"{image.name if image else 'Grace Hopper'}, {photo.width} x {photo.height} pixels; {setting}", markup=False, highlight=False)
        filtered = _run_filters(console, pictures.pixels(photo), layout)
        console.print(_filter_table(filtered))
        compared = _run_layers(console, pictures.square(photo, network.SIZE), layout, seconds)
    console.print(_layer_table(compared))
    _print_summary(console, compared, limit)

    written = {output / f"{r.filter.name.lower().replace(' ', '-')}.png": r.picture for r in filtered}
    sheet, chart = output / "filters.png", output / "layers.png"
    try:
        for path, picture in written.items():
            pictures.write_picture(path, picture)
        pictures.write_sheet(sheet, photo, filtered)
        pictures.write_chart(chart, compared, f"Layers of the kind that ResNets are made of, one photograph; {setting}")
    except OSError as e:
        raise click.ClickException(f"cannot write: {e}") from e
    console.print("Written:", style="bold")
    for path in (*written, sheet, chart):
        click.echo(f"  {path}")
    _fail_on_errors(filtered, compared)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True)


def _run_filters(console: Console, photo: Array, layout: str) -> list[filters.Filtered]:
    with _progress(console) as progress:
        return list(progress.track(filters.run(photo, layout), total=len(filters.BANK), description="Filters"))


def _run_layers(console: Console, photo: Array, layout: str, seconds: float) -> list[network.Comparison]:
    rng = np.random.default_rng(0)
    x = network.first_input(photo, layout)
    compared = []
    with _progress(console) as progress:
        for layer in progress.track(network.STACK, description="Layers"):
            compared.append(network.compare(layer, x, layout, rng, seconds / len(network.STACK)))
            x = compared[-1].output
    return compared


def _table(title: str, *right: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, title_style="bold", title_justify="left", padding=(0, 1, 0, 0))
    table.add_column(title.split()[0].lower().rstrip("s"))
    table.add_column("algorithm", no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _figures(m: measure.Measured) -> tuple[str, str]:
    error, bound = (f"{value:.1e}".replace("e-0", "e-") for value in (m.error, m.bound))
    return error if m.ok else f"[bold red]{error}[/]", bound


def _filter_table(filtered: list[filters.Filtered]) -> Table:
    table = _table("Filters", "kernels", "ms", "error", "bound")
    for r in filtered:
        kernels, height, width = r.filter.taps.shape
        table.add_row(r.filter.name, r.measured.name, f"{kernels} of {height}x{width}", f"{r.measured.seconds * 1e3:.2f}", *_figures(r.measured))
    return table


def _layer_table(compared: list[network.Comparison]) -> Table:
    table = _table("Layers", "ms", "GFLOP/s", "speed", "error", "bound")
    for r in compared:
        for i, m in enumerate(r.all):
            first = i == 0
            title = {0: r.label, 1: f"  {r.size}"}.get(i, "")
            mark = "●" if first else " " if m.eligible else "○"
            figures = (f"{m.seconds * 1e3:.3f}", f"{r.flops / m.seconds / 1e9:.0f}", f"{r.speedup(m):.1f}x", *_figures(m))
            table.add_row(title, f"{mark} {m.name}", *figures, style="green" if first else "", end_section=m is r.numpy)
    return table


def _print_summary(console: Console, compared: list[network.Comparison], limit: int | None) -> None:
    console.print("● the planner's choice; ○ its bound is over the default accuracy, so that it must be asked for by name.", style="dim")
    console.print("Speed is relative to NumPy's; errors and bounds to the largest value of the result.", style="dim")
    if limit and numpy_way.blas_thread_setter() is None:
        console.print("NumPy's BLAS is not OpenBLAS and keeps its own number of threads.", style="dim")
    speedup = math.exp(sum(math.log(r.speedup(r.chosen)) for r in compared) / len(compared))
    best = sum(r.chosen.seconds <= 1.05 * r.fastest for r in compared)
    ours, numpys = (sum(m.seconds for m in column) * 1e3 for column in ([r.chosen for r in compared], [r.numpy for r in compared]))
    console.print(
        f"\nAll layers: {ours:.1f} ms, NumPy {numpys:.1f} ms; by geometric mean [bold]{speedup:.1f} times as fast as NumPy[/]. "
        f"The planner's choice was the fastest algorithm, or within 5 % of it, on {best} of {len(compared)} layers.\n"
    )


def _fail_on_errors(filtered: list[filters.Filtered], compared: list[network.Comparison]) -> None:
    checks = [(r.filter.name, r.measured) for r in filtered] + [(r.label, m) for r in compared for m in r.all]
    wrong = [f"  {label}, {m.name}: error {m.error:.1e}, stated bound {m.bound:.1e}" for label, m in checks if not m.ok]
    if wrong:
        raise click.ClickException("\n".join([f"{len(wrong)} of {len(checks)} results differ from the reference by more than allowed:", *wrong]))
    click.echo(f"All {len(checks)} results agree with the float64 reference within their bounds.")
