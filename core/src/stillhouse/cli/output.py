"""Output that all commands print in the same way: tables, facts, errors, warnings."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import ParamSpec, TextIO, TypeVar

import click

from stillhouse.errors import StillhouseError

__all__ = ["guarded", "print_error", "print_facts", "print_json", "print_reports", "print_table"]

P = ParamSpec("P")
T = TypeVar("T")

_COLORS = {"error": "bold red", "warning": "bold yellow"}


def guarded(function: Callable[P, T]) -> Callable[P, T]:
    """Turn an error of Stillhouse into its message and exit status 1."""

    @functools.wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except StillhouseError as error:
            print_error(error)
            raise click.exceptions.Exit(1) from None

    return command


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: with rich on a terminal, aligned with spaces in a pipe."""
    rows = [list(row) for row in rows]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table(box=None, header_style="bold", pad_edge=False)
        # Names are copied, so they are never cut off.
        table.add_column(header[0], no_wrap=True, min_width=max(len(row[0]) for row in [header, *rows]))
        for title in header[1:]:
            table.add_column(title, overflow="fold")
        for row in rows:
            table.add_row(*(_unmarked(cell) for cell in row))
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for line in [header, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        print("  ".join(cells).rstrip())


def print_facts(lines: Sequence[tuple[str, str]], stream: TextIO) -> None:
    """Print labels and values in two columns."""
    width = max(len(label) for label, _ in lines)
    for label, value in lines:
        print(f"{label.ljust(width)}  {value}", file=stream)


def print_json(value: object) -> None:
    """Print JSON on standard output."""
    import json

    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_reports(reports: Iterable[str]) -> None:
    """Print reports of problems, or warnings, on standard error."""
    for text in reports:
        head, bracket, rest = text.partition("[")
        _print_colored(head, bracket + rest, _COLORS.get(head, ""))


def print_error(error: StillhouseError) -> None:
    """Print an error of Stillhouse on standard error; the report of a plugin is complete in itself."""
    text = str(error)
    if text.startswith("error["):
        print_reports([text])
    else:
        _print_colored("error", f": {text}", _COLORS["error"])


def print_warning(text: str) -> None:
    """Print a warning on standard error."""
    _print_colored("warning", f": {text}", _COLORS["warning"])


def _print_colored(head: str, rest: str, style: str) -> None:
    if style and sys.stderr.isatty():
        from rich.console import Console

        console = Console(stderr=True)
        console.print(f"[{style}]{head}[/]{_unmarked(rest)}", highlight=False, soft_wrap=True)
    else:
        print(head + rest, file=sys.stderr)


def _unmarked(text: str) -> str:
    from rich.markup import escape

    return escape(text)
