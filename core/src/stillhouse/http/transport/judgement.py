"""What follows from an attempt that failed: slowing down, trying again, or giving up.

It is the same for a request of the transport and for a call of a library. Nothing here is called for a good
answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from stillhouse.errors import GenerationError
from stillhouse.http.transport.permits import Permit, RequestLimits
from stillhouse.offline.failures import Failure, UnclearError

__all__ = ["given_up", "redacted", "seconds_to_wait", "slow_down"]


def slow_down(limits: RequestLimits, permit: Permit, failure: Failure, retry_timeout: float) -> None:
    """Let all requests slow down or pause, if the failure says so. The permit is not returned yet."""
    # A wait longer than any request may take is not shared: it would only delay the others.
    pause = None if _is_long(failure, retry_timeout) else failure.retry_after
    if failure.kind == "rate_limit" and failure.congestion:
        limits.on_rate_limit(permit, pause)
    elif failure.congestion:
        limits.on_overload(permit, pause)


def redacted(failure: Failure, redact: Callable[[str], str]) -> Failure:
    """Return a failure without secrets: some servers quote the key that they reject."""
    return replace(
        failure,
        message=redact(failure.message),
        hint=redact(failure.hint),
        request_id=redact(failure.request_id),
    )


def seconds_to_wait(
    failure: Failure, backoff: float, now: float, deadline: float, *, once: bool = False
) -> float | None:
    """Return how long to wait before the request is repeated, or `None` if it is given up.

    Args:
        failure: that of the last attempt.
        backoff: how long to wait if the provider does not say it.
        now: the time of the loop.
        deadline: when the request is given up.
        once: whether it is not to be repeated when it may have been carried out.
    """
    if not failure.retried or (once and failure.unclear):
        return None
    delay = max(failure.retry_after or 0.0, backoff)
    return delay if now + delay < deadline else None


def given_up(failure: Failure, attempts: int, retry_timeout: float, *, once: bool = False) -> GenerationError:
    """Return the error of a request that is given up: an `UnclearError` if it was made `once` and is unclear.

    Args:
        failure: that of the last attempt, without secrets.
        attempts: how many there were.
        retry_timeout: how long a request is retried.
        once: as in `seconds_to_wait`.
    """
    is_unclear = once and failure.unclear
    if failure.retried and failure.retry_after and not is_unclear and _is_long(failure, retry_timeout):
        failure = _long_wait(failure, retry_timeout)
    error = UnclearError if is_unclear else GenerationError
    return error(
        failure.message,
        kind=failure.kind,
        attempts=attempts,
        hint=failure.hint,
        request_id=failure.request_id,
        stops_run=failure.stops_run,
    )


def _is_long(failure: Failure, retry_timeout: float) -> bool:
    return (failure.retry_after or 0.0) >= retry_timeout


def _long_wait(failure: Failure, retry_timeout: float) -> Failure:
    """Return a failure that asks for a longer wait than allowed, such as of a daily quota: it ends a run."""
    return replace(
        failure,
        message=f"{failure.message} (it asks to wait {failure.retry_after:.0f} s)",
        hint=f"run the same command again after that, or raise retry_timeout, now {retry_timeout:.0f} s",
        stops_run=True,
    )
