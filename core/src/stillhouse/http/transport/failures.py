"""Reading a `Failure` from a response: its kind, the provider's message, and whether to retry.

The words of an error decide, not its status alone: providers send a wrong key as 400, and a quota of a day
with the status, and often the words, of one of a minute.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from stillhouse.errors import ErrorKind
from stillhouse.http.transport.bodies import clean, error_body, objects_in
from stillhouse.http.transport.responses import MAX_MINUTES_SECONDS, ErrorResponse, read_response
from stillhouse.http.transport.retry import RETRIED_STATUSES
from stillhouse.offline.failures import Failure

__all__ = ["answered", "failure_of", "message_of", "request_id_of"]

MAX_REQUEST_ID_CHARS = 128

_KINDS: dict[int, ErrorKind] = {
    401: "authentication",
    402: "rate_limit",
    403: "authentication",
    407: "authentication",
    408: "timeout",
    413: "context_length",
    424: "server",
    429: "rate_limit",
    498: "content_filter",
    499: "server",
}

_REQUEST_IDS = (
    "x-request-id",
    "request-id",
    "apim-request-id",
    "x-amzn-requestid",
    "mistral-correlation-id",
    "x-kong-request-id",
    "cf-ray",
)


def _pattern(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE)


# How providers describe a prompt that is too long, in the code or the message of an error.
_TOO_LONG = _pattern(
    r"context[_ ]?length|context[_ ]?window|context[_ ]size|maximum context",
    r"max(imum)? (input|prompt|sequence)? ?(length|tokens)|prompt is too long|too many (input )?tokens",
    r"exceed(s|ed)? .{0,40}(context|token)|input is too long|reduce the length|range of input length",
    r"tokens?`?.{0,60}must (be|have) (<|less|at most)|must have less than .{0,20}tokens",
)
_TOO_MANY = _pattern("too many (input )?tokens")
_TOO_LONG_BEYOND_DOUBT = _pattern(r"context_?(length|window|size)_?exceeded", "exceed_context_size")
_FILTERED = _pattern(
    r"content[_ -]?(filter|policy|management)|(block|flag|reject|violat).{0,60}(safety|moderation)",
    r"(safety|moderation).{0,60}(block|flag|reject|violat)|content exists risk",
    r"\b(prompt|inputs?|outputs?|content)\b.{0,60}(flag|violat).{0,60}(polic|usage guidelines)",
)
# One request with more tokens than the quota of a minute; see
# https://platform.openai.com/docs/guides/rate-limits.
_OVER_QUOTA = _pattern("request too large")
_NO_CREDIT_CODE = _pattern(
    r"insufficient_?(quota|balance|credit|fund)|payment_?required|arrearage|budget_?exceeded",
    "billing_|free_?tier_?only",
)
_NO_CREDIT = _pattern(
    r"credit balance|insufficient (balance|credit|fund|quota)|payment required|billing hard limit",
    r"(out of|no|not enough|n[o']t have any|more|requires?|used up your|exceeded your .{0,40})\b ?credits\b",
    r"no credit left|balance .{0,20}(too low|not enough)|account .{0,40}(in arrears|overdue)",
    r"(spend|spending|usage) limits? (has been |was )?reached",
    r"reached your .{0,30}(spend|spending|usage) limit",
    r"\bbudget ?exceeded|\bexceeded ?[a-z]{0,12} ?budget|\bbudget has been exceeded|余额不足|欠费|额度不足",
)
# AI Studio sends these words for a quota of a minute too; see `_rate_limit`.
_MAYBE_NO_CREDIT = _pattern(r"exceeded your current quota|\bbilling\b|check your plan|trial key")
_NO_MODEL = _pattern(
    r"model_?not_?(found|supported|available)|model .{0,80}(not (exist|found)|does not exist)|no such model",
    r"not a valid model|model identifier is invalid|no models? loaded|on-demand throughput isn.t supported",
    r"\b(invalid|unknown)(_model\b| model( (id|name|code|identifier))?\s?(['\"`:,.]|$))",
)
_GONE = _pattern(
    r"\binvalid state\W*$|\b(endpoint|model) .{0,80}\bpaused\b|\bno longer (supported|available)\b",
    r"model_(decommissioned|deprecated|retired)|model .{0,80}(decommissioned|been retired|been shut ?down)",
)
_WRONG_KEY = _pattern(
    r"api_?key_?(invalid|expired|missing|not_?found)|(invalid|incorrect|wrong|missing|expired)_?api_?key",
    r"(invalid|incorrect|wrong|missing|expired|revoked|unknown|no valid|no)[ -](x-)?api[ -]key",
    r"api[ -]key\b.{0,20} (not valid|invalid|incorrect|expired|missing|not found|revoked|disabled|required)",
    r"\b(invalid|expired|revoked) (authentication|credential|access token|bearer token|auth token)",
    r"\b(authentication_error|invalid_authentication|unauthenticated|invalid_token)\b",
    r"\b(UnrecognizedClient|InvalidSignature|ExpiredToken|IncompleteSignature)",
    r"security token .{0,40}(expired|invalid)",
)
_SHUT_OUT = _pattern(
    r"\b(account|organi[sz]ation|project|workspace)\b.{0,40}\b(disabled|deactivated|suspended|terminated|banned)\b"
)
_THROTTLED = _pattern(
    r"rate_?limit|throttl|too_?many_?requests|resource_?exhausted|quota_?exceeded|daily_?limit",
)


@dataclass(frozen=True, slots=True)
class _Meaning:
    kind: ErrorKind
    hint: str = ""
    retried: bool = False
    stops_run: bool = False
    message: str = ""
    unknown_model: bool = False


answered: ContextVar[Mapping[str, str]] = ContextVar("answered")
"""The headers of the last response that the current context received."""


def failure_of(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """Return the failure that a response with an error status is.

    Args:
        status: the status.
        headers: the response's headers.
        body: its body, of any form and size: JSON, a page, bytes that are not text, or nothing.
    """
    response = read_response(status, headers, body)
    meaning = _meaning(response)
    retried = meaning.retried
    should_retry = response.headers.get("x-should-retry", "").lower()
    if should_retry in ("true", "false") and status >= 400:
        retried = should_retry == "true"
    message = meaning.message or response.said.text
    is_busy = status >= 500 or meaning.kind == "rate_limit"
    return Failure(
        kind=meaning.kind,
        message=f"status {status}: {message}" if message else f"status {status}",
        hint=meaning.hint,
        retried=retried,
        congestion=retried and is_busy,
        stops_run=meaning.stops_run,
        retry_after=response.wait,
        request_id=request_id_of(response.headers) or _request_id_in(response.said.data),
        unclear=status in (408, 409, 499) or status >= 500,
        unknown_model=meaning.unknown_model,
    )


def message_of(body: bytes) -> tuple[str, str]:
    """Return the code and the message in the body of an error, in any of the forms in use.

    The message is on one line, of bounded length, and without control characters.
    """
    said = error_body(body)
    return said.code, said.text


def request_id_of(headers: Mapping[str, str]) -> str:
    """Return the provider's id of a request, under any of the names in use; it is short and printable."""
    for name in _REQUEST_IDS:
        identity = headers.get(name)
        if identity:
            return "".join(letter for letter in identity[:MAX_REQUEST_ID_CHARS] if letter.isprintable())
    return ""


