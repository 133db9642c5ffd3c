"""Reading a `Failure` from a response: what is specific to this API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stillhouse.errors import ErrorKind
from stillhouse.http import Failure, QuotaHeaders, failure_of, message_of

__all__ = ["QUOTAS", "anthropic_failure"]

QUOTAS = tuple(
    QuotaHeaders(
        "requests" if name == "requests" else "tokens",
        f"anthropic-ratelimit-{name}-limit",
        f"anthropic-ratelimit-{name}-remaining",
        f"anthropic-ratelimit-{name}-reset",
    )
    for name in ("requests", "tokens", "input-tokens", "output-tokens")
)
"""See https://platform.claude.com/docs/en/api/rate-limits#response-headers."""


def anthropic_failure(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """Return the failure that a response is, with what to do about the errors that the API names."""
    failure = failure_of(status, headers, body)
    name, message = message_of(body)
    changes: dict[str, Any] = {}
    if name == "not_found_error" and message.startswith("model"):
        changes = {"hint": "check the model's name", "stops_run": True}
    elif name == "timeout_error":
        kind: ErrorKind = "timeout"
        changes = {"kind": kind, "hint": "ask for fewer new tokens, or use an offline batch"}
    elif name == "overloaded_error":
        changes = {"hint": "the API is overloaded: try later, or raise retry_timeout"}
    elif name == "request_too_large":
        changes = {"hint": "the request has more bytes than the API takes: send fewer or smaller images"}
    elif name == "invalid_request_error" and message.startswith("max_tokens"):
        changes = {"hint": "lower max_new_tokens to what the model can generate"}
    return replace(failure, **changes) if changes else failure
