"""The commands `info` and `explain`, and the group that all commands belong to."""

from __future__ import annotations

from typing import Any

import click
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import cpuconv
from cpuconv import cpu, planner
from cpuconv.cli import INTERRUPTED, specs
from cpuconv.cli.bench import bench
from cpuconv.cli.demo import demo
from cpuconv.cli.tune import tune, wisdom
from cpuconv.config import configuration
from cpuconv.planner import Budget
from cpuconv.problem import Problem
from cpuconv.version import __version__

ALGORITHMS = ("auto", "winograd", *planner.algorithms())


class Commands(click.Group):
    """A group whose commands end with their own status when interrupted."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(INTERRUPTED)


def _accuracy(text: str) -> float | str:
    if text == "strict":
        return text
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not number > 0:
        raise click.BadParameter(f'{text!r} is neither a positive number nor "strict"')
    return number


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="cpuconv")
def app() -> None:
    """The fastest convolution that your CPU can do, for NumPy arrays.

    Start with "cpuconv demo": it filters a photograph, runs the layers of a neural network on it, checks every result and
    draws what it measured.
    """


for command in (bench, demo, tune, wisdom):
    app.add_command(command)


@app.command()
def info() -> None:
    """Show the CPU, its instruction sets, caches and rates, threads, BLAS, Numba and versions."""
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(style="bold cyan", no_wrap=True)
    table.add_column()
    for key, value in configuration().items():
        table.add_row(key, _bytes(value) if key in ("l1", "l2", "l3") else str(value))
    Console().print(table)


@app.command()
@click.argument("problem", type=specs.problem, metavar="SPEC")
@click.option("--accuracy", type=_accuracy, metavar="X|strict", help="Largest error allowed, relative to max|y|; strict: plain summation only.")
@click.option("--algorithm", type=click.Choice(ALGORITHMS), default="auto", metavar="NAME", help=f"Consider only {', '.join(ALGORITHMS[1:])}.")
@click.option("--workspace-limit", type=click.IntRange(min=0), metavar="BYTES", help="What scratch and packed weight may take.")
def explain(problem: Problem, accuracy: float | str | None, algorithm: str, workspace_limit: int | None) -> None:
    """Show which algorithm a convolution would get, and why not the others.

    SPEC describes the convolution: batch, channels and size of the input, output channels, kernel, stride, padding, dilation,
    groups, type (f32, f64) and layout (nchw, nhwc), and for gradients the pass (input, weight), as in

    \b
      cpuconv explain n1_ic64_ih56_iw56_oc64_kh3_kw3_s1_p1_d1_g1_f32_nchw
    """
    machine = cpuconv.wisdom.calibrated(cpu.detect())
    budget = Budget(algorithm, accuracy, workspace_limit)
    rows = planner.candidates(problem, budget, machine)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for title in ("", "algorithm", "predicted", "measured", "workspace", "packed weight", "error"):
        table.add_column(title, justify="right" if title not in ("", "algorithm") else "left", no_wrap=True)
    for row in rows:
        if row.cost:
            cost = row.algorithm.estimate(problem, machine)
            chosen = row is rows[0] and not row.rejection
            style = "bold green" if chosen else "dim" if row.rejection else ""
            measured = specs.microseconds(row.measured * problem.n) if row.measured else "-"
            figures = (specs.microseconds(cost.seconds), measured, _bytes(cost.workspace), _bytes(cost.packed), f"{cost.error:.1e}")
            table.add_row("●" if chosen else "", row.algorithm.name, *figures, style=style)
    made_of = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for count, piece, best in planner.made_of_pieces(problem, budget, machine):
        made_of.add_row(f"  {count} x", str(piece), best.algorithm.name, specs.microseconds(best.seconds * piece.n))
    reasons = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for row in rows:
        if row.rejection:
            reasons.add_row(f"  {row.algorithm.name}", escape(row.rejection.reason))

    console = Console()
    console.print(str(problem), style="bold")
    console.print(f"{problem.flops / 1e6:,.1f} MFLOP on {machine.isa}, {machine.model}")
    console.print(table)
    console.print("● chosen" if not rows[0].rejection else "No algorithm fits.", style="green" if not rows[0].rejection else "bold red")
    console.print("Times are for one thread (\"cpuconv tune\" measures them), workspace for each thread, error relative to max|y|.", style="dim")
    if made_of.row_count:
        console.print("\nMade of these, one after the other:")
        console.print(made_of)
    if reasons.row_count:
        console.print("\nNot taken:")
        console.print(reasons)


def _bytes(size: int) -> str:
    for unit, scale in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= scale:
            return f"{size / scale:.4g} {unit}"
    return f"{size} B"
