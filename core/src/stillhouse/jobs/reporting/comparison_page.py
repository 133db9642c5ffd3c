"""`compare_runs`: the page that shows two runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stillhouse.errors import ConfigurationError
from stillhouse.jobs.formats.opening import output_path
from stillhouse.jobs.reporting.comparison import Comparison, compared
from stillhouse.jobs.reporting.facts import RunFacts
from stillhouse.jobs.reporting.page import check_page_name, write_page
from stillhouse.jobs.reporting.report import state_text
from stillhouse.jobs.reporting.units import count, duration, moment, seconds_text
from stillhouse.jobs.spending.prices import cost_text
from stillhouse.protocols import HookCalls

__all__ = ["compare_runs"]


def compare_runs(target: str, other: str, hooks: HookCalls, page: str | Path | None = None) -> Path:
    """Write a page that compares two runs, and return its path.

    Args:
        target: the output of the one run.
        other: the output of the other run.
        hooks: the installed plugins.
        page: the page to write; `OUTPUT.against.OTHER.report.html` if not said.

    Raises:
        ConfigurationError: the page cannot be written, is no report, or has no name of a page.
        StoreError: one of them is no run, or its state cannot be read.
    """
    place, beside_it = output_path(target, hooks), output_path(other, hooks)
    if page is None:
        page = place.with_name(f"{place.name}.against.{beside_it.name}.report.html")
    else:
        page = output_path(str(page))
    check_page_name(page)
    with compared(target, other, hooks) as found:
        try:
            write_page(page, "comparison.html.jinja", _shown(found))
        except OSError as error:
            raise ConfigurationError(
                f"{page} cannot be written: {error.strerror or error}", hint="give another with -o FILE.html"
            ) from None
    return page


def _shown(found: Comparison) -> dict[str, Any]:
    """Return what the template shows."""
    matched = found.matched or 1
    rows = [
        ("the same answers", found.same),
        *found.counts.items(),
        ("failed in both runs", found.both_failed),
    ]
    return {
        "names": found.names,
        "states": [state_text(found.first), state_text(found.second)],
        "figures": _figures(found.first, found.second),
        "settings": found.settings,
        "matched": found.matched,
        "rows": [(name, f"{number:,}", f"{number / matched:.1%}", number) for name, number in rows],
        "only": found.only,
        "pairs": found.pairs,
        "kinds": [name for name, number in found.counts.items() if number],
        "note": found.note,
        "made": moment(found.first.made),
        "seconds_text": seconds_text,
    }


def _figures(first: RunFacts, second: RunFacts) -> list[tuple[str, str, str]]:
    """Return the figures of two runs: a label, and both values."""
    values = [_of_run(facts) for facts in (first, second)]
    labels = dict.fromkeys([*values[0], *values[1]])
    return [(label, values[0].get(label, ""), values[1].get(label, "")) for label in labels]


def _of_run(facts: RunFacts) -> dict[str, str]:
    summary, answers = facts.summary, facts.endings.as_json()
    working = max(facts.seconds - facts.loading, 1e-3)
    total = answers["total"] or 1
    found = {
        "model": str((summary.command or {}).get("model_name") or ""),
        "started": moment(summary.sessions[0].started) if summary.sessions else "",
        "rows": f"{summary.rows:,}",
        "failed": f"{summary.failures:,}",
    }
    found |= {f"failed: {kind}": f"{number:,}" for kind, number in summary.failed.items()}
    for name in ("cut", "empty", "refused", "filtered"):
        number = answers[name]
        found[f"answers {name}"] = count(number) if not number else f"{number:,} ({number / total:.1%})"
    for label, values, text in (
        ("seconds per row", facts.latency, seconds_text),
        ("output tokens per row", facts.outputs, lambda value: f"{value:,.0f}"),
    ):
        if values.count:
            found[f"{label}, p50"] = text(values.percentile(0.5))
            found[f"{label}, p95"] = text(values.percentile(0.95))
    found["input tokens"], found["output tokens"] = count(summary.input_tokens), count(summary.output_tokens)
    found["cost"] = "unknown" if summary.cost is None else cost_text(summary.cost)
    found["time at work"] = duration(facts.seconds)
    found["rows per second"] = f"{summary.rows / working:,.1f}" if summary.rows else ""
    return found
