"""Specs as arguments of commands, and figures as they print them."""

from __future__ import annotations

import click
from rich.console import Console

from cpuconv.problem import Problem


def problem(text: str) -> Problem:
    """What click makes of an argument SPEC."""
    try:
        return Problem.parse(text)
    except ValueError as e:
        raise click.BadParameter(str(e).removeprefix("spec: ")) from e


def from_file(path: str) -> list[Problem]:
    """The specs in a file, one a line; empty lines and what follows a # do not count."""
    problems = []
    with click.open_file(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if text := line.partition("#")[0].strip():
                try:
                    problems.append(problem(text))
                except click.BadParameter as e:
                    raise click.BadParameter(f"{path}, line {number}: {e.message}", param_hint="'--file'") from e
    return problems


def microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:,.1f} us"


def console() -> Console:
    """Standard output; where it is no terminal it is wide, so that specs are not folded."""
    terminal = Console()
    return terminal if terminal.is_terminal else Console(width=200)
