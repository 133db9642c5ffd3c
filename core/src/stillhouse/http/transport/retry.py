"""Which statuses are retried, and how long the server asks to wait."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from stillhouse.http.transport.quotas import seconds_until

__all__ = [
    "MAX_WAIT_SECONDS",
    "RETRIED_STATUSES",
    "retry_after_in",
    "retry_after_of_text",
    "retry_after_seconds",
]

RETRIED_STATUSES = frozenset({408, 409, 424, 425, 429, 499, *range(500, 600)})
"""Statuses after which the same request may succeed. No other 4xx is retried by its number alone.

424 is of servers that call a model (Bedrock, TGI), which failed; 499 is of one that gave up a request.
"""

MAX_WAIT_SECONDS = 32 * 86400.0
"""The longest wait that is believed: a quota of a month. A longer one is nonsense."""

# The names under which the body of an error has a wait, without case and punctuation. A count of
# milliseconds comes before one of seconds: it is the finer.
_WAIT_NAMES = {
    "retrydelay": 1.0,
    "retryafterms": 0.001,
    "retryaftermillis": 0.001,
    "retryaftermilliseconds": 0.001,
    "retrydelayms": 0.001,
    "retryinms": 0.001,
    "waitms": 0.001,
    "retryafter": 1.0,
    "retryaftersec": 1.0,
    "retryaftersecs": 1.0,
    "retryafterseconds": 1.0,
    "retrydelayseconds": 1.0,
    "retryin": 1.0,
    "retryinseconds": 1.0,
    "retryat": 1.0,
    "wait": 1.0,
    "waitfor": 1.0,
    "waitseconds": 1.0,
    "waittime": 1.0,
    "waittimeseconds": 1.0,
    "secondstowait": 1.0,
    "secondsuntilretry": 1.0,
    "backoffseconds": 1.0,
    "resetsinseconds": 1.0,
    "estimatedtime": 1.0,
}
_MAX_NAME_CHARS = 40

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_AMOUNT = re.compile(
    r"(\d{1,9}(?:\.\d{1,9})?)\s?(milliseconds?|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)(?![a-z])",
    re.IGNORECASE,
)
_WAIT = re.compile(
    r"(?:again|retry|retrying|wait|come back|resets?|available)\b[^\d.;!?]{0,30}(?=\d)", re.IGNORECASE
)
_BETWEEN = re.compile(r"(?:,? and |,? )?", re.IGNORECASE)


def retry_after_seconds(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return how long the server asks to wait, from `retry-after-ms` or either form of `Retry-After`.

    Args:
        headers: the response's headers, looked up without regard to case.
        now: the time in seconds since the epoch; `None` reads the clock.

    Returns:
        Seconds, at least 0; `None` where the server says nothing that can be parsed or believed.
    """
    milliseconds = headers.get("retry-after-ms")
    if milliseconds is not None:
        seconds = _number(milliseconds, 0.001)
        if seconds is not None:
            return seconds
    given = headers.get("retry-after")
    if given is None:
        return None
    seconds = _number(given)
    if seconds is not None:
        return seconds
    try:
        date = parsedate_to_datetime(given[:100])
        if date.tzinfo is None:  # an HTTP date is in GMT, whether it says so or not
            date = date.replace(tzinfo=UTC)
        seconds = date.timestamp() - (time.time() if now is None else now)
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return max(0.0, seconds) if seconds < MAX_WAIT_SECONDS else None


def retry_after_in(objects: Iterable[Mapping[str, Any]]) -> float | None:
    """Return how long an error's body asks to wait, from the objects in it.

    Google's `RetryInfo` has `retryDelay`, `"34s"`; Hugging Face tells the `estimated_time` until a model is
    loaded; others have a number under a name like that of the header.
    """
    for item in objects:
        found = {re.sub(r"[^a-z]", "", key[:_MAX_NAME_CHARS].lower()): value for key, value in item.items()}
        for name, scale in _WAIT_NAMES.items():
            value = found.get(name)
            if isinstance(value, dict):  # protobuf's Duration
                value = value.get("seconds")
            if value is not None and (seconds := _wait_of(value, scale)) is not None:
                return seconds
    return None


def _wait_of(value: Any, scale: float) -> float | None:
    """Return a wait that is a number, a duration or a time."""
    seconds = _number(value, scale)
    if seconds is None and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        seconds = seconds_until(str(value))
    return seconds if seconds is not None and 0 <= seconds <= MAX_WAIT_SECONDS else None


def retry_after_of_text(text: str) -> float | None:
    """Return how long a message asks to wait: "try again in 7m12s", "Please retry after 5 seconds"."""
    found = _WAIT.search(text)
    if found is None:
        return None
    seconds, place = None, found.end()
    while (amount := _AMOUNT.match(text, place)) is not None:
        unit = amount.group(2).lower()
        scale = _UNITS["ms" if unit.startswith(("ms", "mil")) else unit[0]]
        seconds = (seconds or 0.0) + float(amount.group(1)) * scale
        between = _BETWEEN.match(text, amount.end())
        place = between.end() if between else amount.end()
    return seconds if seconds is not None and seconds <= MAX_WAIT_SECONDS else None


def _number(value: Any, scale: float = 1.0) -> float | None:
    if isinstance(value, str):
        value = value.strip()[:40].removesuffix("s")
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        seconds = float(value) * scale
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds <= MAX_WAIT_SECONDS else None
