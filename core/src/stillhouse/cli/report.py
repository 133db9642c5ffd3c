"""`stillhouse report`: an HTML report of a run."""

from __future__ import annotations

from pathlib import Path

import click

from stillhouse.cli.help import Command
from stillhouse.cli.output import guarded, print_line

__all__ = ["report"]


def _page(context: click.Context, parameter: click.Parameter, page: str | None) -> str | None:
    if page is not None and not page.lower().endswith((".html", ".htm")):
        raise click.BadParameter(f"{page} is no name of a page; give FILE.html", context, parameter)
    return page


@click.command(
    "report",
    cls=Command,
    short_help="Write an HTML report of a run",
    examples=[("Write answers.jsonl.report.html", "stillhouse report answers.jsonl")],
)
@click.argument("output")
@click.option(
    "-o",
    "--page",
    "page",
    type=click.Path(dir_okay=False),
    metavar="FILE.html",
    callback=_page,
    help="The page to write; default: OUTPUT.report.html.",
)
@click.option(
    "--state", type=click.Path(path_type=Path), metavar="PATH", help="The run's state, if not OUTPUT.run.db."
)
@guarded
def report(output: str, page: str | None, state: Path | None) -> None:
    """Write an HTML report of the run of OUTPUT: its speed, its tokens, and what failed.

    It is one HTML file that needs nothing else. It can be written while the run is working. OUTPUT can
    also be the state of a run.
    """
    from stillhouse.jobs.reporting.report import report_run
    from stillhouse.registry import default_registry

    print_line(report_run(output, default_registry().hooks(), page, state))
