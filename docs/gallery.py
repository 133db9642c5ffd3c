"""The page of the backends: everything that is installed where the site is built."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tables import code, table

from stillhouse._settings.describe import describe
from stillhouse.async_llm import AsyncLLM
from stillhouse.errors import PluginError
from stillhouse.llm import LLM
from stillhouse.registry import PluginInfo, default_registry

__all__ = ["page"]

CONTRACT = {*LLM.model_fields, *AsyncLLM.model_fields}

WORST_FIRST = ["broken", "xfail", "xpass", "warned", "kept", "skipped", "not declared"]

INTRODUCTION = """\
# The installed backends

Made from what is installed where this site was built: nothing on this page is written by hand.
`stillhouse list` and `stillhouse show NAME` tell the same of your own machine. What each of them can do is
compared in [one table](providers.md).
"""


def page(results: Path, pages: Path) -> str:
    """The Markdown of the page.

    Args:
        results: a folder of files of `pytest --conformance-json`.
        pages: the folder of the other pages; some are about packages.
    """
    outcomes = read_outcomes(results)
    registry = default_registry()
    classes: dict[str, dict[str, Any]] = {}
    plugins = registry.plugins()
    for info in plugins:
        if info.kind == "llm" and info.name not in classes:
            try:
                classes[info.name] = describe(registry.get_llm(info.name))
            except PluginError:
                continue
    plugins = registry.plugins()  # what importing has brought to light is in the reports
    llms = [info for info in plugins if info.kind == "llm"]
    hooks = [info for info in plugins if info.kind == "hook"]
    lines = [INTRODUCTION, *_overview(llms, classes, pages)]
    for info in llms:
        lines += _section(info, classes.get(info.name), outcomes, pages)
    if hooks:
        lines += ["## Hooks", "", "These take part in every run, whatever backend it uses.", ""]
        lines += table(
            ("hook", "package", "what it is"), [(code(i.name), _package(i, pages), i.summary) for i in hooks]
        )
    return "\n".join(lines)


def read_outcomes(folder: Path) -> dict[str, dict[str, str]]:
    """What became of each rule of the conformance kit, for each class of a backend.

    Where a backend has several suites, it is the worst that any of them met.
    """
    outcomes: dict[str, dict[str, str]] = {}
    for file in sorted(folder.glob("*.json")):
        for suite in json.loads(file.read_text(encoding="utf-8")):
            rules = outcomes.setdefault(suite["backend"], {})
            for rule in suite["rules"]:
                met = [rule["outcome"], rules.get(rule["id"], rule["outcome"])]
                rules[rule["id"]] = min(met, key=WORST_FIRST.index)
    return outcomes


def _overview(llms: list[PluginInfo], classes: dict[str, dict[str, Any]], pages: Path) -> list[str]:
    rows = [
        (
            f"[`{info.name}`](#{info.name})",
            _first_sentence(info, classes.get(info.name)),
            _package(info, pages),
        )
        for info in llms
    ]
    return table(("name", "what it is", "package"), rows)


def _first_sentence(info: PluginInfo, described: dict[str, Any] | None) -> str:
    """What the class says of itself; a package may have several, and one summary for all."""
    return described["description"].split("\n\n")[0] if described else info.summary


def _section(
    info: PluginInfo, described: dict[str, Any] | None, outcomes: dict[str, dict[str, str]], pages: Path
) -> list[str]:
    lines = [f"## {info.name}", ""]
    if described is None:
        return [*lines, "It is installed and cannot be used:", "", "```text", *info.reports, "```", ""]
    own = [field for field in described["fields"] if field["name"] not in CONTRACT]
    common = [field for field in described["fields"] if field["name"] in CONTRACT]
    capabilities = described["capabilities"]
    listed = (
        "depend on its settings" if capabilities is None else ", ".join(map(code, capabilities)) or "none"
    )
    lines += [_first_sentence(info, described), ""]
    lines += [f"- package: {_package(info, pages)}", f"- class: {code(described['class'])}"]
    lines += [f"- capabilities: {listed}"]
    if described["class"] in outcomes:
        lines += [f"- [rules of the contract](conformance.md): {_told(outcomes[described['class']])}"]
    lines += [""]
    if own:
        lines += ["**Fields**, given to `stillhouse.create` or with `--set`:", "", *_entries(own)]
    if described["parameters"]:
        lines += ["**Generation parameters**, given to a call or with `--param`:", ""]
        lines += _entries(described["parameters"])
    folded = "\n".join(_entries(common)).rstrip().replace("\n", "\n    ")
    return [*lines, '??? note "Fields that every backend has"', "", f"    {folded}", ""]


def _told(rules: dict[str, str]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in Counter(rules.values()).most_common())


def _package(info: PluginInfo, pages: Path) -> str:
    page = f"plugins/{info.candidate.distribution}.md"
    return f"[{info.package}]({page})" if (pages / page).is_file() else info.package


def _entries(entries: Iterable[dict[str, Any]]) -> list[str]:
    rows = []
    for entry in entries:
        if entry["required"]:
            default = "required"
        elif entry["default"] is None:
            default = ""
        else:
            default = code(json.dumps(entry["default"], ensure_ascii=False))
        rows.append((code(entry["name"]), entry["description"], default, code(entry["type"])))
    return table(("name", "meaning", "default", "type"), rows)
