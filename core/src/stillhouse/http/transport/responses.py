"""`ErrorResponse`: what is known of a response with an error status, its quota and its wait included."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from stillhouse.http.transport.bodies import ErrorBody, clean, error_body, objects_in
from stillhouse.http.transport.quotas import seconds_until
from stillhouse.http.transport.retry import (
    MAX_WAIT_SECONDS,
    retry_after_in,
    retry_after_of_text,
    retry_after_seconds,
)

__all__ = ["MAX_MINUTES_SECONDS", "ErrorResponse", "read_response"]

MAX_MINUTES_SECONDS = 900.0
"""The longest wait that a quota of a minute may ask for; a longer one is of a quota of a day."""

MAX_HEAD_CHARS = 300
MAX_PERIOD_CHARS = 600
"""How far into a message its meaning is: further on, it may quote the prompt."""

_LONG_PERIOD = re.compile(
    r"per[ _-]?(day|week|month)|(/|\b(a|each|every|24)) ?(day|week|month|hours)\b|\b(dai|week|month)ly"
    r"|\b[rt]p[dw]\b|daily_?limit|[每当今][日天]|每[周月]",
    re.IGNORECASE,
)
_SHORT_PERIOD = re.compile(
    r"per[ _-]?(min|sec)|/ ?(minutes?|min|seconds?|sec|s)\b|\b[io]?[rt]p[ms]\b|每[分秒]", re.IGNORECASE
)
_LONG_NAME = re.compile("day|week|month|daily")
_SHORT_NAME = re.compile("minute|second")


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """What is known of a response with an error status."""

    status: int
    headers: Mapping[str, str]
    said: ErrorBody
    names: str
    """Its codes, types and reasons."""
    text: str
    """The same and the message."""
    head: str
    """The same and the first part of the message: further on, an error may quote the prompt."""
    wait: float | None
    is_used_up: bool | None
    """Whether a quota of a day or longer is used up; `None` where nothing says so."""


def read_response(status: int, headers: Mapping[str, str], body: bytes) -> ErrorResponse:
    said = error_body(body)
    objects = list(objects_in(said.data))
    found: dict[str, str] = {}
    for name, value in headers.items():
        found.setdefault(name.lower(), value)
    for item in objects:  # a gateway passes on those of its provider
        passed_on = item.get("headers")
        if isinstance(passed_on, dict):
            for name, value in passed_on.items():
                if isinstance(value, (str, int, float)):
                    found.setdefault(str(name).lower(), str(value))
    # AWS has the name of an error in a header, and an address behind it.
    names = f"{clean(found.get('x-amzn-errortype', ''), 200).partition(':')[0]} {said.names}".strip()
    text = f"{names} {said.searched}"
    is_used_up, reset = _exhausted(found)
    wait = retry_after_seconds(found)
    if wait is None:
        wait = retry_after_in(objects)
    if wait is None and status in (402, 403, 429, 503):
        wait = retry_after_of_text(said.searched)
        wait = reset if wait is None and status == 429 else wait
    if is_used_up is None and reset is not None and wait is not None:
        is_used_up = wait > MAX_MINUTES_SECONDS
    ids = " ".join(
        str(item[key])[:200] for item in objects for key in ("quotaId", "quotaMetric") if key in item
    )
    beginning = f"{names} {said.searched[:MAX_PERIOD_CHARS]}"
    for source in (ids, beginning):
        is_long, is_short = _LONG_PERIOD.search(source), _SHORT_PERIOD.search(source)
        if is_long and is_short and source is beginning:
            is_used_up = is_used_up if wait is None else wait > MAX_MINUTES_SECONDS
            break
        if is_long or is_short:
            is_used_up = bool(is_long)
            break
    head = f"{names} {said.searched[:MAX_HEAD_CHARS]}"
    return ErrorResponse(status, found, said, names, text, head, wait, is_used_up)


def _exhausted(headers: Mapping[str, str]) -> tuple[bool | None, float | None]:
    """Return whether a used-up quota is named after a day, or a minute, and the seconds until it is full."""
    is_long: bool | None = None
    reset: float | None = None
    for name, value in headers.items():
        if "remaining" not in name or "limit" not in name or not _is_none_left(value):
            continue
        seconds = seconds_until(headers.get(name.replace("remaining", "reset"), ""))
        if seconds is not None and 0 <= seconds <= MAX_WAIT_SECONDS:
            reset = max(reset or 0.0, seconds)
        if _LONG_NAME.search(name):
            is_long = True
        elif _SHORT_NAME.search(name):
            is_long = is_long or False
    return is_long, reset


def _is_none_left(value: str) -> bool:
    try:
        return float(value[:40]) <= 0
    except ValueError:
        return False
