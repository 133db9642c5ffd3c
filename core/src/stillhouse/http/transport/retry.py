"""When to try again: full jitter, and what the server says about it."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

__all__ = ["RETRIED_STATUSES", "backoff_seconds", "retry_after_seconds"]

RETRIED_STATUSES = frozenset({408, 409, 425, 429, *range(500, 600)})
"""Statuses after which the same request may succeed. No other 4xx is ever sent again."""

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0


def backoff_seconds(attempt: int, random_share: float | None = None) -> float:
    """How long to wait after the failed attempt of this number (from 1): anything up to a bound.

    The bound doubles with every attempt, from `FIRST_SECONDS` to `LONGEST_SECONDS`. Waiting for
    any part of it ("full jitter") keeps many clients from coming back together; see
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.
    """
    share = random.random() if random_share is None else random_share  # noqa: S311
    bound: float = min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** min(attempt - 1, 16))
    return share * bound


def retry_after_seconds(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """How long the server asks to wait, from `retry-after-ms` or either form of `Retry-After`.

    Args:
        headers: the response's headers, looked up without regard to case.
        now: the time of day in seconds since the epoch; the clock's if `None`.

    Returns:
        Seconds, at least 0; `None` where the server says nothing that can be understood.
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
