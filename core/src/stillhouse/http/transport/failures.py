"""Reading a `Failure` from a response: its kind, the provider's message, and whether to retry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import orjson

from stillhouse.errors import ErrorKind
from stillhouse.http.transport.retry import RETRIED_STATUSES, retry_after_seconds
from stillhouse.offline.failures import Failure

__all__ = ["answered", "failure_of", "message_of", "request_id_of"]

MAX_MESSAGE_CHARS = 500

_KINDS: dict[int, ErrorKind] = {
    401: "authentication",
    403: "authentication",
    407: "authentication",
    408: "timeout",
    413: "context_length",
    429: "rate_limit",
}

# How providers describe a prompt that is too long, in the code or the message of an error.
_TOO_LONG = re.compile(
    r"context[_ ]length|context window|maximum context|max(imum)? (input|prompt)? ?(length|tokens)"
    r"|prompt is too long|too many (input )?tokens|exceed(s|ed)? .{0,40}(context|token)|input is too long",
    re.IGNORECASE,
)
_FILTERED = re.compile(
    r"content[_ -]?(filter|policy|management)|(block|flag|reject|violat).{0,60}(safety|moderation)"
    r"|(safety|moderation).{0,60}(block|flag|reject|violat)",
    re.IGNORECASE,
)
# One request with more tokens than the quota of a minute; see
# https://platform.openai.com/docs/guides/rate-limits.
_OVER_QUOTA = re.compile(r"request too large", re.IGNORECASE)
_NO_CREDIT = re.compile(r"insufficient_quota|credit balance|billing|payment required", re.IGNORECASE)
_NO_MODEL = re.compile(
    r"model_not_found|model .{0,80}(not (exist|found)|does not exist)|no such model", re.IGNORECASE
)


def failure_of(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """Return the failure that a response with an error status is."""
    code, text = message_of(body)
    both = f"{code} {text}"
    kind: ErrorKind = _KINDS.get(status, "server" if status >= 500 else "invalid_request")
    retried, hint, stops_run = status in RETRIED_STATUSES, "", False
    should_retry = headers.get("x-should-retry", "").lower()
    if 300 <= status < 400:
        retried = False
        hint = "set base_url to the address that the server redirects to"
        text = f"it redirects to {headers.get('location', 'nowhere')}, and is not followed with the key"
    elif status < 500 and _NO_CREDIT.search(both):
        kind, retried, stops_run = "rate_limit", False, True
        hint = "the account has no credit left: see its billing page"
    elif status in (400, 403) and _FILTERED.search(both):
        kind, hint = "content_filter", "change the prompt"
    elif kind == "authentication":
        stops_run = True
        hint = "check the API key, and what it may be used for"
    elif status in (400, 413, 422) and _TOO_LONG.search(both):
        kind, hint = "context_length", "shorten the prompt, or ask for fewer new tokens"
    elif status in (413, 429) and _OVER_QUOTA.search(both):
        kind, retried = "context_length", False
        hint = "shorten the prompt or ask for fewer new tokens: it alone exceeds the quota of a minute"
    elif status == 404:
        stops_run = True
        hint = "check the model's name" if _NO_MODEL.search(both) else "check base_url and the model's name"
    elif kind == "rate_limit":
        hint = "wait, or set requests_per_minute and tokens_per_minute to your quota"
    if should_retry in ("true", "false") and status >= 400:
        retried = should_retry == "true"
    return Failure(
        kind=kind,
        message=f"status {status}: {text}" if text else f"status {status}",
        hint=hint,
        retried=retried,
        congestion=retried and (status == 429 or status >= 500),
        stops_run=stops_run and not retried,
        retry_after=retry_after_seconds(headers),
        request_id=request_id_of(headers),
        unclear=status in (408, 409) or status >= 500,
    )


answered: ContextVar[Mapping[str, str]] = ContextVar("answered")
"""The headers of the last response that the current context received."""


def request_id_of(headers: Mapping[str, str]) -> str:
    """Return the provider's id of a request, under any of the names in use."""
    for name in ("x-request-id", "request-id", "apim-request-id", "cf-ray"):
        if name in headers:
            return headers[name]
    return ""


def message_of(body: bytes) -> tuple[str, str]:
    """Return the code and the message in the body of an error, in any of the forms in use."""
    try:
        data: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", _from_text(body.decode("utf-8", "replace"))
    if isinstance(data, list) and data:
        data = data[0]
    if not isinstance(data, dict):
        return "", _shortened(str(data))
    inner = data.get("error", data)
    if isinstance(inner, dict):
        code = inner.get("code") or inner.get("type") or ""
        text = inner.get("message") or inner.get("detail") or inner.get("error") or ""
    else:
        code, text = data.get("code") or "", inner
    return str(code), _shortened(str(text or data))


def _from_text(text: str) -> str:
    """Remove the tags of a page: a proxy's error page is written for people."""
    if "<" in text:
        text = re.sub(r"(?is)<(script|style|head).*?</\1>", " ", text)
        text = re.sub(r"<[^>]*>", " ", text)
    return _shortened(text)


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_MESSAGE_CHARS else text[:MAX_MESSAGE_CHARS] + " …"
