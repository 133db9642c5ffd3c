"""`stillhouse check`: import and validate plugins."""

from __future__ import annotations

import click

from stillhouse.cli.help import Command
from stillhouse.cli.layout import print_table
from stillhouse.cli.list import plugin_as_json
from stillhouse.cli.output import guarded, print_json, print_reports, print_warning

__all__ = ["check"]


@click.command(
    "check",
    cls=Command,
    short_help="Import and validate plugins",
    examples=[("Validate one backend", "stillhouse check openai")],
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--traceback", is_flag=True, help="Print the whole traceback of a failed import.")
@click.option("--json", is_flag=True, help="Print JSON for machines.")
@guarded
def check(names: tuple[str, ...], traceback: bool, json: bool) -> None:
    """Import and validate the named plugins, or all; exit with status 1 if any is broken."""
    from stillhouse.registry import default_registry
    from stillhouse.registry.info import distinct_problems
    from stillhouse.registry.problems import report

    registry = default_registry()
    infos = registry.check(names)
    broken = [info for info in infos if any(trouble.severity == "error" for trouble in info.troubles)]
    if json:
        print_json([plugin_as_json(info) for info in infos])
    else:
        print_table(
            ("NAME", "STATUS", "PACKAGE"),
            [
                (
                    info.name,
                    " ".join([info.status, *(item.code for item in info.troubles)]),
                    f"{info.package}; {info.settled_by}" if info.settled_by else info.package,
                )
                for info in infos
            ],
        )
        print_reports(report(info.candidate, problem) for info, problem in distinct_problems(infos))
        if traceback:
            print_reports(trouble.traceback for info in infos for trouble in info.troubles)
        for warning in registry.warnings():
            print_warning(warning)
    if broken:
        raise click.exceptions.Exit(1)
