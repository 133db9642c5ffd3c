"""`stillhouse report`: an HTML report of a run, or of two runs side by side; or the same as JSON."""

from __future__ import annotations

from pathlib import Path

import click

from stillhouse.cli.help import Command
from stillhouse.cli.output import guarded, print_json, print_line

__all__ = ["report"]


def _page(context: click.Context, parameter: click.Parameter, page: str | None) -> str | None:
    if page is not None and not page.lower().endswith((".html", ".htm")):
        raise click.BadParameter(f"{page} is no name of a page; give FILE.html", context, parameter)
    return page


@click.command(
    "report",
    cls=Command,
    short_help="Write an HTML report of a run",
    examples=[
        ("Write answers.jsonl.report.html", "stillhouse report answers.jsonl"),
        ("Group the rows by a column", "stillhouse report answers.jsonl --by topic"),
        ("Compare two runs", "stillhouse report answers.jsonl other-model.jsonl -o compared.html"),
    ],
)
@click.argument("output")
@click.argument("other", required=False)
@click.option(
    "-o",
    "--page",
    "page",
    type=click.Path(dir_okay=False),
    metavar="FILE.html",
    callback=_page,
    help="The page to write; default: OUTPUT.report.html.",
)
@click.option("--by", metavar="COLUMN", help="Group the rows by a column of the input.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, and write no page.")
@click.option(
    "--state", type=click.Path(path_type=Path), metavar="PATH", help="The run's state, if not OUTPUT.run.db."
)
@guarded
def report(
    output: str, other: str | None, page: str | None, by: str | None, as_json: bool, state: Path | None
) -> None:
    """Write an HTML report of a run: rows with prompts and answers, failures, speed, tokens and cost.

    With OTHER, the report compares two runs: their figures, the settings that differ, and the rows whose
    answers differ.

    The page is one file that needs nothing else. You can write it while the run is in progress. OUTPUT can
    also be the state of a run.
    """
    _check(other, page, by, as_json, state)
    from stillhouse.jobs.reporting.comparison import comparison_as_json
    from stillhouse.jobs.reporting.comparison_page import compare_runs
    from stillhouse.jobs.reporting.report import report_as_json, report_run
    from stillhouse.registry import default_registry

    hooks = default_registry().hooks()
    if other is None and as_json:
        print_json(report_as_json(output, hooks, state, by=by))
    elif other is None:
        print_line(report_run(output, hooks, page, state, by=by))
    elif as_json:
        print_json(comparison_as_json(output, other, hooks))
    else:
        print_line(compare_runs(output, other, hooks, page))


def _check(other: str | None, page: str | None, by: str | None, as_json: bool, state: Path | None) -> None:
    """Refuse options that exclude each other."""
    if as_json and page is not None:
        raise click.UsageError("--json prints the report, and -o names a page: give one of them")
    if other is not None and by is not None:
        raise click.UsageError("--by groups the rows of one run: leave out OTHER or --by")
    if other is not None and state is not None:
        raise click.UsageError("--state is that of one run: give the state itself as OUTPUT or OTHER")
