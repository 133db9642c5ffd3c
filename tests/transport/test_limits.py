"""How fast an endpoint is asked, on a clock that the test turns."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from stillhouse.http.limits import FIRST_LIMIT, Limits
from stillhouse.http.retry import backoff_seconds, retry_after_seconds


class _Jumping(selectors.DefaultSelector):
    """Never waits: the time it would have waited has passed."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.passed += timeout or 0.0
        return super().select(0)


def simulate(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine in simulated time: hours pass in moments, and always the same."""
    selector = _Jumping()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.passed  # type: ignore[method-assign]
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


class Provider:
    """Accepts so many requests per second, from a bucket of its own, and answers after a while."""

    def __init__(self, rate: float, burst: float, latency: float) -> None:
        self.rate, self.burst, self.latency = rate, burst, latency
        self.level, self.updated = burst, 0.0
        self.accepted: list[float] = []
        self.refused: list[float] = []

    async def ask(self) -> bool:
        now = asyncio.get_running_loop().time()
        self.level = min(self.burst, self.level + (now - self.updated) * self.rate)
        self.updated = now
        if self.level < 1:
            self.refused.append(now)
            await asyncio.sleep(self.latency / 10)
            return False
        self.level -= 1
        self.accepted.append(now)
        await asyncio.sleep(self.latency)
        return True


async def drive(provider: Provider, limits: Limits, workers: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()

    async def work() -> None:
        attempt = 0
        while loop.time() < seconds:
            permit = await limits.acquire()
            fine = await provider.ask()
            attempt = 0 if fine else attempt + 1
            if fine:
                limits.succeeded()
            else:
                limits.refused(permit, None)
            limits.release(permit)
            if not fine:
                await asyncio.sleep(backoff_seconds(attempt, 0.5))

    await asyncio.gather(*(work() for _ in range(workers)))


@pytest.mark.parametrize(
    ("rate", "burst", "latency"), [(100, 100, 0.5), (20, 5, 1.0), (400, 50, 0.2), (50, 1, 0.1)]
)
def test_a_hidden_rate_limit_is_found_and_kept(rate: float, burst: float, latency: float) -> None:
    provider = Provider(rate, burst, latency)

    async def main() -> None:
        await drive(provider, Limits(256), 256, 300)

    simulate(main)
    settled = 60.0
    accepted = sum(1 for time in provider.accepted if settled <= time < 300)
    refused = sum(1 for time in provider.refused if settled <= time < 300)
    assert accepted / (300 - settled) >= 0.9 * rate
    assert refused / (accepted + refused) < 0.01


def test_a_known_quota_is_never_overrun() -> None:
    starts = []

    async def main() -> None:
        limits = Limits(64, requests_per_minute=600)
        loop = asyncio.get_running_loop()

        async def work() -> None:
            while loop.time() < 120:
                permit = await limits.acquire()
                starts.append(loop.time())
                await asyncio.sleep(0.3)
                limits.succeeded()
                limits.release(permit)

        await asyncio.gather(*(work() for _ in range(64)))

    simulate(main)
    for first in range(60):
        within = sum(1 for time in starts if first <= time < first + 60)
        assert within <= 600 + 50 + 1
    assert len(starts) >= 0.95 * 1200


def test_a_token_quota_is_corrected_by_what_was_used() -> None:
    async def main() -> float:
        limits = Limits(8, tokens_per_minute=6000)
        loop = asyncio.get_running_loop()
        for _ in range(100):
            permit = await limits.acquire(tokens=500)
            limits.release(permit, used_tokens=100)
        return loop.time()

    # 100 requests of 100 tokens each take 100 s of the quota; of 500 each they would take 500 s.
    assert 90 <= simulate(main) <= 110


def test_the_window_opens_slowly_and_closes_once_per_congestion() -> None:
    async def main() -> None:
        limits = Limits(1000)
        assert limits.limit == FIRST_LIMIT
        permits = [await limits.acquire() for _ in range(FIRST_LIMIT)]
        for permit in permits:
            limits.succeeded()
            limits.release(permit)
        assert limits.limit == 2 * FIRST_LIMIT
        permits = [await limits.acquire() for _ in range(10)]
        for permit in permits:
            limits.overloaded(permit, None)
            limits.release(permit)
        assert limits.limit == pytest.approx(11 * 0.7)

    simulate(main)


def test_who_waits_is_let_in_in_order_and_a_cancelled_one_takes_nothing() -> None:
    async def main() -> None:
        limits = Limits(1)
        first = await limits.acquire()
        order: list[int] = []

        async def wait(number: int) -> None:
            permit = await limits.acquire()
            order.append(number)
            limits.release(permit)

        tasks = [asyncio.create_task(wait(number)) for number in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        limits.release(first)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [0, 2]
        assert limits.in_flight == 0

    simulate(main)


def test_waiting_time_is_any_part_of_a_bound_that_doubles() -> None:
    bounds = [backoff_seconds(attempt, 1.0) for attempt in range(1, 10)]
    assert bounds == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert backoff_seconds(3, 0.0) == 0
    assert len({backoff_seconds(4) for _ in range(50)}) > 40


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 60),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:10 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({}, None),
    ],
)
def test_both_forms_of_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers, now=40.0) == seconds
