"""The commands `info` and `explain`, and the group that all commands belong to."""

from __future__ import annotations

from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from cpuconv import cpu, planner
from cpuconv.cli.demo import demo
from cpuconv.config import configuration
from cpuconv.planner import Budget
from cpuconv.problem import Problem
from cpuconv.version import __version__


class Commands(click.Group):
    """A group whose commands end with status 130, as shells have it, when interrupted."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(130)


class Spec(click.ParamType):
    """A problem's spec string."""

    name = "spec"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Problem:
        try:
            return value if isinstance(value, Problem) else Problem.parse(value)
        except ValueError as e:
            self.fail(str(e).removeprefix("spec: "), param, ctx)


class Accuracy(click.ParamType):
    """A positive number or "strict"."""

    name = "accuracy"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if value == "strict":
            return "strict"
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if not number > 0:
            self.fail(f'{value!r} is neither a positive number nor "strict"', param, ctx)
        return number


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="cpuconv")
def app() -> None:
    """The fastest convolution that your CPU can do, for NumPy arrays.

    Start with "cpuconv demo": it filters a photograph, runs the layers of a neural network on it, checks every result and
    draws what it measured.
    """


app.add_command(demo)


@app.command()
def info() -> None:
    """Show the CPU, its instruction sets and caches, threads, BLAS, Numba and versions."""
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(style="bold cyan", no_wrap=True)
    table.add_column()
    for key, value in configuration().items():
        table.add_row(key, _bytes(value) if key in ("l1", "l2", "l3") else str(value))
    Console().print(table)


@app.command()
@click.argument("problem", type=Spec(), metavar="SPEC")
@click.option("--accuracy", type=Accuracy(), metavar="X|strict", help="Largest error allowed, relative to max|y|; strict: plain summation only.")
@click.option("--algorithm", type=click.Choice(["auto", "winograd", *planner.algorithms()]), default="auto", metavar="NAME", help="Consider this one only.")
@click.option("--workspace-limit", type=click.IntRange(min=0), metavar="BYTES", help="What scratch and packed weight may take.")
def explain(problem: Problem, accuracy: float | str | None, algorithm: str, workspace_limit: int | None) -> None:
    """Show which algorithm a convolution would get, and why not the others.

    SPEC describes the convolution: batch, channels and size of the input, output channels, kernel, stride, padding, dilation,
    groups, type (f32, f64) and layout (nchw, nhwc), as in

    \b
      cpuconv explain n1_ic64_ih56_iw56_oc64_kh3_kw3_s1_p1_d1_g1_f32_nchw
    """
    machine = cpu.detect()
    rows = planner.candidates(problem, Budget(algorithm, accuracy, workspace_limit), machine)
    table = Table(box=box.SIMPLE_HEAD, title=str(problem), title_style="bold", caption=f"{problem.flops / 1e6:.1f} MFLOP on {machine.isa}, {machine.model}")
    table.add_column("")
    table.add_column("algorithm", no_wrap=True)
    for title in ("predicted", "workspace", "packed", "error"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("why not")
    for i, row in enumerate(rows):
        chosen = i == 0 and not row.rejection
        figures = ["-"] * 4
        if row.cost:
            cost = row.algorithm.estimate(problem, machine)
            figures = [f"{cost.seconds * 1e6:.1f} us", _bytes(cost.workspace), _bytes(cost.packed), f"{cost.error:.1e}"]
        style = "bold green" if chosen else "dim" if row.rejection else ""
        table.add_row("●" if chosen else "", row.algorithm.name, *figures, row.rejection.reason if row.rejection else "", style=style)
    console = Console()
    console.print(table)
    console.print(
        "● chosen. Predicted: one thread; workspace: for each thread; error: largest expected, relative to max|y|."
        if not rows[0].rejection
        else "No algorithm fits.",
        style="dim",
    )


def _bytes(size: int) -> str:
    for unit, scale in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= scale:
            return f"{size / scale:.4g} {unit}"
    return f"{size} B"
