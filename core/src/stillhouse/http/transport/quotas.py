"""`QuotaHeaders`: reading the provider's quotas from the headers of a response."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

__all__ = ["X_RATELIMIT", "QuotaHeaders", "left_of", "seconds_until"]

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


def left_of(headers: Mapping[str, str], quota: QuotaHeaders) -> tuple[float, float, float] | None:
    """Return what is left of a quota, its size, and the seconds until it is full; `None` if not given."""
    remaining = headers.get(quota.remaining)
    if remaining is None:
        return None
    try:
        left, whole = float(remaining), float(headers.get(quota.limit, ""))
    except ValueError:
        return None
    reset = seconds_until(headers.get(quota.reset, ""))
    if reset is None or not (math.isfinite(left) and math.isfinite(whole) and math.isfinite(reset)):
        return None
    return max(0.0, left), whole, reset


def seconds_until(text: str, now: float | None = None) -> float | None:
    """Return the seconds until a reset, written as a duration (`1m2.5s`), as seconds, or as a time of day.

    Args:
        text: what the header says.
        now: the time in seconds since the epoch; `None` reads the clock.
    """
    text = text.strip()
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        return None
    return moment.timestamp() - (time.time() if now is None else now)
