"""How fast an endpoint is asked: concurrency, pace, quotas and pauses, for all its requests together.

Everything here runs on one event loop and takes no lock. A request that may start at once costs a
few comparisons and no task, no timer and no future.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

__all__ = ["Limits", "Permit"]

# The window opens from here, one more for each success, as TCP's does, until the first congestion.
FIRST_LIMIT = 32
DECREASE = 0.7

# A provider that refuses has shown its rate: what it accepted since it last refused. From just below
# that rate the pace grows again, by twice as much each time, so that a raised quota and a wrong
# estimate are found out. After the first refusal, when little is known, it begins with much and after
# a second; after each further one with half of that and later, so that few requests are refused.
PACE_MARGIN = 0.98
PACE_DECREASE = 0.95
FIRST_GROWTH = 0.01
MOST_GROWTH = 0.25
GROWTH_SECONDS = 5.0
LEAST_PATIENCE = 1.0
FEWEST_ACCEPTED = 10

# A timer is late now and then; so much is made up for at once.
LATENESS_SECONDS = 0.01

# How much of a quota per minute may be used at once.
BURST_SECONDS = 5.0


@dataclass(slots=True)
class Permit:
    """Leave to send one request.

    Attributes:
        epoch: how many congestions there had been when it was given.
        tokens: what was taken from the token quota for it.
    """

    epoch: int
    tokens: int


class _Bucket:
    """A quota per minute that refills evenly. It may be overdrawn by one request, and waits for it."""

    def __init__(self, per_second: float, now: float) -> None:
        self.refill(per_second)
        self._level = self.capacity
        self._updated = now

    def refill(self, per_second: float) -> None:
        """Set how fast it refills."""
        self.rate = per_second
        self.capacity = max(1.0, self.rate * BURST_SECONDS)

    def measured(self, level: float, now: float, *, is_exact: bool) -> None:
        """There is this in it, or if that is not exact, perhaps more."""
        self.wait(0, now)
        self._level = min(self.capacity, level) if is_exact else min(self._level, level)

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken; more than the capacity needs a full bucket."""
        self._level = min(self.capacity, self._level + (now - self._updated) * self.rate)
        self._updated = now
        missing = min(amount, self.capacity) - self._level
        return missing / self.rate if missing > 1e-9 else 0.0

    def take(self, amount: float) -> None:
        self._level -= amount

    def correct(self, estimated: float, actual: float) -> None:
        """What was taken turned out to be another amount."""
        self._level = min(self.capacity, self._level + estimated - actual)


