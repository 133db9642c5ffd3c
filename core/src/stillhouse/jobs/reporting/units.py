"""Times and counts as people read them."""

from __future__ import annotations

from stillhouse._wording import duration, moment

__all__ = [
    "about", "count", "duration", "iso_moment", "moment", "rows_rate", "seconds_text", "stopwatch",
]  # fmt: skip


def count(number: int | None) -> str:
    """Format a count; one that nobody reported is unknown."""
    return "unknown" if number is None else f"{number:,}"


def iso_moment(seconds: float) -> str:
    """Format seconds since 1970 as programs read it: ISO 8601, local time with the offset from UTC."""
    return moment(seconds).replace(" ", "T", 1).replace(" ", "")


def seconds_text(value: float) -> str:
    """Format a time span of a call with three digits, such as `210 ms`."""
    if value == 0 or value >= 0.9995:
        return f"{value:.3g} s" if value < 1000 else f"{value:,.0f} s"
    return f"{value * 1e3:.3g} ms" if value >= 0.9995e-3 else f"{value * 1e6:.3g} µs"


def stopwatch(seconds: float) -> str:
    """Format a time span as a stopwatch shows it, such as `0:08` or `1:02:03`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rows_rate(per_second: float) -> str:
    """Format a number of rows per second; where that is below one, per minute or hour."""
    unit = "s"
    for longer in ("min", "h"):
        if 0 < per_second < 1:
            per_second, unit = per_second * 60, longer
    return f"{per_second:,.0f} rows/{unit}" if per_second >= 100 else f"{per_second:,.1f} rows/{unit}"


def about(number: float) -> str:
    """Format an estimated count with two digits that mean something, such as `~3,000`."""
    digits = max(0, len(str(int(number))) - 2)
    return f"~{round(number / 10**digits) * 10**digits:,}"
