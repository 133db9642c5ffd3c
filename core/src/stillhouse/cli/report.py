"""`stillhouse report`: an HTML report of a run."""

from __future__ import annotations

from pathlib import Path

import click

from stillhouse.cli.output import guarded
from stillhouse.errors import ConfigurationError

__all__ = ["report"]


@click.command("report")
@click.argument("output")
@click.option(
    "-o",
    "--page",
    "page",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.html",
    help="The page to write; OUTPUT.report.html if not said.",
)
@guarded
def report(output: str, page: Path | None) -> None:
    """Write a page about the run of OUTPUT: how fast it went, what it took, and what failed.

    It is one HTML file that needs nothing else. It can be written while the run goes on.
    """
    from stillhouse.jobs.formats.opening import output_path
    from stillhouse.jobs.reporting.report import write_report
    from stillhouse.jobs.store.database import reading, store_path
    from stillhouse.jobs.store.lock import is_worked_on
    from stillhouse.registry import default_registry

    place = output_path(output, default_registry().hooks())
    page = place.with_name(f"{place.name}.report.html") if page is None else page
    if page.suffix.lower() not in (".html", ".htm"):
        raise ConfigurationError(f"{page} is no name of a page", hint="give -o FILE.html")
    path = store_path(place)
    with reading(path) as connection:
        try:
            write_report(connection, output, is_worked_on(path), page)
        except OSError as error:
            raise ConfigurationError(
                f"{page} cannot be written: {error.strerror or error}", hint="give another with -o FILE.html"
            ) from None
    print(page)
