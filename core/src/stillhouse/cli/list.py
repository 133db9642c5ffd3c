"""`stillhouse list`: the installed LLMs and hooks, without importing any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from stillhouse.cli.help import Command
from stillhouse.cli.layout import print_table
from stillhouse.cli.output import guarded, print_json, print_line, print_reports, print_warning

if TYPE_CHECKING:
    from stillhouse.registry import PluginInfo
    from stillhouse.registry.available import Available

__all__ = ["list_plugins", "plugin_as_json"]


@click.command(
    "list",
    cls=Command,
    short_help="List the installed backends and hooks",
    examples=[("Also list backends that can be installed", "stillhouse list --available")],
)
@click.option("--available", is_flag=True, help="Also list what can be installed, with its package.")
@click.option("--json", is_flag=True, help="Print JSON for machines.")
@click.option("--requirements", is_flag=True, help="Print the packages as pins for pip.")
@guarded
def list_plugins(available: bool, json: bool, requirements: bool) -> None:
    """List the installed backends and hooks, without importing them."""
    if available and requirements:
        raise click.UsageError("--requirements pins what is installed: leave out --available")
    from stillhouse.registry import default_registry
    from stillhouse.registry.info import distinct_problems
    from stillhouse.registry.problems import report

    registry = default_registry()
    infos = registry.plugins()
    if requirements:
        print_line("\n".join(_pins(infos, registry.core_version)))
        return
    if json:
        print_json(
            {
                "stillhouse": registry.core_version,
                "llms": [plugin_as_json(info) for info in infos if info.kind == "llm"],
                "hooks": [plugin_as_json(info) for info in infos if info.kind == "hook"],
                "warnings": registry.warnings(),
                **({"available": _available_as_json(infos)} if available else {}),
            }
        )
        return
    print_table(("NAME", "STATUS", "PACKAGE", "SUMMARY"), _rows(infos, "llm", available))
    hooks = _rows(infos, "hook", available)
    if hooks:
        print_line()
        print_table(("HOOK", "STATUS", "PACKAGE", "SUMMARY"), hooks)
    named = ([("(default)", registry.default_llm)] if registry.default_llm else []) + sorted(
        registry.aliases.items()
    )
    if named:
        print_line()
        print_table(("ALIAS", "STANDS FOR"), named)
    print_reports(report(info.candidate, problem) for info, problem in distinct_problems(infos))
    for warning in registry.warnings():
        print_warning(warning)


def _rows(infos: list[PluginInfo], kind: str, available: bool) -> list[tuple[str, str, str, str]]:
    rows = [
        (info.name, _status(info), info.package, info.settled_by or info.summary)
        for info in infos
        if info.kind == kind
    ]
    if available:
        rows += [
            (item.name, "not installed", item.distribution, item.summary)
            for item, installed in _available(infos)
            if item.kind == kind and not installed
        ]
        rows.sort(key=lambda row: row[0])
    return rows


def _available(infos: list[PluginInfo]) -> list[tuple[Available, bool]]:
    """Return what could be installed, and whether it is."""
    from stillhouse.registry.available import available
    from stillhouse.registry.candidates import normalize

    here = {(info.kind, info.name, normalize(info.candidate.distribution)) for info in infos}
    return [(item, (item.kind, item.name, normalize(item.distribution)) in here) for item in available()]


def _available_as_json(infos: list[PluginInfo]) -> list[dict[str, Any]]:
    return [{**item._asdict(), "installed": installed} for item, installed in _available(infos)]


def _status(info: PluginInfo) -> str:
    codes = dict.fromkeys(trouble.code for trouble in info.troubles)
    return " ".join([info.status, *codes])


def _pins(infos: list[PluginInfo], core_version: str) -> list[str]:
    packages = {
        f"{info.candidate.distribution}=={info.candidate.version}" for info in infos if info.candidate.version
    }
    return sorted({f"stillhouse=={core_version}", *packages})


def plugin_as_json(info: PluginInfo) -> dict[str, Any]:
    """Return a plugin as `stillhouse list --json` prints it."""
    settled = {"settled_by": info.settled_by} if info.settled_by else {}
    return {
        "name": info.name,
        "status": info.status,
        "distribution": info.candidate.distribution,
        "version": info.candidate.version,
        "summary": info.summary,
        "entry_point": info.candidate.entry_point,
        "troubles": [
            {
                "code": trouble.code,
                "severity": trouble.severity,
                "message": trouble.message,
                "cause": trouble.cause,
                "hint": trouble.hint,
            }
            for trouble in info.troubles
        ],
        **settled,
    }
