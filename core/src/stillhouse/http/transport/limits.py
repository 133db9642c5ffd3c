"""`Limits`: concurrency, pace, quotas and pauses of all requests to one endpoint.

Everything here runs on one event loop and takes no lock. A request that may start at once costs a
few comparisons and no task, no timer and no future.
"""

from __future__ import annotations

import asyncio
from collections import deque

from stillhouse.http.transport.buckets import BURST_SECONDS, Bucket
from stillhouse.http.transport.permits import Permit, too_many_tokens

__all__ = ["INITIAL_LIMIT", "Limits"]

# The window opens from here, one more for each success, as TCP's does, until the first congestion.
INITIAL_LIMIT = 32
DECREASE = 0.7

# A provider that refuses a request has shown its rate: what it accepted since its last refusal. From
# just below that rate the pace grows again, by twice as much each time, so that a raised quota and a
# wrong estimate are discovered. After the first refusal, when little is known, growth starts large and
# after one second; after each further refusal it starts half as large and later, so that few requests
# are refused.
PACE_MARGIN = 0.98
PACE_DECREASE = 0.95
MIN_GROWTH = 0.01
MAX_GROWTH = 0.25
MAX_PATIENCE_SECONDS = 5.0
MIN_PATIENCE_SECONDS = 1.0
MIN_ACCEPTED = 10

# A timer is late now and then; at most this delay is made up for at once.
LATENESS_SECONDS = 0.01


