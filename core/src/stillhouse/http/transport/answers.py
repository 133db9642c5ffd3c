"""`failure_in`: the failure in an answer whose status says success; `status_of`: the status that it means."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import orjson

from stillhouse._lenient import loads
from stillhouse.http.transport.bodies import clean
from stillhouse.http.transport.failures import failure_of
from stillhouse.http.transport.reading import ServerEvent
from stillhouse.offline.failures import Failure

__all__ = ["failure_in", "status_of"]

UNKNOWN_STATUS = 500
"""The status of an error that names none: the same request may succeed."""

_MAX_CHARS = 500
_NUMBER_KEYS = ("code", "status", "status_code", "statusCode", "http_status", "http_code", "error_code")
_NAME_KEYS = ("code", "type", "status", "error_type", "reason", "__type")
_SAID = ("code", "message", "type", "status", "param", "error")
_TEXT_KEYS = ("message", "detail", "msg", "error_description", "error_message", "error_msg")
_SIGNS = frozenset({*_TEXT_KEYS, "errors", "success", "error_code"})
"""Keys of which an error without an `error` in it has at least one."""
_SUCCESS = frozenset({"", "none", "null", "ok", "success", "no error", "false", "0", "200"})
_LEADING = re.compile(
    r"(?:[a-z ]{0,20}(?:status|code|error|http)[a-z: /.\d]{0,12} )?\(?([45]\d\d)\b", re.IGNORECASE
)

# Parts of the names of errors, without case and punctuation. The first that is found decides.
_STATUSES = (
    (402, ("insufficientbalance", "insufficientcredit", "insufficientfund", "paymentrequired", "billing")),
    (429, ("insufficientquota", "ratelimit", "toomanyrequest", "throttl", "resourceexhausted", "quota")),
    (529, ("overload",)),
    (413, ("requesttoolarge",)),
    (400, ("contextlength", "contextwindow", "contentfilter", "contentpolicy", "toolong", "moderation")),
    (401, ("authentication", "unauthenticated", "unauthorized", "apikey", "invalidtoken", "expiredtoken")),
    (403, ("permission", "forbidden", "accessdenied")),
    (404, ("notfound", "notexist")),
    (503, ("unavailable", "capacity", "insufficientsystemresource", "loading")),
    (504, ("timeout", "timedout", "deadlineexceeded")),
    (502, ("badgateway", "provider", "upstream")),
    (500, ("internal", "servererror", "apierror")),
    (400, ("invalidrequest", "invalidargument", "badrequest", "validation", "unprocessable", "unsupported",
           "failedprecondition")),
)  # fmt: skip


def failure_in(
    answer: Any,
    headers: Mapping[str, str],
    classify: Callable[[int, Mapping[str, str], bytes], Failure] | None = None,
) -> Failure | None:
    """Return the failure that an answer with a status of success is, or `None` if it is a good one.

    Gateways send the error of a provider with status 200, in a field `error` of the answer, or as an object
    that is nothing but an error. It is the failure that the same refusal with the status in it is. In a
    stream, the first line or event that is one decides.

    Args:
        answer: the JSON of a 2xx answer, or a list of its lines or events.
        headers: its headers.
        classify: which failure a response with an error status is; `None` is `failure_of`.
    """
    if isinstance(answer, dict):
        error = answer.get("error")
        if not error:
            if answer.get("object") == "error" or answer.get("type") == "error":
                error = answer  # an error of vLLM's or Mistral's form
            elif (
                answer.get("id") is not None  # nearly always: of an answer, a job, or another object
                or _SIGNS.isdisjoint(answer)
                or (error := _flat_error(answer)) is None
            ):
                return None
    elif isinstance(answer, list) and answer and isinstance(answer[0], dict):
        error = answer[0].get("error")
    elif isinstance(answer, list):
        return _failure_in_stream(answer, headers, classify)
    else:
        return None
    if not error or _is_success(error):
        return None
    status = status_of(error)
    body: dict[str, Any] = {"error": error}
    identity = answer.get("request_id") if isinstance(answer, dict) else None
    if isinstance(identity, str):
        body["request_id"] = identity
    failure = (classify or failure_of)(status, headers, _json(body))
    said = failure.message.removeprefix(f"status {status}: ")  # which it did not have
    return replace(failure, message=f"the answer is an error in spite of its status: {said}")


def _flat_error(answer: dict[str, Any]) -> Any:
    """Return the error that an object without an id is, or `None`.

    It says so by a status, by the name of an error, or by having no success; a text alone says nothing.
    """
    errors = answer.get("errors")
    if isinstance(errors, (list, dict, str)) and errors and not _is_success(errors):
        return errors
    texts = [answer[key] for key in _TEXT_KEYS if isinstance(answer.get(key), str) and answer[key]]
    if answer.get("success") is False or (texts and answer.get("status") in ("error", "failed", "failure")):
        return answer
    if any(_as_status(answer.get(key)) is not None for key in _NUMBER_KEYS):
        return answer
    names = [answer.get(key) for key in _NAME_KEYS]
    is_known = texts and any(_by_name(name) is not None for name in (*names, *texts))
    return answer if is_known else None


def _failure_in_stream(
    parts: list[Any],
    headers: Mapping[str, str],
    classify: Callable[[int, Mapping[str, str], bytes], Failure] | None,
) -> Failure | None:
    """Return the failure that a line or an event is; only those that name an error are read."""
    for part in parts:
        is_event = isinstance(part, ServerEvent)
        is_named = is_event and part.event == "error"
        if is_event:
            part = part.data
        elif not isinstance(part, bytes):
            continue
        if not is_named and (b'"error"' if isinstance(part, bytes) else '"error"') not in part:
            continue
        try:
            said = loads(part)
        except ValueError:
            said = part
        if is_named and not (isinstance(said, dict) and said.get("error")):
            said = {"error": said or "the stream ended with an error"}
        failure = failure_in(said, headers, classify) if isinstance(said, dict) else None
        if failure is not None:
            return failure
    return None


def status_of(error: Any) -> int:
    """Return the HTTP status that an error in an answer means; 500 if it does not say.

    Args:
        error: what is under `error`: an object with a `code`, a `status` or a `type`, a text, or a list.
    """
    while isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, dict):
        inner = error.get("error")
        if inner and isinstance(inner, (dict, list)):
            return status_of(inner)
        for key in _NUMBER_KEYS:
            status = _as_status(error.get(key))
            if status is not None:
                return status
        for key in _NAME_KEYS:
            status = _by_name(error.get(key))
            if status is not None:
                return status
        error = next((error[key] for key in _TEXT_KEYS if error.get(key)), None)
    if isinstance(error, str):
        found = _LEADING.match(error[:_MAX_CHARS].strip())
        if found is not None:
            return int(found.group(1))
        return _by_name(error) or UNKNOWN_STATUS
    return _as_status(error) or UNKNOWN_STATUS


def _is_success(error: Any) -> bool:
    """Check for an error that says that there is none."""
    if error is True:
        return False
    if isinstance(error, str):
        return error.strip().lower() in _SUCCESS
    if isinstance(error, dict):
        return all(key in _SAID and _is_success(item) for key, item in error.items())
    if isinstance(error, list):
        return all(not item or _is_success(item) for item in error)
    return not error or (isinstance(error, (int, float)) and 200 <= error < 300)


def _as_status(value: Any) -> int | None:
    if isinstance(value, str):
        found = re.match(r"\s*([45]\d\d)\b(?!\.\d*[1-9])", value[:40])
        return int(found.group(1)) if found is not None else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if 400 <= value < 600 and value == int(value) else None


def _by_name(value: Any) -> int | None:
    if not isinstance(value, str):
        return None
    name = re.sub(r"[^a-z]", "", value[:_MAX_CHARS].lower())
    for status, parts in _STATUSES:
        if any(part in name for part in parts):
            return status
    return None


def _json(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except (TypeError, ValueError, RecursionError):
        try:
            return json.dumps(body, default=str).encode()
        except (TypeError, ValueError, RecursionError):
            return clean(f"{body['error']!s:.500}").encode("utf-8", "replace")
