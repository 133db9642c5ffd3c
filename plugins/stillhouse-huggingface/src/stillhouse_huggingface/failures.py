"""Reading a `Failure` from a response, and quotas from headers: what is specific to Hugging Face."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from stillhouse.http import Failure, QuotaLeft, failure_of, message_of, quota_left

__all__ = ["endpoint_failure", "quotas_of"]

# https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/: what is left, and for how long.
_LEFT = re.compile(r'"([^"]{1,64})"\s*;\s*r\s*=\s*(\d{1,15})\s*;\s*t\s*=\s*(\d{1,15})')
_POLICY = re.compile(r'"([^"]{1,64})"\s*;\s*q\s*=\s*(\d{1,15})')
_MAX_CHARS = 1000

_NOT_SERVED = re.compile(r"\bmodel\b.{0,200}\bnot supported (by|for) .{0,60}\bprovider", re.IGNORECASE)


def endpoint_failure(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """Return the failure that a response is, with what TGI and Hugging Face's gateways say in their way."""
    failure = failure_of(status, headers, body)
    name, message = message_of(body)
    if status == 429 and name == "overloaded":  # too many at once, and not too many in a minute
        return replace(failure, kind="server", hint="lower max_concurrency, or add replicas to the endpoint")
    if status == 429 and failure.retry_after is None:
        waits = [float(seconds) for _, left, seconds in _left(headers) if left == "0"]
        if waits:
            return replace(failure, retry_after=max(waits))
    if status in (400, 404, 422) and _NOT_SERVED.search(message):
        hint = "choose another provider or model: `stillhouse models inference-endpoints` lists them"
        return replace(failure, hint=hint, stops_run=True, unknown_model=True)
    if status in (502, 503) and failure.retried:
        return replace(failure, hint="the endpoint may be starting: try later, or raise retry_timeout")
    return failure


def quotas_of(headers: Mapping[str, str]) -> dict[str, QuotaLeft | None]:
    """Return what is left of the quotas that a response tells of, by their names."""
    found = _left(headers)
    if not found:
        return {}
    sizes = dict(_POLICY.findall(headers.get("ratelimit-policy", "")[:_MAX_CHARS]))
    return {name: quota_left(left, sizes.get(name), seconds) for name, left, seconds in found}


def _left(headers: Mapping[str, str]) -> list[tuple[str, str, str]]:
    said = headers.get("ratelimit")
    return _LEFT.findall(said[:_MAX_CHARS]) if said else []
