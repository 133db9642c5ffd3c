"""`LeasedLimits`: the limits of an LLM in a worker, which the process of the run keeps for all workers.

While nothing restricts requests, the worker may have its part of the concurrency in flight without asking,
and reports now and then. Otherwise it asks for every permit. All requests that wait have asked, so that the
way to the process of the run and back delays the first of them and not the others.
"""

from __future__ import annotations

import asyncio
import contextlib

from stillhouse._execution.leases import Closed, Leases, Terms, Used
from stillhouse.http.transport.buckets import BURST_SECONDS
from stillhouse.http.transport.permits import Permit, too_many_tokens

__all__ = ["LeasedLimits"]

REPORT_SECONDS = 0.05
"""How often a worker that need not ask reports accepted requests."""


class LeasedLimits:
    """Permits for the requests of one LLM of a worker. It is created and used on one event loop.

    Args:
        leases: the way to the process of the run.
        max_concurrency: how many requests of all workers may ever be in flight.
        requests_per_minute: a known quota of all workers together, or `None`.
        tokens_per_minute: the same, of input and output tokens together.
        part: the worker's part of `max_concurrency`.

    Attributes:
        in_flight: how many permits this worker holds.
        seconds_waited: how long requests have waited for permission, and before they were sent again.
        counts_tokens: whether a quota of tokens is known, set by the user or reported by the provider.
    """

    def __init__(
        self,
        leases: Leases,
        max_concurrency: int,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        part: int,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._leases = leases
        self._max_concurrency = max_concurrency
        self._max_tokens = tokens_per_minute
        self.counts_tokens = tokens_per_minute is not None
        self.seconds_waited = 0.0
        self.in_flight = 0
        self._slots = 0  # as in `Terms`
        self._permit = Permit(0)  # a permit from a slot
        self._waiting: dict[int, tuple[asyncio.Future[Permit], int]] = {}
        self._asked = 0
        self._typical_tokens = 0
        self._is_due = self._is_closed = False
        self._report: asyncio.TimerHandle | None = None
        self._number = leases.open(
            self._take_soon, max_concurrency, requests_per_minute, tokens_per_minute, part
        )
        self._news = Used(self._number, 0, 0)

    def try_acquire(self, tokens: int = 0) -> Permit | None:
        """Return permission to send a request at once, or `None` if it must wait."""
        if self.in_flight >= self._slots or self._waiting:
            return None
        self.in_flight += 1
        return self._permit

    async def acquire(self, tokens: int = 0) -> Permit:
        """Wait for permission to send a request that is estimated to use this number of tokens.

        Raises:
            GenerationError: the quota has fewer tokens.
        """
        if self._max_tokens is not None and tokens > self._max_tokens:
            raise too_many_tokens(tokens, self._max_tokens)
        permit = self.try_acquire(tokens)
        if permit is not None:
            return permit
        future: asyncio.Future[Permit] = self._loop.create_future()
        number = self._asked
        self._asked += 1
        self._waiting[number] = future, tokens
        if not self._slots:
            self._news.asked.append((number, tokens))
            self._send_soon()
        began = self._loop.time()
        try:
            permit = await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release(future.result())
            elif self._waiting.pop(number, None) is not None and not self._slots:
                self._news.cancelled.append(number)
                self._send_soon()
            raise
        self.seconds_waited += self._loop.time() - began
        return permit

    def release(self, permit: Permit) -> None:
        """Return a permit."""
        self.in_flight -= 1
        if not self._slots:
            self._news.released += 1
            self._send_soon()
        elif self._waiting:
            self._use_slots()

    def correct_tokens(self, estimated: int, used: int) -> None:
        """Replace the tokens that a request was estimated to use by those that it used.

        It matters only where `counts_tokens` is True.
        """
        self._typical_tokens = used
        if self._slots:
            self._news.corrections[:] = [(estimated, used)]  # the last one is typical
        else:
            self._news.corrections.append((estimated, used))
            self._send_soon()

    def on_success(self) -> None:
        """Count an accepted request."""
        self._news.accepted += 1
        if self._report is None:
            self._report = self._loop.call_later(REPORT_SECONDS, self._send_report)

    def on_rate_limit(self, permit: Permit, retry_after: float | None) -> None:
        """Let all workers slow down after the provider refused a request because there were too many."""
        self._news.congestions.append((True, permit.epoch, retry_after))
        self._send_soon()

    def on_overload(self, permit: Permit, retry_after: float | None) -> None:
        """Lower the concurrency of all workers after the provider was overloaded, or did not answer."""
        self._news.in_flight = max(self._news.in_flight, self.in_flight)
        self._news.congestions.append((False, permit.epoch, retry_after))
        self._send_soon()

    def update_quota(self, name: str, left: float, whole: float, reset: float, *, is_tokens: bool) -> None:
        """Pass on what a response says is left of a quota; see `Limits.update_quota`."""
        self.counts_tokens = self.counts_tokens or is_tokens
        if left >= whole or reset <= 0:
            return
        if self._slots:
            # Plenty, whatever the other workers have in flight, restricts nobody.
            each = self._typical_tokens if is_tokens else 1
            if left - self._max_concurrency * each > (whole - left) / reset * BURST_SECONDS + each:
                return
        self._news.quotas[name] = left, whole, reset, is_tokens
        self._send_soon()

    def close(self) -> None:
        """End: no request follows, and what was leased returns."""
        if not self._is_closed:
            self._send()
            self._is_closed = True
            if self._report is not None:
                self._report.cancel()
            self._leases.send(Closed(self._number))

    def _take_soon(self, terms: Terms) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._take, terms)

    def _take(self, terms: Terms) -> None:
        for number, epoch in terms.granted:
            future, _ = self._waiting.pop(number, (None, 0))
            self.in_flight += 1
            if future is None or future.done():  # cancelled
                self.release(self._permit)
            else:
                future.set_result(Permit(epoch))
        if terms.turn != self._news.turn:
            self._begin_turn(terms)

    def _begin_turn(self, terms: Terms) -> None:
        """Go by other terms. What was not yet said of single permits counts no more."""
        news = self._news
        news.turn, self._slots, self._permit = terms.turn, terms.slots, Permit(terms.epoch)
        news.released, news.cancelled = 0, []
        if self._slots:
            news.held, news.asked = None, []
            self._use_slots()
        else:
            news.held = self.in_flight
            news.asked = [(number, tokens) for number, (_, tokens) in self._waiting.items()]
            self._send_soon()

    def _use_slots(self) -> None:
        """Let requests that wait have the free slots, in their order."""
        while self._waiting and self.in_flight < self._slots:
            future, _ = self._waiting.pop(next(iter(self._waiting)))
            if not future.done():
                self.in_flight += 1
                future.set_result(self._permit)

    def _send_soon(self) -> None:
        """Send the news when this turn of the loop has ended."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._send)

    def _send_report(self) -> None:
        self._report = None
        self._send()

    def _send(self) -> None:
        self._is_due = False
        news = self._news
        if self._is_closed or news.is_empty:
            return
        news.in_flight = max(news.in_flight, self.in_flight)
        self._news = Used(self._number, news.turn, 0)
        self._leases.send(news)
