"""From LiteLLM's exceptions to failures, by the names of their classes, so that nothing is imported."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from stillhouse.errors import ErrorKind
from stillhouse.http import Failure, failure_of

__all__ = ["failure_of_exception"]

_STATUSES = {
    "AuthenticationError": 401, "PaymentRequiredError": 402, "PermissionDeniedError": 403,
    "NotFoundError": 404, "Timeout": 408, "UnprocessableEntityError": 422, "RateLimitError": 429,
    "InternalServerError": 500, "BadGatewayError": 502, "ServiceUnavailableError": 503,
    "BadRequestError": 400,
}  # fmt: skip

# What the class says beyond doubt.
_KINDS: dict[str, tuple[ErrorKind, str]] = {
    "ContextWindowExceededError": ("context_length", "shorten the prompt, or ask for fewer new tokens"),
    "ContentPolicyViolationError": ("content_filter", "change the prompt"),
}

# What every further request would meet.
_STOPPING: dict[str, tuple[ErrorKind, str]] = {
    "UnsupportedParamsError": ("invalid_request", "leave the parameter out, or choose another model"),
    "LiteLLMUnknownProvider": ("invalid_request", "write the model as provider/model"),
    "BudgetExceededError": ("rate_limit", "raise the budget that is set in LiteLLM"),
}

_NO_PROVIDER = "LLM Provider NOT provided"

_PREFIX = re.compile(r"(?:(?:litellm\.)?\w+(?:Error|Exception|Timeout)(?::| -) *)+")
_CONNECTION = re.compile(
    r"connect|disconnect|not completed|timed? ?out|reset by peer|broken pipe|name or service|name resolution"
    r"|\b(ssl|tls|dns|network|eof)\b|incomplete (chunked )?read",
    re.IGNORECASE,
)
_NO_CONNECTION = re.compile(
    r"cannot connect|connect call failed|connection attempts failed|connection refused|name or service"
    r"|name resolution|nodename nor servname|getaddrinfo",
    re.IGNORECASE,
)
_NOT_CONNECTED = frozenset({"ClientConnectorError", "ConnectError", "ConnectionRefusedError", "gaierror"})
_UNUSABLE = re.compile(
    r"expecting value|json response|invalid json|jsondecode|no 'choices'|(empty or )?invalid response"
    r"|unexpected (mimetype|content type)|validation error|traceback|error (parsing|processing)",
    re.IGNORECASE,
)
# LiteLLM, or a library below it, says so before anything is sent; the classes for it are those of a server
# that failed.
_NO_KEY = re.compile(
    r"missing credentials|(unable to locate|no|could not (load|find|resolve)) .{0,20}credentials"
    r"|credentials .{0,30}not (found|set|provided)|no key is set|\bapi_key\b.{0,30}must be (set|provided)"
    r"|missing .{0,40}\b(api[ _-]?key|jwt( key)?|access[ _-]?token|tenant id)\b"
    r"|\b(api|jwt|access|auth)[ _-](key|token)\b.{0,40}\b(required|not (set|provided|found|given)|missing)\b"
    r"|(?-i:\b[A-Z][A-Z0-9_]*(KEY|TOKEN)\b).{0,40}\b(required|not (set|provided|found|given)|missing)\b",
    re.IGNORECASE,
)
_NO_SETTING = re.compile(
    r"\b(api_base|api_version|base_url|endpoint|project(_id)?|region(_name)?|account(_id)?)\b"
    r".{0,40}\b(required|not (set|provided|found|given)|missing|must be set)\b|missing required parameter",
    re.IGNORECASE,
)
_NO_LIBRARY = re.compile(r"no module named|\bmust be installed\b|\bpip install\b", re.IGNORECASE)
_MAX_CHARS = 2000


def failure_of_exception(error: Exception) -> Failure:
    """Return the failure that an exception of `acompletion` is."""
    names = [cls.__name__ for cls in type(error).__mro__]
    status, headers, message = _status(error, names), _headers(error), _message(error)
    for name in names:
        if name in _STOPPING:
            kind, hint = _STOPPING[name]
            return Failure(kind, message, hint=hint, stops_run=True)
    if _NO_PROVIDER in message:
        kind, hint = _STOPPING["LiteLLMUnknownProvider"]
        return Failure(kind, message, hint=hint, stops_run=True)
    if _was_empty(error):
        return Failure("server", "the answer is empty", retried=True, congestion=True, unclear=True)
    if not headers and (failure := _not_sent(message)) is not None:
        return failure
    if not headers and status in (None, 500):  # there was no response, or none that LiteLLM could read
        if _was_never_connected(error) or _NO_CONNECTION.search(message):
            return Failure(
                "connection", message, hint="check base_url, and whether the server runs", retried=True,
                stops_run=True,  # after it was retried for as long as a request is retried
            )  # fmt: skip
        return _without_response(message, status)
    if "APIConnectionError" in names and _UNUSABLE.search(message):
        return _unusable(message)
    failure = failure_of(status or 500, headers, _body(error, message))
    for name in names:
        if name in _KINDS:
            kind, hint = _KINDS[name]
            return replace(failure, kind=kind, hint=hint, retried=False, congestion=False, stops_run=False)
    return failure


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it came from; LiteLLM and the libraries below it wrap one into another."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _was_empty(error: BaseException) -> bool:
    """Check for an answer with an empty body, which a proxy sends where the server behind it goes away."""
    found = next((cause for cause in _causes(error) if isinstance(cause, json.JSONDecodeError)), None)
    return found is not None and not found.doc.strip()


def _was_never_connected(error: BaseException) -> bool:
    return any(_NOT_CONNECTED & {cls.__name__ for cls in type(cause).__mro__} for cause in _causes(error))


def _status(error: Exception, names: list[str]) -> int | None:
    given = getattr(error, "status_code", None)
    if isinstance(given, str) and given.isdecimal():
        given = int(given)
    if type(given) is int and 400 <= given < 600:
        return given
    return next((_STATUSES[name] for name in names if name in _STATUSES), None)


def _headers(error: Exception) -> dict[str, str]:
    """Return the headers of the provider's response, with small letters."""
    for given in (
        getattr(error, "litellm_response_headers", None),
        getattr(getattr(error, "response", None), "headers", None),
    ):
        if isinstance(given, Mapping) and given:
            return {str(name).lower(): str(value) for name, value in given.items()}
    return {}


