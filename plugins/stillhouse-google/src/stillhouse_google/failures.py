"""Reading a `Failure` from a response: what is specific to these APIs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from stillhouse.errors import ErrorKind
from stillhouse.http import Failure, failure_of, message_of

__all__ = ["google_failure", "status_of_code"]

# https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
_STATUSES = {
    1: 499, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501,
    13: 500, 14: 503, 15: 500, 16: 401,
}  # fmt: skip

_OF_THE_PROJECT = (
    "location is not supported",
    "enable billing",
    "not allowed to use publisher model",
    "resource field value",
)
"""What stands in the messages of errors about the project, which every request meets."""

_HINTS = {
    "has not been used in project": "enable the API for the project, at the address in the message",
    "access token": "check the credentials: gcloud auth application-default login, or a fresh access_token",
    "' denied on resource": "give the identity access to Vertex AI in the project, such as the role Vertex "
    "AI User",
    "publisher model": "check the model's name, and whether the location has it: some are in global only",
    "developer instruction is not enabled": "the model supports no system messages: put their text into the "
    "user's",
    "cachedcontent not found": "the cached content no longer exists: create it again, or leave it out",
    "too many states for serving": "simplify the schema: fewer properties, shorter lists and enums",
    "thought_signature": "send tool_calls back unchanged; those of another model need "
    "https://ai.google.dev/gemini-api/docs/thought-signatures",
}
"""What to do about errors, by words of their messages; the first that fits counts."""


def google_failure(status: int, headers: Mapping[str, str], body: bytes) -> Failure:
    """Return the failure that a response is, with what to do about the errors that the APIs name."""
    failure = failure_of(status, headers, body)
    if status not in (400, 401, 403, 404):
        return failure
    message = message_of(body)[1].lower()
    changes: dict[str, Any] = {}
    if any(words in message for words in _OF_THE_PROJECT):
        changes = {
            "stops_run": True,
            "hint": "see the project's page in Google AI Studio or Google Cloud, or use another one",
        }
    elif "payload size exceeds" in message:
        kind: ErrorKind = "context_length"
        changes = {"kind": kind, "hint": "the request has more bytes than the API takes: send fewer images"}
    elif "token count" in message and "only supports up to" in message:
        changes = {"kind": "context_length", "hint": "shorten the prompt"}
    else:
        hint = next((hint for words, hint in _HINTS.items() if words in message), "")
        changes = {"hint": hint} if hint else {}
    return replace(failure, **changes) if changes else failure


def status_of_code(code: Any) -> int:
    """Return the status that a code of google.rpc is sent with; a status stays one."""
    if isinstance(code, int) and not isinstance(code, bool):
        return code if 400 <= code < 600 else _STATUSES.get(code, 500)
    return 500