def _request_id_in(data: Any) -> str:
    for item in objects_in(data):
        identity = item.get("request_id") or item.get("requestId")
        if isinstance(identity, str):
            return request_id_of({"request-id": identity})
    return ""


def _meaning(response: ErrorResponse) -> _Meaning:
    """Return what a response means; the first sign that fits decides."""
    status = response.status
    if status < 300:  # an answer that says that it is none, or a line of a batch without a status
        return _Meaning("server")
    if status < 400:
        return _redirect(response)
    if status == 407:
        return _Meaning(
            "authentication",
            "write the proxy's login in the environment variable that names it: http://USER:PASSWORD@HOST:PORT",
            stops_run=True,
            message=f"the proxy requires a login: {response.said.text}".rstrip(": "),
        )
    if status != 429 and (_WRONG_KEY.search(response.head) or _SHUT_OUT.search(response.head)):
        credit = _rate_limit(response) if status < 500 else None
        return credit if credit is not None and credit.stops_run else _authentication()
    for meaning in (_refused_prompt, _rate_limit, _refused_model):
        if (found := meaning(response)) is not None:
            return found
    kind: ErrorKind = _KINDS.get(status, "server" if status >= 500 else "invalid_request")
    if kind == "authentication":
        return _authentication()
    return _Meaning(kind, retried=status in RETRIED_STATUSES)


