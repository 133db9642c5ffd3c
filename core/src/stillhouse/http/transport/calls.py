"""`LimitedCalls`: the attempts of a call that a library makes, under the limits of an LLM."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from stillhouse._execution.stopping import current_stop
from stillhouse._settings.redaction import Redactor
from stillhouse.errors import StillhouseError
from stillhouse.http.transport.failures import answered
from stillhouse.http.transport.judgement import given_up, redacted, seconds_to_wait, slow_down
from stillhouse.http.transport.permits import RequestLimits
from stillhouse.offline.failures import Failure, backoff_seconds

__all__ = ["LimitedCalls"]

T = TypeVar("T")


class LimitedCalls:
    """Makes calls of a library. It is created and used on one event loop.

    Args:
        limits: how fast calls are made.
        timeout: seconds that one attempt may take.
        retry_timeout: seconds after the first failure after which a call is given up.
        redactor: masks the secrets in what a failure says.
    """

    def __init__(
        self, limits: RequestLimits, *, timeout: float, retry_timeout: float, redactor: Redactor
    ) -> None:
        self.limits = limits
        self._timeout = timeout
        self._retry_timeout = retry_timeout
        self._redactor = redactor
        self._loop = asyncio.get_running_loop()

    async def make(
        self,
        call: Callable[[], Awaitable[T]],
        failure_of: Callable[[Exception], Failure],
        failure_in: Callable[[T], Failure | None],
        *,
        tokens: int = 0,
    ) -> T:
        """Make a call, with limits and retries, and return the answer.

        An exception of the library is not kept, not as a cause either: it may hold the headers that it sent.

        Args:
            call: makes one attempt.
            failure_of: says which failure an exception is.
            failure_in: says which failure an answer is, `None` for a good one.
            tokens: how many tokens it is estimated to use.

        Raises:
            GenerationError: it failed after all retries.
        """
        limits, stop = self.limits, current_stop.get()
        attempt, deadline = 0, 0.0
        while True:
            permit = limits.try_acquire(tokens)
            if permit is None:
                with stop.interrupting():
                    permit = await limits.acquire(tokens)
            attempt += 1
            try:
                stop.check()
                result = await self._attempt(call, failure_of, failure_in)
                if not isinstance(result, Failure):
                    limits.on_success()
                    return result
                slow_down(limits, permit, result, self._retry_timeout)
            finally:
                limits.release(permit)
            result = redacted(result, self._redactor.redact)
            now = self._loop.time()
            deadline = deadline or now + self._retry_timeout
            delay = seconds_to_wait(result, backoff_seconds(attempt), now, deadline)
            if delay is None:
                raise given_up(result, attempt, self._retry_timeout)
            limits.seconds_waited += delay
            with stop.interrupting():
                await asyncio.sleep(delay)

    async def _attempt(
        self,
        call: Callable[[], Awaitable[T]],
        failure_of: Callable[[Exception], Failure],
        failure_in: Callable[[T], Failure | None],
    ) -> T | Failure:
        try:
            async with asyncio.timeout(self._timeout) as timer:
                answer = await call()
        except StillhouseError:  # a backend's own
            raise
        except Exception as error:
            if timer.expired():
                return Failure("timeout", "no answer in time", retried=True, congestion=True, unclear=True)
            return failure_of(error)
        answered.set({})
        return failure_in(answer) or answer