class Limits:
    """Permits for the requests of one LLM.

    Args:
        max_concurrency: how many requests may ever be in flight.
        requests_per_minute: a known quota, or `None`.
        tokens_per_minute: a known quota of input and output tokens together, or `None`.

    Attributes:
        in_flight: how many permits are granted.
        unused: how many of them are known to have no request: workers hold them in advance.
        epoch: how many congestions there have been.
        seconds_waited: how long requests have waited for permission, and before they were sent again.
        counts_tokens: whether a quota of tokens is known, set by the user or told by the provider.
    """

    def __init__(
        self,
        max_concurrency: int,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._max_concurrency = max_concurrency
        self.limit = float(min(INITIAL_LIMIT, max_concurrency))
        self.in_flight = self.unused = 0
        self._slow_start = True
        self.epoch = 0
        self._requests = Bucket(requests_per_minute / 60, now) if requests_per_minute else None
        self._tokens = Bucket(tokens_per_minute / 60, now) if tokens_per_minute else None
        self._max_tokens = tokens_per_minute or 0.0
        self.counts_tokens = self._tokens is not None
        self.seconds_waited = 0.0
        self._quotas: dict[str, tuple[Bucket, bool]] = {}  # those with little left; whether of tokens
        self._typical_tokens = 0.0  # of a request
        self._pace: float | None = None  # requests per second
        self._next_start = 0.0
        self._pace_grows_at = 0.0
        # The first estimate rests on little, and is soon corrected; each refusal makes it more certain.
        self._caution = MAX_GROWTH, MIN_PATIENCE_SECONDS
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

    @property
    def is_open(self) -> bool:
        """Whether nothing but `max_concurrency` restricts requests."""
        return (
            self.limit >= self._max_concurrency
            and self._pace is None
            and self._requests is self._tokens is None
            and not self._quotas
            and self._paused_until <= self._loop.time()
        )

    def try_acquire(self, tokens: int = 0) -> Permit | None:
        """Return permission to send a request at once, or `None` if it must wait.

        Like `acquire`, it raises a `GenerationError` for more tokens than the quota has.
        """
        return None if self._waiting or self._wait(tokens) else self._grant(tokens)

    async def acquire(self, tokens: int = 0) -> Permit:
        """Wait for permission to send a request that is estimated to use this number of tokens."""
        future = self.enqueue(tokens)
        if future.done():
            return future.result()
        began = self._loop.time()
        try:
            permit = await future
            self.seconds_waited += self._loop.time() - began
            return permit
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release(future.result())
            raise

    def enqueue(self, tokens: int = 0) -> asyncio.Future[Permit]:
        """Return a future for permission, which may be done. Cancel it to give up; then call `admit`."""
        if self._tokens is not None and tokens > self._max_tokens:
            raise too_many_tokens(tokens, self._max_tokens)
        future: asyncio.Future[Permit] = self._loop.create_future()
        self._waiting.append((future, tokens))
        if len(self._waiting) == 1:
            self.admit()
        return future

    def release(self, permit: Permit) -> None:
        """Return a permit."""
        self.in_flight -= 1
        if self._waiting:
            self.admit()

    def correct_tokens(self, estimated: int, used: int) -> None:
        """Replace the tokens that a request was estimated to use by those that it used.

        It matters only where `counts_tokens` is True.
        """
        self._typical_tokens = used
        if self._tokens is not None:
            self._tokens.correct(estimated, used)
            if self._waiting:
                self.admit()

    def on_success(self, count: int = 1) -> None:
        """Count accepted requests."""
        self._accepted += count
        if self.limit < self._max_concurrency:
            self.limit = min(
                self._max_concurrency, self.limit + (count if self._slow_start else count / self.limit)
            )

    def on_rate_limit(self, permit: Permit, retry_after: float | None) -> None:
        """Slow down after the provider refused a request because there were too many."""
        now = self._loop.time()
        if self._is_new_congestion(permit):
            self.limit = max(1.0, self.limit * DECREASE)
            elapsed = now - self._period_started
            if self._accepted >= MIN_ACCEPTED and elapsed > 0:
                self._pace = PACE_MARGIN * max(self._accepted / elapsed, self._sustained)
                self._period_started, self._accepted, self._sustained = now, 0, 0.0
            elif self._pace is not None:  # too few for a rate; they stay counted
                self._pace *= PACE_DECREASE
            self._growth, self._patience = growth, patience = self._caution
            self._pace_grows_at = now + patience
            if self._pace is not None:
                self._caution = max(MIN_GROWTH, growth / 2), min(MAX_PATIENCE_SECONDS, 2 * patience)
        if retry_after:
            self._paused_until = max(self._paused_until, now + retry_after)

    def on_overload(self, permit: Permit, retry_after: float | None) -> None:
        """Lower the concurrency after the provider was overloaded, or did not answer."""
        if self._is_new_congestion(permit):
            self.limit = max(1.0, min(self.limit, self.in_flight - self.unused + 1) * DECREASE)
        if retry_after:
            self._paused_until = max(self._paused_until, self._loop.time() + retry_after)

    def update_quota(self, name: str, left: float, whole: float, reset: float, *, is_tokens: bool) -> None:
        """Record what a response says is left of a quota, so that requests slow down before they are refused.

        A quota refills evenly, so that the used part of it and the time until it is full again give the
        rate. Requests in flight may not have been counted yet. As soon as there is plenty again, the
        quota slows nothing down.

        Args:
            name: the name of the quota.
            left: what is left of it.
            whole: the whole of it.
            reset: seconds until it is full again.
            is_tokens: whether it is one of tokens, or else of requests.
        """
        self.counts_tokens = self.counts_tokens or is_tokens
        if left >= whole or reset <= 0:
            return
        rate = (whole - left) / reset
        each = self._typical_tokens if is_tokens else 1.0
        in_flight = self.in_flight - self.unused
        spare = left - (in_flight - 1) * each
        if spare > rate * BURST_SECONDS + each:
            self._quotas.pop(name, None)
            return
        now = self._loop.time()
        bucket, _ = self._quotas.get(name) or (Bucket(rate, now), is_tokens)
        bucket.set_rate(rate)
        bucket.set_level(spare, now, is_exact=in_flight <= 1)
        self._quotas[name] = (bucket, is_tokens)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _is_new_congestion(self, permit: Permit) -> bool:
        """Return whether this congestion began after the last decrease: each congestion decreases once."""
        self._slow_start = False
        if permit.epoch < self.epoch:
            return False
        self.epoch += 1
        return True

    def _wait(self, tokens: int) -> float:
        """Return the seconds until a request may start; -1 if it must wait for another to end."""
        if self.in_flight >= int(self.limit):
            return -1.0
        if (
            self._paused_until == 0.0
            and self._pace is None
            and self._requests is self._tokens is None
            and not self._quotas
        ):
            return 0.0
        now = self._loop.time()
        wait = max(0.0, self._paused_until - now)
        if self._pace is not None:
            if now >= self._pace_grows_at:
                self._sustained = self._pace
                self._pace *= 1 + self._growth
                self._growth = min(MAX_GROWTH, 2 * self._growth)
                self._pace_grows_at = now + self._patience
            wait = max(wait, self._next_start - now)
        if self._requests is not None:
            wait = max(wait, self._requests.wait(1, now))
        if self._tokens is not None:
            if tokens > self._max_tokens:
                raise too_many_tokens(tokens, self._max_tokens)
            wait = max(wait, self._tokens.wait(tokens, now))
        for bucket, is_tokens in self._quotas.values():
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
        for bucket, is_tokens in self._quotas.values():
            bucket.take(self._typical_tokens if is_tokens else 1)
        return Permit(self.epoch)

    def admit(self) -> None:
        """Grant permits to waiting requests that may start, in their order."""
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
        at = self._loop.time() + max(seconds, 0.001)
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()  # an estimate was corrected, and the quota has more than was thought
        self._timer = self._loop.call_at(at, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self.admit()
