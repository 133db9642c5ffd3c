"""Reading a `Failure` from a response: what is specific to this API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from stillhouse.http import Failure, failure_of, message_of

__all__ = ["ollama_failure"]

_CANNOT = re.compile(r"does not support (\w+)")
_TOO_LONG = re.compile(r"(exceeds|longer than) the (available )?context")
_OF_THE_INPUT = re.compile(r"required for image input|invalid JSON schema|failed to (load|process) image")

_HINTS = {
    "thinking": "leave out think and reasoning_effort, or choose a model that thinks",
    "tools": "leave out tools, or choose a model that calls them",
    "chat": "choose a model that generates text: this one embeds it",
    "completion": "choose a model that generates text: this one embeds it",
    "generate": "choose a model that generates text: this one embeds it",
}
"""What to do about what a model cannot do for any row."""


def ollama_failure(status: int, headers: Mapping[str, str], body: bytes, model: str) -> Failure:
    """Return the failure that a response is, with what to do about the errors that the server has."""
    failure = failure_of(status, headers, body)
    _, message = message_of(body)
    changes: dict[str, Any] = {}
    cannot = _CANNOT.search(message)
    if status == 404 and "model" in message and "not found" in message:
        changes = {"hint": f"download the model: ollama pull {model}"}
    elif failure.kind == "context_length" or _TOO_LONG.search(message):
        hint = "raise num_ctx as far as the model and the memory allow, or shorten the prompt"
        changes = {"kind": "context_length", "hint": hint, "retried": False, "congestion": False}
    elif _OF_THE_INPUT.search(message):  # with the status of a server's own fault
        changes = {"kind": "invalid_request", "retried": False, "congestion": False}
    elif status == 400 and cannot is not None:
        what = cannot[1].lower()
        hint = _HINTS.get(what, f"choose a model that has {what}")
        changes = {"hint": hint, "stops_run": what in _HINTS}
    elif "more system memory" in message:
        hint = "choose a smaller model, or set a smaller num_ctx"
        changes = {"hint": hint, "retried": False, "congestion": False, "stops_run": True}
    elif "usage limit" in message:
        changes = {"hint": "a limit of Ollama's cloud is exhausted: run the same command again later"}
    elif "requires a subscription" in message:
        changes = {"hint": "choose another model, or get a plan of Ollama's cloud that includes this one"}
    elif failure.kind == "authentication":
        place = _sign_in(body)
        changes = {"hint": "set OLLAMA_API_KEY" + (f", or sign in: {place}" if place else "")}
    return replace(failure, **changes) if changes else failure


def _sign_in(body: bytes) -> str:
    """The address at which a server that asks the cloud wants its user to sign in."""
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    place = said.get("signin_url") if isinstance(said, dict) else None
    if not isinstance(place, str) or not place.isprintable() or not place.startswith("https://"):
        return ""
    return place[:500]
