"""Names and attributes of spans, by OpenTelemetry's conventions for generative AI."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stillhouse.outputs import count_of

if TYPE_CHECKING:
    from stillhouse import GenerateOutput, GenerationError, RunInfo, RunSummary
    from stillhouse_otel.origins import Origin

__all__ = [
    "RUN_NAME", "error_type", "finish_reasons", "request_attributes", "run_attributes", "summary_attributes",
    "tokens",
]  # fmt: skip

RUN_NAME = "invoke_workflow stillhouse"

_PARAMETERS = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "max_new_tokens": "gen_ai.request.max_tokens",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
}
"""Parameters that are numbers. A text, such as a stop sequence, may be part of a prompt."""

_REASON = re.compile(r"[a-z][a-z_]{0,39}")


def request_attributes(
    origin: Origin, operation: str, num_generations: int, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a request for generations asked for."""
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": origin.provider,
        "gen_ai.request.model": origin.model,
    }
    if num_generations != 1:
        attributes["gen_ai.request.choice.count"] = num_generations
    for name, attribute in _PARAMETERS.items():
        value = arguments.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**63:
            attributes[attribute] = value
    return attributes


def tokens(outputs: list[GenerateOutput | None], name: str) -> int | None:
    """Return how many tokens outputs report, or `None` if they report none."""
    counts = [
        count
        for output in outputs
        if output is not None
        for given in (output["statistics"].get(name) or ())
        if (count := count_of(given)) is not None
    ]
    return sum(counts) if counts else None


def finish_reasons(output: GenerateOutput) -> list[str] | None:
    """Return why the generations ended. A provider's own word that could be a text is `other`."""
    reasons = output.get("finish_reasons")
    if not reasons:
        return None
    return [
        reason if isinstance(reason, str) and _REASON.fullmatch(reason) else "other" for reason in reasons
    ]


def error_type(error: GenerationError) -> str:
    """Return the kind of an error."""
    return str(error.kind)


def run_attributes(run: RunInfo, provider: str, model: str) -> dict[str, Any]:
    """Return what a run is, without the names of its files."""
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": "stillhouse",
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        "stillhouse.run.resumed": run.resumed,
    }
    if run.rows is not None:
        attributes["stillhouse.run.rows"] = run.rows
    return attributes


def summary_attributes(summary: RunSummary) -> dict[str, Any]:
    """Return how the work on a run ended."""
    attributes: dict[str, Any] = {
        "stillhouse.run.outcome": summary.outcome,
        "stillhouse.run.done": summary.done,
        "stillhouse.run.failed": summary.failures,
        "stillhouse.run.skipped": summary.skipped,
    }
    for kind, count in summary.failed.items():
        attributes[f"stillhouse.run.failed.{kind}"] = count
    for name, value in (
        ("gen_ai.usage.input_tokens", summary.input_tokens),
        ("gen_ai.usage.output_tokens", summary.output_tokens),
        ("stillhouse.run.cost", summary.cost),
    ):
        if value is not None:
            attributes[name] = value
    return attributes
