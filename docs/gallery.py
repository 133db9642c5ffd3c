"""The pages of the backends: everything that is installed where the site is built."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import providers
from tables import code, table

from stillhouse._settings.describe import describe
from stillhouse.async_llm import AsyncLLM
from stillhouse.errors import PluginError
from stillhouse.http import HTTPLLM
from stillhouse.llm import LLM
from stillhouse.registry import PluginInfo, default_registry

__all__ = ["INDEX", "SHARED", "page_of", "read_outcomes", "written"]

WORST_FIRST = ["broken", "xfail", "xpass", "warned", "kept", "skipped", "not declared"]

INDEX = "backends.md"
SHARED = "backend-fields.md"

BASES: tuple[tuple[str, type[LLM]], ...] = (
    ("Every backend", LLM),
    ("Asynchronous backends", AsyncLLM),
    ("Backends that ask a server", HTTPLLM),
)
"""The classes whose fields are listed once, and what their subclasses are."""

INTRODUCTION = """\
---
hide:
  - toc
---

# Backends

What each backend can do, as its class declares it; the [conformance kit](conformance.md) tests each
declaration. A name links to the fields and the generation parameters of that backend. The table is built from
the installed packages; `stillhouse list --available` lists everything that can be installed, and
`stillhouse show NAME` prints one backend.
"""

SHARED_INTRODUCTION = """\
# Fields that backends share

Set a field with `stillhouse.create(NAME, field=…)` or with `--set field=value`. The page of
[a backend](backends.md) lists its own fields, and those of the following that differ for it in default, type
or meaning.
"""


def written(results: Path, pages: Path) -> dict[str, str]:
    """The Markdown of each page about backends, by its path: the comparison, the shared fields, one for each.

    Args:
        results: a folder of files of `pytest --conformance-json`.
        pages: the folder of the other pages; some are about packages.
    """
    outcomes = read_outcomes(results)
    registry = default_registry()
    classes: dict[str, dict[str, Any]] = {}
    for info in registry.plugins():
        if info.kind == "llm" and info.name not in classes:
            try:
                classes[info.name] = describe(registry.get_llm(info.name))
            except PluginError:
                continue
    plugins = registry.plugins()  # the reports have what the imports brought to light
    llms = [info for info in plugins if info.kind == "llm"]
    hooks = [info for info in plugins if info.kind == "hook"]
    keys = {name: providers.key_of(registry.get_llm(name)) for name in classes}
    lines = [INTRODUCTION, *providers.compared(registry), *_overview(llms, classes, keys, pages)]
    if hooks:
        lines += ["## Hooks", "", "Hooks take part in every run, with any backend.", ""]
        lines += table(
            ("hook", "package", "what it is"), [(code(i.name), _package(i, pages), i.summary) for i in hooks]
        )
    shared = _shared_fields()
    found = {INDEX: "\n".join(lines), SHARED: _shared_page(shared)}
    for info in llms:
        text = "\n".join(_own_page(info, classes.get(info.name), outcomes, pages, shared))
        # Several packages may claim one name.
        found[page_of(info.name)] = "\n".join(filter(None, (found.get(page_of(info.name)), text)))
    return found


def page_of(name: str) -> str:
    """The path of the page of a backend, also of one whose name the registry refuses."""
    return f"backends/{re.sub('[^a-zA-Z0-9_-]', '-', name)}.md"


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


def _shared_fields() -> dict[str, list[dict[str, Any]]]:
    """The fields of each of `BASES` that those before it lack."""
    shared: dict[str, list[dict[str, Any]]] = {}
    seen: set[str] = set()
    for title, base in BASES:
        shared[title] = [field for field in describe(base)["fields"] if field["name"] not in seen]
        seen |= set(base.model_fields)
    return shared


def _shared_page(shared: dict[str, list[dict[str, Any]]]) -> str:
    lines = [SHARED_INTRODUCTION]
    for title, fields in shared.items():
        if fields:
            lines += [f"## {title}", "", *_entries(fields)]
    return "\n".join(lines)


def _overview(
    llms: list[PluginInfo], classes: dict[str, dict[str, Any]], keys: dict[str, str], pages: Path
) -> list[str]:
    rows = [
        (
            f"[{code(info.name)}]({page_of(info.name)})",
            _first_sentence(info, classes.get(info.name)),
            keys.get(info.name, ""),
            _package(info, pages),
        )
        for info in llms
    ]
    return ["## Packages and keys", "", *table(("name", "what it is", "API key", "package"), rows)]


def _first_sentence(info: PluginInfo, described: dict[str, Any] | None) -> str:
    """What the class says of itself; a package may have several, and one summary for all."""
    return described["description"].split("\n\n")[0] if described else info.summary


def _own_page(
    info: PluginInfo,
    described: dict[str, Any] | None,
    outcomes: dict[str, dict[str, str]],
    pages: Path,
    shared: dict[str, list[dict[str, Any]]],
) -> list[str]:
    lines = [f"# {info.name}", ""]
    if described is None:
        return [*lines, "It is installed and cannot be used:", "", "```text", *info.reports, "```", ""]
    common = [field for fields in shared.values() for field in fields]
    own = [field for field in described["fields"] if field not in common]
    rest = [field["name"] for field in described["fields"] if field in common]
    capabilities = described["capabilities"]
    listed = (
        "depend on its settings" if capabilities is None else ", ".join(map(code, capabilities)) or "none"
    )
    lines += [_first_sentence(info, described), ""]
    lines += [f"- package: {_package(info, pages, up='../')}", f"- class: {code(described['class'])}"]
    lines += [f"- [capabilities](../{INDEX}): {listed}"]
    if described["class"] in outcomes:
        lines += [f"- [rules of the contract](../conformance.md): {_counted(outcomes[described['class']])}"]
    lines += [""]
    if described["parameters"]:
        lines += ["## Generation parameters", "", "Given to a call, or with `--param name=value`.", ""]
        lines += _entries(described["parameters"])
    lines += ["## Fields", "", "Given to `stillhouse.create`, or with `--set name=value`.", ""]
    if own:
        lines += _entries(own)
    if rest:
        lines += [f"[Shared with other backends](../{SHARED}): {', '.join(map(code, rest))}.", ""]
    return lines


def _counted(rules: dict[str, str]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in Counter(rules.values()).most_common())


def _package(info: PluginInfo, pages: Path, up: str = "") -> str:
    page = f"plugins/{info.candidate.distribution}.md"
    return f"[{info.package}]({up}{page})" if (pages / page).is_file() else info.package


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
