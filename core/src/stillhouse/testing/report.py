"""`Reporter`: the outcome of every rule for every backend, as a table and as JSON."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stillhouse.testing.catalogue import all_rules
from stillhouse.testing.rule import FAMILIES

__all__ = ["Reporter"]

_MAX_DETAIL_LINES = 20
_SKIPPED = ("is not declared", "for an AsyncLLM only")
_SILENT = ("kept", "not declared")
_DEPENDENT = re.compile(rf"^[{''.join(FAMILIES)}]\d\d is broken$")


@dataclass
class _Result:
    outcome: str
    detail: str = ""


class Reporter:
    """Collects the reports of one pytest run, and tells them by the names of the test classes.

    An outcome is `kept`, `broken`, `warned` (kept, with something to look at), `xfail` (broken, and
    the author says so), `xpass` (the author says that it is broken, and it is not), `not declared` (the
    capability is not), or `skipped`.
    """

    def __init__(self) -> None:
        self._results: dict[str, dict[str, _Result]] = {}
        self._backends: dict[str, str] = {}

    def add(self, report: pytest.TestReport, id: str) -> None:
        """Record the report of one phase of a test."""
        result = _result(report)
        name, _, _ = report.nodeid.rpartition("::")
        rules = self._results.setdefault(name, {})
        backend = dict(report.user_properties).get("conformance_backend")
        if backend is not None:
            self._backends[name] = str(backend)
        if result is not None and (id not in rules or result.outcome == "broken"):
            rules[id] = result

    def warned(self, nodeid: str, message: str) -> None:
        """Record a warning of the kit."""
        name, _, test = nodeid.rpartition("::")
        id = test.split("_")[1].upper()
        self._results.setdefault(name, {})[id] = _Result("warned", message)

    def show(self, terminal: Any, *, whole: bool = False) -> None:
        """Print for each backend how many rules it keeps, and those of which there is more to say.

        Args:
            terminal: pytest's.
            whole: print all the others too.
        """
        promises = {rule.id: rule for rule in all_rules()}
        for name, results in sorted(self._results.items()):
            terminal.section(f"conformance of {name}", sep="-")
            for id, result in sorted(results.items()):
                if not whole and (result.outcome in _SILENT or _DEPENDENT.search(result.detail)):
                    continue
                rule = promises[id]
                colour = {"kept": "green", "broken": "red"}.get(result.outcome, "yellow")
                terminal.write(f"{id}  ")
                terminal.write(f"{result.outcome:<12}  ", **{colour: True})
                terminal.write_line(f"{rule.capability or '':<15}  {rule.promise}")
                if result.detail and result.outcome in ("warned", "xfail", "skipped"):
                    terminal.write_line(f"     {result.detail}")
            counts = Counter(_counted(result) for result in results.values())
            terminal.write_line(", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())))

    def write(self, path: str) -> None:
        """Write the outcomes to a file: a list of classes, each with its rules.

        `class` is the test class, `backend` the class that it tests, `None` where it was never made.
        """
        promises = {rule.id: rule for rule in all_rules()}
        classes = [
            {
                "class": name,
                "backend": self._backends.get(name),
                "rules": [
                    {
                        "id": id,
                        "promise": promises[id].promise,
                        "capability": promises[id].capability,
                        "outcome": result.outcome,
                        "detail": result.detail,
                    }
                    for id, result in sorted(results.items())
                ],
            }
            for name, results in sorted(self._results.items())
        ]
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(classes, indent=2) + "\n", encoding="utf-8")


def _result(report: pytest.TestReport) -> _Result | None:
    """Return the outcome that one phase of a test gives; `None` if it gives none."""
    wasxfail = getattr(report, "wasxfail", None)
    if wasxfail is not None:
        return _Result("xfail" if report.skipped else "xpass", wasxfail.removeprefix("reason: "))
    if report.failed:
        return _Result("broken", _first_lines(report.longreprtext))
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        reason = reason.removeprefix("Skipped: ")
        return _Result("not declared" if reason.endswith(_SKIPPED) else "skipped", reason)
    return _Result("kept") if report.when == "call" else None


def _counted(result: _Result) -> str:
    """Return the outcome, with the rule that kept others from being tested."""
    return f"skipped, as {result.detail}" if _DEPENDENT.search(result.detail) else result.outcome


def _first_lines(text: str) -> str:
    return "\n".join(text.splitlines()[:_MAX_DETAIL_LINES])
