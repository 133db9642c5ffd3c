"""`stillhouse install`: install a backend, or another package, beside the command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from stillhouse.cli.completing import complete_installable
from stillhouse.cli.help import Command
from stillhouse.cli.layout import print_table
from stillhouse.cli.output import (
    guarded,
    print_line,
    print_note,
    print_warning,
    usage_errors,
)

if TYPE_CHECKING:
    from stillhouse.cli.install.names import Package

__all__ = ["install"]

_MAX_ROWS = 8

Plugins = Mapping[tuple[str, str, str], dict[str, Any]]


@click.command(
    "install",
    cls=Command,
    short_help="Install a backend where the command finds it",
    examples=[
        ("Install the package that has the backend openai", "stillhouse install openai"),
        ("Install an extra of the core", 'stillhouse install "stillhouse[cost]"'),
        ("Install a backend from a checkout", "stillhouse install ./plugins/stillhouse-openai"),
        ("Show what would be run", "stillhouse install --dry-run anthropic"),
    ],
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete_installable)
@click.option("-U", "--upgrade", is_flag=True, help="Install the newest versions of these packages.")
@click.option("--no-deps", is_flag=True, help="Leave out what the packages require.")
@click.option("--dry-run", is_flag=True, help="Print the commands that would be run, and run none.")
@guarded
def install(names: tuple[str, ...], upgrade: bool, no_deps: bool, dry_run: bool) -> None:
    """Install packages into the environment that this command runs in, with pip, uv or pipx.

    NAME is a backend such as openai, a package such as stillhouse-openai, an extra such as
    "stillhouse[cost]", a folder, a wheel, or a requirement as pip takes it. `stillhouse list --available`
    lists the backends.
    """
    from stillhouse.cli.install.installers import Wishes, plan
    from stillhouse.cli.install.names import Plugin, packages_named
    from stillhouse.cli.install.running import installed_plugins, run_installer, written

    before = installed_plugins()
    with usage_errors():
        own = [Plugin(name, distribution) for _, name, distribution in before]
        packages = packages_named(names, own)
    planned = plan(Wishes(packages, upgrade, no_deps))
    if planned.warning:
        print_warning(planned.warning)
    if dry_run:
        for command in planned.commands:
            print_line(written(command))
        return
    for command in planned.commands:
        run_installer(command)
    _print_plugins(before, installed_plugins(), packages, names)


def _print_plugins(
    before: Plugins, after: Plugins, packages: Sequence[Package], names: Sequence[str]
) -> None:
    """Print the plugins that are new or changed, else those of the packages that were asked for."""
    from stillhouse.cli.install.names import CORE, PREFIX
    from stillhouse.registry.candidates import normalize

    changed = [key for key, entry in after.items() if before.get(key) != entry]
    wanted = {package.name for package in packages}
    shown = changed or [key for key in after if normalize(key[2]) in wanted - {"", CORE}]
    if changed:
        print_note(f"installed  {', '.join(sorted({_package(after[key]) for key in changed}))}")
    else:
        print_note("done; no plugin was added or changed" + (". Installed are:" if shown else ""))
    # What was asked for comes first, and what its package is named after: a package may have forty.
    shown.sort(key=lambda key: (key[0] != "llm", not ({key[1], PREFIX + key[1]} & {*names, key[2]}), key))
    entries = [after[key] for key in shown]
    if entries:
        rows = [(item["name"], _status(item), _package(item), item["summary"]) for item in entries]
        print_table(("NAME", "STATUS", "PACKAGE", "SUMMARY"), rows[:_MAX_ROWS])
    if len(entries) > _MAX_ROWS:
        print_line(f"and {len(entries) - _MAX_ROWS} more, which `stillhouse list` shows")
    for item in entries:
        for trouble in item["troubles"]:
            print_warning(f"{item['name']} {trouble['message']}: {trouble['cause']}; {trouble['hint']}")


def _package(entry: Mapping[str, Any]) -> str:
    return f"{entry['distribution']} {entry['version']}".strip()


def _status(entry: Mapping[str, Any]) -> str:
    return " ".join(dict.fromkeys([entry["status"], *(trouble["code"] for trouble in entry["troubles"])]))
