"""`stillhouse list`: the installed LLMs and hooks, without importing any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from stillhouse.cli.output import guarded, print_json, print_reports, print_table, print_warning

if TYPE_CHECKING:
    from stillhouse.registry import PluginInfo

__all__ = ["list_plugins", "plugin_as_json"]


@click.command("list")
@click.option("--json", is_flag=True, help="Print JSON for machines.")
@click.option("--requirements", is_flag=True, help="Print the packages as pins for pip.")
@guarded
def list_plugins(json: bool, requirements: bool) -> None:
    """List the LLMs that are installed, without importing them."""
    from stillhouse.registry import default_registry
    from stillhouse.registry.info import distinct_problems
    from stillhouse.registry.problems import report

    registry = default_registry()
    infos = registry.plugins()
    if requirements:
        print("\n".join(_pins(infos, registry.core_version)))
        return
    if json:
        print_json(
            {
                "stillhouse": registry.core_version,
                "llms": [plugin_as_json(info) for info in infos if info.kind == "llm"],
                "hooks": [plugin_as_json(info) for info in infos if info.kind == "hook"],
                "warnings": registry.warnings(),
            }
        )
        return
    print_table(("NAME", "STATUS", "PACKAGE", "SUMMARY"), _rows(infos, "llm"))
    hooks = _rows(infos, "hook")
    if hooks:
        print()
        print_table(("HOOK", "STATUS", "PACKAGE", "SUMMARY"), hooks)
    print_reports(report(info.candidate, problem) for info, problem in distinct_problems(infos))
    for warning in registry.warnings():
        print_warning(warning)


def _rows(infos: list[PluginInfo], kind: str) -> list[tuple[str, str, str, str]]:
    return [
        (info.name, _status(info), info.package, info.settled_by or info.summary)
        for info in infos
        if info.kind == kind
    ]


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
