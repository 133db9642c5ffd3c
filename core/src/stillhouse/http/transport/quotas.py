"""`QuotaHeaders`: reading the provider's quotas from the headers of a response, or from any values."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

__all__ = ["X_RATELIMIT", "QuotaHeaders", "QuotaLeft", "left_of", "quota_left", "seconds_until"]

QuotaLeft = tuple[float, float, float]
"""What is left of a quota, its size, and the seconds until it is full."""

UNSAID_RESET_SECONDS = 60.0
"""When a quota is full again whose answer does not say so: most are of a minute."""

_EPOCH_SECONDS = 1e9  # a number from here on is a time, and from the next on one in milliseconds
_EPOCH_MILLISECONDS = 1e11
_MAX_CHARS = 64

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")


@dataclass(frozen=True, slots=True)
class QuotaHeaders:
    """The names of the headers about one quota, in lower case.

    Attributes:
        unit: what it counts.
        limit: the header with its size.
        remaining: the header with what is left.
        reset: the header that says when it is full again: a duration (`6m0s`), seconds, or a time.
    """

    unit: Literal["requests", "tokens"]
    limit: str
    remaining: str
    reset: str


X_RATELIMIT = (
    QuotaHeaders(
        "requests",
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    ),
    QuotaHeaders(
        "tokens", "x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"
    ),
)
"""Those of OpenAI, Azure, Groq, Together and others; see
https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers."""


def left_of(headers: Mapping[str, str], quota: QuotaHeaders) -> QuotaLeft | None:
    """Return what is left of a quota, its size, and the seconds until it is full; `None` if not given.

    One without a time is taken for the quota of a minute.
    """
    remaining = headers.get(quota.remaining)
    if remaining is None:
        return None
    return quota_left(remaining, headers.get(quota.limit), headers.get(quota.reset))


def quota_left(remaining: Any, limit: Any, reset: Any = None) -> QuotaLeft | None:
    """Return what is left of a quota, its size, and the seconds until it is full, as `left_of` does.

    It is for an API that says so in the body of an answer, in `HTTPLLM.quotas_in`; the values may be of any
    type.

    Args:
        remaining: what is left, a number or a text.
        limit: the size of the quota, likewise.
        reset: when it is full again, as `seconds_until` reads it; a number is one of seconds.
    """
    left, whole = _count(remaining), _count(limit)
    if left is None or whole is None:
        return None
    if reset is None or reset == "":
        return max(0.0, left), whole, UNSAID_RESET_SECONDS
    seconds = seconds_until(str(reset)) if isinstance(reset, (str, int, float)) else None
    return None if seconds is None else (max(0.0, left), whole, seconds)


def _count(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    try:
        number = float(value[:_MAX_CHARS] if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def seconds_until(text: str, now: float | None = None) -> float | None:
    """Return the seconds until a reset, written as a duration (`1m2.5s`), as seconds, or as a time.

    A number from 1e9 on is a time in seconds since the epoch, one from 1e11 on in milliseconds.

    Args:
        text: what the header says.
        now: the time in seconds since the epoch; `None` reads the clock.

    Returns:
        Seconds, negative where the time is over; `None` where nothing can be read.
    """
    text = text.strip()
    if len(text) > _MAX_CHARS:
        return None
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    number = _count(text)
    if number is not None:
        if number < _EPOCH_SECONDS:
            return number
        moment = number / 1000 if number >= _EPOCH_MILLISECONDS else number
    else:
        try:
            date = datetime.fromisoformat(text)
            if date.tzinfo is None:
                return None
            moment = date.timestamp()
        except (ValueError, OverflowError):
            return None
    return moment - (time.time() if now is None else now)