def _message(error: Exception) -> str:
    """Return what the provider said, without LiteLLM's own words around it and its traceback."""
    given = getattr(error, "message", None)
    text = given if isinstance(given, str) and given else str(error)
    text, trace, _ = text.partition("Traceback (most recent call last)")
    said = _PREFIX.sub("", text[:_MAX_CHARS], count=1).split("To drop these, set")[0].strip()
    return f"{said} (traceback)" if trace else said or type(error).__name__


def _body(error: Exception, message: str) -> bytes:
    """Return the body of the provider's error, as far as LiteLLM keeps it."""
    body = getattr(error, "body", None)
    said: dict[str, Any] = {"message": message}
    if isinstance(body, dict):
        said |= {name: body[name] for name in ("code", "type") if isinstance(body.get(name), str)}
    return orjson.dumps({"error": said})


def _not_sent(message: str) -> Failure | None:
    """Return the failure of a request that was not sent, because something is missing here, as for all."""
    if _NO_KEY.search(message):
        hint = (
            "set the API key in the environment, under the name that LiteLLM documents for it, or as api_key"
        )
        return Failure("authentication", message, hint=hint, stops_run=True)
    if _NO_LIBRARY.search(message):
        hint = "install the library that LiteLLM requires for this provider"
        return Failure("invalid_request", message, hint=hint, stops_run=True)
    if _NO_SETTING.search(message):
        hint = "set it as a field, such as base_url, or in the environment as LiteLLM documents it"
        return Failure("invalid_request", message, hint=hint, stops_run=True)
    return None


def _without_response(message: str, status: int | None) -> Failure:
    if _CONNECTION.search(message):
        return Failure(
            "connection", message, hint="check base_url, and whether the server runs",
            retried=True, congestion=False, unclear=True,
        )  # fmt: skip
    if _UNUSABLE.search(message):
        return _unusable(message)
    if status is None:
        return Failure("unknown", message)
    return Failure("server", message, retried=True, congestion=True, unclear=True)


def _unusable(message: str) -> Failure:
    """An answer that came whole is paid for; the next one would have the same shape."""
    return Failure(
        "server", f"LiteLLM cannot read the answer: {message}",
        hint="check that base_url is the address of the provider that the model names", unclear=True,
    )  # fmt: skip
