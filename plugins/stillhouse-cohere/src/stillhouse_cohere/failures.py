"""Reading a `Failure` from a response: what is specific to this API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from stillhouse.http import Failure, QuotaHeaders, failure_of

__all__ = ["FAILED", "QUOTAS", "cohere_failure"]

FAILED = {"ERROR": "the model failed", "TIMEOUT": "the model took too long"}
"""The finish reasons of an answer that is none."""

QUOTAS = (
    QuotaHeaders(
        "requests", "x-trial-endpoint-call-limit", "x-trial-endpoint-call-remaining", "x-ratelimit-reset"
    ),
)
"""Those of a trial key's minute; a production key has none."""


def cohere_failure(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """Return the failure that a response is, with the API's id of the request."""
    failure = failure_of(status, headers, body)
    trace = headers.get("x-debug-trace-id", "")
    if not failure.request_id and trace.isprintable():
        failure = replace(failure, request_id=trace[:128])
    return failure
