"""Reading a `Failure` from a response: what is specific to this API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stillhouse.errors import ErrorKind
from stillhouse.http import Failure, QuotaHeaders, message_of

__all__ = ["QUOTAS", "mistral_failure"]

QUOTAS = tuple(
    QuotaHeaders(
        "requests" if name == "req" else "tokens",
        f"x-ratelimit-limit-{name}-minute",
        f"x-ratelimit-remaining-{name}-minute",
        f"x-ratelimit-reset-{name}-minute",  # not sent so far: a minute is taken
    )
    for name in ("req", "tokens")
)
"""Those of a minute; quotas of a month are sent too, and an error says when one is used up."""


def mistral_failure(failure: Failure, status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """Return the failure that a response is, with what to do about the errors that the API names."""
    name, message = message_of(body)
    changes: dict[str, Any] = {}
    if message.startswith("Invalid model"):
        changes = {"hint": "check the model's name", "stops_run": True}
    elif status == 403 and "guardrail" in f"{name} {message}".lower():
        kind: ErrorKind = "content_filter"
        changes = {"kind": kind, "hint": "change the prompt, or the guardrails", "stops_run": False}
    elif status == 429 and headers.get("x-ratelimit-limit-req-minute", "").strip() == "0":
        hint = "the workspace has no quota for this model: see the limits page of Mistral's console"
        changes = {"hint": hint, "retried": False, "congestion": False, "stops_run": True}
    return replace(failure, **changes) if changes else failure
