"""Failures that a provider tells in its own words."""

from __future__ import annotations

from dataclasses import replace

from stillhouse.errors import ErrorKind
from stillhouse.http import Failure

__all__ = ["of_kind"]

_HINTS: dict[ErrorKind, str] = {
    "content_filter": "change the prompt",
    "context_length": "shorten the prompt, or ask for fewer new tokens",
    "truncated": "ask for more new tokens",
}


def of_kind(failure: Failure, kind: ErrorKind) -> Failure:
    """Return a failure as the kind that the provider's own word says it is, with what follows from that."""
    if kind == failure.kind:
        return failure
    if kind in ("rate_limit", "server", "timeout"):
        return replace(failure, kind=kind, retried=True, congestion=True, stops_run=False)
    stops_run = kind == "authentication"
    hint = _HINTS.get(kind, failure.hint)
    return replace(failure, kind=kind, retried=False, congestion=False, stops_run=stops_run, hint=hint)
