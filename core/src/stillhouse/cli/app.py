"""The application: its commands, and its own options."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from stillhouse.cli.check import check
from stillhouse.cli.generate import generate
from stillhouse.cli.list import list_plugins
from stillhouse.cli.show import show

__all__ = ["app"]

app = typer.Typer(
    name="stillhouse",
    help="One contract for every language model. Backends are packages that you install beside it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import importlib_metadata

        print(f"stillhouse {importlib_metadata.version('stillhouse')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[  # its callback does the work
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """One contract for every language model. Backends are packages that you install beside it."""


app.command("list")(list_plugins)
app.command("show")(show)
app.command("check")(check)
app.command("generate")(generate)
