"""`stillhouse check`: import and validate plugins."""

from __future__ import annotations

from typing import Annotated

import typer

from stillhouse.cli.list import plugin_as_json
from stillhouse.cli.output import guarded, print_json, print_reports, print_table, print_warning

__all__ = ["check"]


@guarded
def check(
    names: Annotated[list[str] | None, typer.Argument(help="The plugins to check; all, if none.")] = None,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Print the whole traceback of a failed import.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Import and validate plugins; exit with status 1 if any is broken."""
    from stillhouse.registry import default_registry

    registry = default_registry()
    infos = registry.check(names or ())
    broken = [info for info in infos if any(trouble.severity == "error" for trouble in info.troubles)]
    if json:
        print_json([plugin_as_json(info) for info in infos])
    else:
        print_table(
            ("NAME", "STATUS", "PACKAGE"),
            [
                (info.name, " ".join([info.status, *(item.code for item in info.troubles)]), info.package)
                for info in infos
            ],
        )
        print_reports(report for info in infos for report in info.reports)
        if traceback:
            print_reports(trouble.traceback for info in infos for trouble in info.troubles)
        for warning in registry.warnings():
            print_warning(warning)
    if broken:
        raise typer.Exit(1)
