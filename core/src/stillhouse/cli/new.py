"""`stillhouse new`: start a backend."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from stillhouse.cli.output import guarded, print_line, print_warning

if TYPE_CHECKING:
    from stillhouse.scaffold import Kind

__all__ = ["new"]


@click.command("new")
@click.argument("name")
@click.option(
    "--http", "kind", flag_value="http", help="It asks a server: connections and retries are there."
)
@click.option("--local", "kind", flag_value="local", help="It drives an engine in this process, with lists.")
@click.option(
    "--into",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    metavar="FOLDER",
    help="Where to make its folder; here if not given.",
)
@guarded
def new(name: str, kind: Kind | None, into: Path) -> None:
    """Write a new package with the backend NAME in it, which passes the conformance kit.

    Without --http or --local, it answers each input with a coroutine.
    """
    from stillhouse.registry import default_registry
    from stillhouse.registry.candidates import normalize
    from stillhouse.registry.known import PACKAGES
    from stillhouse.scaffold import Backend, write

    registry = default_registry()
    backend = Backend(name, kind or "async", registry.core_version)
    folder = write(backend, into)
    candidates = [info.candidate for info in registry.plugins()]
    packages = {normalize(item.distribution) for item in candidates} | {*PACKAGES.values()}
    claimants = {item.distribution for item in candidates if (item.kind, item.name) == ("llm", backend.name)}
    claimants |= {PACKAGES[backend.name]} if backend.name in PACKAGES else set()
    if backend.distribution in packages:
        print_warning(f"there is a package {backend.distribution} already; only one of them can be installed")
    for claimant in sorted(claimants - {backend.distribution}):
        print_warning(
            f"{claimant} has a backend {backend.name} too; who installs both must set STILLHOUSE_PREFER"
        )
    print_line(f"{folder} has the backend {backend.name}, which passes the conformance kit. Next:\n")
    print_line(f"  cd {folder}")
    print_line('  python -m pip install --editable ".[test]"')
    print_line("  python -m pytest")
    print_line(f"  stillhouse show {backend.name}\n")
    print_line("README.md says what is left to do.")