class Limits:
    """Permits for the requests of one LLM.

    Args:
        max_concurrency: how many requests may ever be in flight.
        requests_per_minute: a known quota, or `None`.
        tokens_per_minute: a known quota of input and output tokens together, or `None`.
    """

    def __init__(
        self,
        max_concurrency: int,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._most = max_concurrency
        self.limit = float(min(FIRST_LIMIT, max_concurrency))
        self.in_flight = 0
        self._slow_start = True
        self._epoch = 0
        self._requests = _Bucket(requests_per_minute / 60, now) if requests_per_minute else None
        self._tokens = _Bucket(tokens_per_minute / 60, now) if tokens_per_minute else None
        self._told: dict[str, tuple[_Bucket, bool]] = {}  # those with little left; whether of tokens
        self._typical_tokens = 0.0  # of a request
        self._pace: float | None = None  # requests per second
        self._next_start = 0.0
        self._pace_grows_at = 0.0
        # The first estimate is made of little, and soon corrected; each refusal makes it surer.
        self._caution = MOST_GROWTH, LEAST_PATIENCE
        self._growth, self._patience = self._caution
        self._sustained = 0.0  # the pace before it last grew
        self._period_started = now
        self._accepted = 0
        self._paused_until = 0.0
        self._waiting: deque[tuple[asyncio.Future[Permit], int]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def pace(self) -> float | None:
        """The learned pace in requests per second; `None` while no request was refused."""
        return self._pace

    async def acquire(self, tokens: int = 0) -> Permit:
        """Wait for leave to send a request that is estimated to use so many tokens."""
        if not self._waiting:
            wait = self._wait(tokens)
            if wait == 0.0:
                return self._grant(tokens)
            if wait > 0:
                self._wake_in(wait)
        future: asyncio.Future[Permit] = self._loop.create_future()
        self._waiting.append((future, tokens))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release(future.result())
            raise

    def release(self, permit: Permit, used_tokens: int | None = None) -> None:
        """Give a permit back, with the tokens that the request really used, if that is known."""
        self.in_flight -= 1
        if used_tokens is not None:
            self._typical_tokens = used_tokens
            if self._tokens is not None:
                self._tokens.correct(permit.tokens, used_tokens)
        if self._waiting:
            self._admit()

    def succeeded(self) -> None:
        """A request was accepted and answered."""
        self._accepted += 1
        if self.limit < self._most:
            self.limit = min(self._most, self.limit + (1.0 if self._slow_start else 1.0 / self.limit))

    def refused(self, permit: Permit, retry_after: float | None) -> None:
        """The provider refused a request because there were too many."""
        now = self._loop.time()
        if self._is_news(permit):
            self.limit = max(1.0, self.limit * DECREASE)
            elapsed = now - self._period_started
            if self._accepted >= FEWEST_ACCEPTED and elapsed > 0:
                self._pace = PACE_MARGIN * max(self._accepted / elapsed, self._sustained)
                self._period_started, self._accepted, self._sustained = now, 0, 0.0
            elif self._pace is not None:  # too few to tell a rate from; they count on
                self._pace *= PACE_DECREASE
            self._growth, self._patience = growth, patience = self._caution
            self._pace_grows_at = now + patience
            if self._pace is not None:
                self._caution = max(FIRST_GROWTH, growth / 2), min(GROWTH_SECONDS, 2 * patience)
        if retry_after:
            self._paused_until = max(self._paused_until, now + retry_after)

    def overloaded(self, permit: Permit, retry_after: float | None) -> None:
        """The provider could not cope with a request: it was overloaded, or did not answer."""
        if self._is_news(permit):
            self.limit = max(1.0, min(self.limit, self.in_flight + 1) * DECREASE)
        if retry_after:
            self._paused_until = max(self._paused_until, self._loop.time() + retry_after)

    def told(self, name: str, left: float, whole: float, reset: float, *, is_tokens: bool) -> None:
        """An answer says what is left of a quota; requests slow down before they are refused.

        A quota refills evenly, so that what was used of it and the time until it is full again tell how
        fast. What is in flight may not have been counted yet. As soon as there is plenty again, the
        quota slows nothing down.

        Args:
            name: which quota.
            left: what is left of it.
            whole: the whole of it.
            reset: seconds until it is full again.
            is_tokens: whether it is one of tokens, or else of requests.
        """
        if left >= whole or reset <= 0:
            return
        rate = (whole - left) / reset
        each = self._typical_tokens if is_tokens else 1.0
        spare = left - (self.in_flight - 1) * each
        if spare > rate * BURST_SECONDS + each:
            self._told.pop(name, None)
            return
        now = self._loop.time()
        bucket, _ = self._told.get(name) or (_Bucket(rate, now), is_tokens)
        bucket.refill(rate)
        bucket.measured(spare, now, is_exact=self.in_flight <= 1)
        self._told[name] = (bucket, is_tokens)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _is_news(self, permit: Permit) -> bool:
        """Whether this congestion began after the last one was answered: one decrease for each."""
        self._slow_start = False
        if permit.epoch < self._epoch:
            return False
        self._epoch += 1
        return True

    def _wait(self, tokens: int) -> float:
        """Seconds until a request may start; -1 if only another's end can tell."""
        if self.in_flight >= int(self.limit):
            return -1.0
        if (
            self._paused_until == 0.0
            and self._pace is None
            and self._requests is self._tokens is None
            and not self._told
        ):
            return 0.0
        now = self._loop.time()
        wait = max(0.0, self._paused_until - now)
        if self._pace is not None:
            if now >= self._pace_grows_at:
                self._sustained = self._pace
                self._pace *= 1 + self._growth
                self._growth = min(MOST_GROWTH, 2 * self._growth)
                self._pace_grows_at = now + self._patience
            wait = max(wait, self._next_start - now)
        if self._requests is not None:
            wait = max(wait, self._requests.wait(1, now))
        if self._tokens is not None:
            wait = max(wait, self._tokens.wait(tokens, now))
        for bucket, is_tokens in self._told.values():
            wait = max(wait, bucket.wait(self._typical_tokens if is_tokens else 1, now))
        return wait

    def _grant(self, tokens: int) -> Permit:
        self.in_flight += 1
        if self._pace is not None:
            earliest = self._loop.time() - LATENESS_SECONDS
            self._next_start = max(self._next_start, earliest) + 1 / self._pace
        if self._requests is not None:
            self._requests.take(1)
        if self._tokens is not None:
            self._tokens.take(tokens)
        for bucket, is_tokens in self._told.values():
            bucket.take(self._typical_tokens if is_tokens else 1)
        return Permit(self._epoch, tokens)

    def _admit(self) -> None:
        """Let those in that may start, in the order in which they came."""
        waiting = self._waiting
        while waiting:
            future, tokens = waiting[0]
            if future.done():  # cancelled
                waiting.popleft()
                continue
            wait = self._wait(tokens)
            if wait == 0.0:
                waiting.popleft()
                future.set_result(self._grant(tokens))
                continue
            if wait > 0:
                self._wake_in(wait)
            return

    def _wake_in(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(max(seconds, 0.001), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._admit()
