"""`stillhouse new`: start a backend, a hook, a reader or a writer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stillhouse.cli.help import Command
from stillhouse.cli.output import guarded, print_line, print_warning, usage_errors
from stillhouse.errors import ConfigurationError

if TYPE_CHECKING:
    from stillhouse.scaffold import Kind

__all__ = ["new"]


@click.command(
    "new",
    cls=Command,
    short_help="Start a plugin package",
    examples=[("Start a backend for an HTTP API", "stillhouse new acme --http")],
)
@click.argument("name")
@click.option(
    "--http", "kind", flag_value="http", help="It asks a server: connections and retries are there."
)
@click.option("--local", "kind", flag_value="local", help="It drives an engine in this process, with lists.")
@click.option("--hook", "kind", flag_value="hook", help="Not a backend: it takes part in every run.")
@click.option("--reader", "kind", flag_value="reader", help="Not a backend: it opens INPUTs of a new kind.")
@click.option("--writer", "kind", flag_value="writer", help="Not a backend: it opens OUTPUTs of a new kind.")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="FOLDER",
    help="Where to make its folder; here if not given.",
)
@guarded
def new(name: str, kind: Kind | None, into: Path) -> None:
    """Write a new package with the plugin NAME in it, which passes the conformance kit.

    It is a backend that answers each input with a coroutine, unless one of these says otherwise: --http,
    --local, --hook, --reader, --writer.
    """
    from stillhouse.registry import default_registry
    from stillhouse.registry.candidates import normalize
    from stillhouse.registry.known import PACKAGES
    from stillhouse.scaffold import Package, write

    registry = default_registry()
    with usage_errors():
        package = Package(name, kind or "async", registry.core_version)
        if not into.is_dir():
            raise ConfigurationError(f"--into {into} is not a folder", hint="create it, or check the path")
    folder = write(package, into)
    candidates = [info.candidate for info in registry.plugins()]
    packages = {normalize(item.distribution) for item in candidates} | {*PACKAGES.values()}
    own = (package.plugin_kind, package.name)
    claimants = {item.distribution for item in candidates if (item.kind, item.name) == own}
    if package.plugin_kind == "llm" and package.name in PACKAGES:
        claimants.add(PACKAGES[package.name])
    if package.distribution in packages:
        print_warning(f"there is a package {package.distribution} already; only one of them can be installed")
    for claimant in sorted(claimants - {package.distribution}):
        kind_there = "backend" if package.plugin_kind == "llm" else "hook"
        print_warning(
            f"{claimant} has a {kind_there} {package.name} too; who installs both must set STILLHOUSE_PREFER"
        )
    print_line(f"{folder} has the {package.noun} {package.name}, which passes the conformance kit. Next:\n")
    print_line(f"  cd {folder}")
    print_line('  python -m pip install --editable ".[test]"')
    print_line("  python -m pytest")
    print_line(f"  stillhouse show {package.name}\n")
    print_line("README.md says what is left to do.")
