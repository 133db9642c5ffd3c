"""Columns that nobody uses, in particular those with the name of a parameter."""

from __future__ import annotations

from collections.abc import Iterable

from stillhouse._execution.messages import printable

__all__ = ["listed", "parameter_columns", "shown_name"]

# What requests have beside their messages. An LLM may declare others.
PARAMETERS = frozenset(
    {
        "frequency_penalty", "logprobs", "max_completion_tokens", "max_new_tokens", "max_tokens", "min_p",
        "parallel_tool_calls", "presence_penalty", "reasoning_effort", "repetition_penalty",
        "response_format", "seed", "stop", "structured_output", "temperature", "tool_choice", "tools",
        "top_k", "top_logprobs", "top_p",
    }
)  # fmt: skip

MAX_NAMES = 12
"""How many names a line has."""

MAX_LETTERS = 60
"""How much of a name is shown."""


def parameter_columns(unused: Iterable[str], declared: Iterable[str] = ()) -> list[str]:
    """Return the columns that look like a parameter of the request, for a run that does not use them.

    Args:
        unused: the columns that the run does not use.
        declared: the generation parameters of the LLM.
    """
    known = PARAMETERS.union(declared)
    return [name for name in unused if name in known]


def listed(names: Iterable[str]) -> str:
    """Return names in one line, as many as a person reads."""
    found = [shown_name(name) for name in names]
    more = len(found) - MAX_NAMES
    return ", ".join(found) if more <= 0 else f"{', '.join(found[:MAX_NAMES])} and {more:,} more"


def shown_name(name: str) -> str:
    """Return the name of a column as it stands in a line."""
    text = printable(str(name))
    text = text if len(text) <= MAX_LETTERS else f"{text[:MAX_LETTERS]}…"
    return text if text.strip() == text and text else repr(text)