def _redirect(response: ErrorResponse) -> _Meaning:
    place = re.split(r"[?#]", clean(response.headers.get("location", ""), 300), maxsplit=1)[0]
    place = re.sub(r"(?<=//)[^/]*@", "", place) or "nowhere"
    return _Meaning(
        "invalid_request",
        "set base_url to the address that the server redirects to",
        stops_run=True,
        message=f"it redirects to {place}, and is not followed with the key",
    )


def _authentication() -> _Meaning:
    return _Meaning("authentication", "check the API key, and what it may be used for", stops_run=True)


def _refused_prompt(response: ErrorResponse) -> _Meaning | None:
    """Return what a response means that another prompt would not get."""
    status, text = response.status, response.text
    if status == 498 or (status in (400, 403, 422, 451) and _FILTERED.search(text)):
        return _Meaning("content_filter", "change the prompt")
    if status in (413, 429) and _OVER_QUOTA.search(text):
        hint = "shorten the prompt or ask for fewer new tokens: it alone exceeds the quota of a minute"
        return _Meaning("context_length", hint)
    is_too_long = status in (400, 413, 422) and _TOO_LONG.search(text) and not _is_of_a_period(response)
    if is_too_long or _TOO_LONG_BEYOND_DOUBT.search(response.head):
        return _Meaning("context_length", "shorten the prompt, or ask for fewer new tokens")
    return None


def _is_of_a_period(response: ErrorResponse) -> bool:
    """Check for too many tokens in a minute or a day, rather than in a prompt."""
    return response.is_used_up is not None and _TOO_MANY.search(response.head) is not None


def _rate_limit(response: ErrorResponse) -> _Meaning | None:
    """Return what a response means that comes of a quota or of an account without credit.

    A quota of a day stops the run; one of a minute never does, and is retried. Where nothing says which of
    them it is, the request is retried, and if that is in vain for as long as a request is retried, the run
    stops: an account without credit sends such an error as well.
    """
    status, wait = response.status, response.wait
    no_credit = "the account has no credit left: see its billing page"
    if _NO_CREDIT_CODE.search(response.names):
        return _Meaning("rate_limit", no_credit, stops_run=True, message=_with_wait(response))
    if status == 402 or (status < 500 and _NO_CREDIT.search(response.head)):
        return _Meaning(
            "rate_limit",
            no_credit,
            retried=wait is not None and status in (402, 429),
            stops_run=True,
            message=_with_wait(response) if wait is None else "",
        )
    is_throttled = status in (400, 403) and (_THROTTLED.search(response.names) or _is_of_a_period(response))
    if status != 429 and not is_throttled:
        return None
    if response.is_used_up:
        is_long = wait is not None and wait > MAX_MINUTES_SECONDS
        return _Meaning(
            "rate_limit",
            "a quota of a day or longer is used up: run the same command again when it is renewed",
            retried=is_long,  # if `retry_timeout` allows for it
            stops_run=True,
            message="" if is_long else _with_wait(response),
        )
    if response.is_used_up is None and wait is None and _MAYBE_NO_CREDIT.search(response.text):
        hint = "wait, and if that does not help see the account's billing page: it may have no credit left"
        return _Meaning("rate_limit", hint, retried=True, stops_run=True)
    hint = "wait, or set requests_per_minute and tokens_per_minute to your quota"
    return _Meaning("rate_limit", hint, retried=True)


def _with_wait(response: ErrorResponse) -> str:
    """Return the message with when to come back. Of a quota of a day, a short wait says nothing."""
    wait, text = response.wait, response.said.text
    if wait is None or wait <= 60:
        return text
    hours = f", about {wait / 3600:.0f} h" if wait >= 5400 else ""
    return f"{text} (it asks to wait {wait:.0f} s{hours})".lstrip()


def _refused_model(response: ErrorResponse) -> _Meaning | None:
    """Return what a response means that every request for this model or address gets."""
    status, head = response.status, response.head
    if status == 410 or (status in (400, 403, 404, 422, 503) and _GONE.search(head)):
        hint = (
            "the model or the endpoint is paused or retired: see its page, or set another model or base_url"
        )
        return _Meaning("invalid_request", hint, stops_run=True, unknown_model=True)
    if status in (400, 404, 422) and _NO_MODEL.search(head):
        return _Meaning("invalid_request", "check the model's name", stops_run=True, unknown_model=True)
    if status == 404:
        hint = "check base_url and the model's name"
        return _Meaning("invalid_request", hint, stops_run=True, unknown_model=True)
    return None
