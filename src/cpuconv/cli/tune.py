"""The commands `tune` and `wisdom`."""

from __future__ import annotations

import click
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

import cpuconv
from cpuconv import cpu, planner
from cpuconv.cli import specs
from cpuconv.planner import Budget
from cpuconv.problem import Problem

FILE = click.Path(exists=True, dir_okay=False, allow_dash=True)


@click.command()
@click.argument("problems", type=specs.problem, nargs=-1, metavar="[SPEC]...")
@click.option("--file", "files", type=FILE, multiple=True, help="Specs, one a line; - is standard input.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=10.0, metavar="S", help="Time for all together; 10 by default.")
@click.option("--calibrate", is_flag=True, help="First measure the rates of this CPU that predictions rest on, in about a second.")
def tune(problems: tuple[Problem, ...], files: tuple[str, ...], seconds: float, calibrate: bool) -> None:
    """Measure which algorithm is fastest, and remember it.

    Every SPEC describes a convolution, as for "cpuconv explain". Each algorithm worth trying is timed on one image in one
    thread. From then on every program on this CPU gets the algorithm that was fastest here, within the accuracy
    that it asks for. Each figure is saved as soon as it is known, so an interrupted run loses little.

    \b
      cpuconv tune n1_ic64_ih56_iw56_oc64_kh3_kw3_s1_p1_d1_g1_f32_nchw

    Where nothing was measured the choice rests on predictions. These are made for this CPU by

    \b
      cpuconv tune --calibrate
    """
    wanted = [*problems, *(p for path in files for p in specs.from_file(path))]
    if calibrate:
        click.echo(f"A core of this CPU: {cpuconv.calibrate()}.")
    elif not wanted:
        raise click.UsageError("Nothing to tune: give a SPEC, --file with one a line, or --calibrate.")
    if wanted:
        _tune(wanted, seconds)


def _tune(wanted: list[Problem], seconds: float) -> None:
    machine = cpu.detect()
    guessed = {str(p): planner.candidates(p, Budget(), machine)[0].algorithm.name for p in wanted}
    columns = (BarColumn(), TextColumn("{task.fields[spec]}", style="dim"), TimeElapsedColumn(), TimeRemainingColumn())
    # To standard error, so that the table can be redirected alone.
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(wanted), spec="")
        tuned = cpuconv.tune(wanted, time_limit=seconds, progress=lambda done, n, spec: progress.update(task, completed=done, total=n, spec=spec))

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("problem", overflow="fold")
    table.add_column("fastest", no_wrap=True)
    for title in ("measured", "GFLOP/s"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("chosen before", no_wrap=True)
    for spec, (algorithm, time) in tuned.items():
        before = guessed[spec] if guessed[spec] != algorithm else ""
        table.add_row(spec, algorithm, specs.microseconds(time), f"{Problem.parse(spec).per_image.flops / time / 1e9:.1f}", before)
    console = specs.console()
    console.print(table)
    console.print("Measured on one image in one thread.", style="dim")
    if missing := len(guessed) - len(tuned):
        console.print(f"No time was left for {missing} of {len(guessed)}: give more --seconds.", style="bold red")


@click.group()
def wisdom() -> None:
    """Show or forget what was measured."""


@wisdom.command()
def path() -> None:
    """Print the name of the file that holds what was measured on this CPU."""
    click.echo(cpuconv.wisdom.path())


@wisdom.command()
def show() -> None:
    """Show everything measured on this CPU, the fastest algorithm first."""
    entries = cpuconv.wisdom.entries()
    if not entries:
        click.echo('Nothing was measured yet: see "cpuconv tune --help".')
        return
    versions = {a.name: a.version for a in planner.named("auto")}
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("problem", overflow="fold")
    table.add_column("algorithm", no_wrap=True)
    table.add_column("measured", justify="right", no_wrap=True)
    for key, times in entries.items():
        ranked = sorted(times.items(), key=lambda item: (versions.get(item[0]) != item[1].version, item[1].seconds))
        for i, (name, measured) in enumerate(ranked):
            current = versions.get(name) == measured.version
            label = name if current else f"{name} (outdated)"
            style = "dim" if not current else "green" if i == 0 else ""
            title = "" if i else key.removesuffix(" threads=1")
            table.add_row(title, label, specs.microseconds(measured.seconds), style=style, end_section=i == len(ranked) - 1)
    specs.console().print(table)


@wisdom.command()
@click.argument("problems", type=specs.problem, nargs=-1, metavar="[SPEC]...")
@click.option("--all", "everything", is_flag=True, help="Forget everything measured on this CPU, the calibration too.")
def forget(problems: tuple[Problem, ...], everything: bool) -> None:
    """Forget what was measured on the SPECs, or on all problems."""
    if bool(problems) == everything:
        raise click.UsageError("Give either SPECs or --all.")
    try:
        count = cpuconv.wisdom.forget() if everything else sum(cpuconv.wisdom.forget(p) for p in problems)
    except OSError as e:
        raise click.ClickException(f"cannot write {cpuconv.wisdom.path()}: {e.strerror}") from e
    click.echo(f"Forgot {count} problem{'s' * (count != 1)}.")
