"""Which statuses are retried, and how long the server asks to wait."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

__all__ = ["RETRIED_STATUSES", "retry_after_seconds"]

RETRIED_STATUSES = frozenset({408, 409, 425, 429, *range(500, 600)})
"""Statuses after which the same request may succeed. No other 4xx is ever retried."""


def retry_after_seconds(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return how long the server asks to wait, from `retry-after-ms` or either form of `Retry-After`.

    Args:
        headers: the response's headers, looked up without regard to case.
        now: the time in seconds since the epoch; `None` reads the clock.

    Returns:
        Seconds, at least 0; `None` where the server says nothing that can be parsed.
    """
    milliseconds = headers.get("retry-after-ms")
    if milliseconds is not None:
        seconds = _number(milliseconds)
        if seconds is not None:
            return seconds / 1000
    given = headers.get("retry-after")
    if given is None:
        return None
    seconds = _number(given)
    if seconds is not None:
        return seconds
    try:
        date = parsedate_to_datetime(given)
    except (TypeError, ValueError):
        return None
    if date.tzinfo is None:  # an HTTP date is in GMT, whether it says so or not
        date = date.replace(tzinfo=UTC)
    return max(0.0, date.timestamp() - (time.time() if now is None else now))


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < 1e9 else None
