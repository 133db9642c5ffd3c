"""`stillhouse show`: what a backend has and can do, or what a plugin of hooks implements and its settings."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from stillhouse.cli.completing import complete_llms
from stillhouse.cli.help import Command
from stillhouse.cli.layout import print_entries, print_text
from stillhouse.cli.output import guarded, print_json, print_line

if TYPE_CHECKING:
    from stillhouse.registry import Registry

__all__ = ["show"]


@click.command(
    "show",
    cls=Command,
    short_help="Show a backend's fields and parameters",
    examples=[("Show the fields and parameters of a backend", "stillhouse show llamacpp")],
)
@click.argument("name", shell_complete=complete_llms)
@click.option("--json", is_flag=True, help="Print JSON for machines.")
@guarded
def show(name: str, json: bool) -> None:
    """Show a backend's fields, parameters and capabilities, or a hook's settings.

    Only this plugin is imported.
    """
    from stillhouse.registry import default_registry

    registry = default_registry()
    name = registry.resolve(name).partition(":")[0]
    kinds = {info.kind for info in registry.plugins() if info.name == name}
    if kinds == {"hook"}:
        _show_hook(registry, name, json)
    else:
        _show_llm(registry, name, json)


def _show_llm(registry: Registry, name: str, json: bool) -> None:
    cls = registry.get_llm(name)
    from stillhouse._settings.describe import describe, field_groups

    described = describe(cls)
    info = next(
        info
        for info in registry.available_llms()
        if info.name == name and info.status in ("loaded", "built-in")
    )
    if json:
        print_json({"name": name, "package": info.package, **described})
        return
    print_line(f"{name} ({described['class']}), {info.package or 'registered in this process'}")
    if described["description"]:
        print_text(f"\n{described['description']}")
    capabilities = described["capabilities"]
    listed = "depend on the settings" if capabilities is None else ", ".join(capabilities) or "none"
    print_text(f"\ncapabilities: {listed}")
    for title, names in field_groups(cls):
        fields = [field for field in described["fields"] if field["name"] in names]
        if fields:
            print_line(f"\nfields {title} (--set field=value)" if title else "\nfields (--set field=value)")
            _print_entries(fields)
    print_line("\ngeneration parameters (--param name=value)")
    _print_entries(described["parameters"])


def _print_entries(entries: Sequence[dict[str, Any]]) -> None:
    print_entries(("NAME", "TYPE", "DEFAULT", "DESCRIPTION"), map(_row, entries))


def _show_hook(registry: Registry, name: str, json: bool) -> None:
    from stillhouse.registry.policy import config_file

    described = registry.describe_hook(name)
    package = next(
        info.package
        for info in registry.plugins()
        if (info.kind, info.name, info.status) == ("hook", name, "loaded")
    )
    if json:
        print_json({"name": name, "package": package, **described})
        return
    print_line(f"{name} (hook), {package}")
    if described["description"]:
        print_text(f"\n{described['description']}")
    print_line(f"\nhooks: {', '.join(described['hooks'])}")
    if not described["settings"]:
        print_line("\nno settings")
        return
    print_line(f"\nsettings ([hooks.{name}] in {config_file()})")
    _print_entries(described["settings"])


def _row(entry: dict[str, Any]) -> tuple[str, str, str, str]:
    if entry["required"]:
        default = "required"
    elif entry["default"] is None:
        default = "-"
    else:
        default = json_module.dumps(entry["default"], ensure_ascii=False)
    return entry["name"], entry["type"], default, " ".join(entry["description"].split())
