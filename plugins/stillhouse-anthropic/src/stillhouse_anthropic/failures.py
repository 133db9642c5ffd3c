"""Reading a `Failure` from a response: what is specific to this API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from stillhouse.errors import ErrorKind
from stillhouse.http import Failure, QuotaHeaders, failure_of, seconds_until

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
    """The failure that a response is, with what to do about the errors that the API names.

    A quota that is used up asks to wait until `anthropic-ratelimit-…-reset` where no `Retry-After`
    says for how long.
    """
    failure = failure_of(status, headers, body)
    data = _error(body)
    name = data.get("type")
    message = str(data.get("message") or "")
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
    if failure.kind == "rate_limit" and failure.retry_after is None:
        changes["retry_after"] = _until_reset(headers)
    if not failure.request_id and isinstance(data.get("request_id"), str):
        changes["request_id"] = data["request_id"]
    return replace(failure, **changes) if changes else failure


def _error(body: bytes) -> dict[str, Any]:
    """Return the error in a body, with the id of the request; empty if there is none."""
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    inner = data.get("error") if isinstance(data, dict) else None
    return {"request_id": data.get("request_id"), **inner} if isinstance(inner, dict) else {}


def _until_reset(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds until every quota with nothing left is full again, or `None` if none says so."""
    waits = []
    for quota in QUOTAS:
        if headers.get(quota.remaining) == "0":
            seconds = seconds_until(headers.get(quota.reset, ""), now)
            if seconds is not None:
                waits.append(seconds)
    return max(0.0, *waits) if waits else None
