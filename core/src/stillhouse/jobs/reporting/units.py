"""Times and counts as people read them."""

from __future__ import annotations

import time

__all__ = ["clock", "count", "duration", "rows_text"]


def count(number: int | None) -> str:
    """Format a count; one that nobody reported is unknown."""
    return "unknown" if number is None else f"{number:,}"


def rows_text(number: int) -> str:
    """Format a number of rows, such as `1 row`."""
    return f"{number:,} {'row' if number == 1 else 'rows'}"


def duration(seconds: float) -> str:
    """Format a time span, such as `3 min 20 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def clock(seconds: float) -> str:
    """Format seconds since 1970 as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
