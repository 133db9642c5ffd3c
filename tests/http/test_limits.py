"""How fast an endpoint is asked, on a clock that the test turns."""

from __future__ import annotations

import asyncio

import pytest

from stillhouse.http.transport.limits import INITIAL_LIMIT, Limits
from stillhouse.http.transport.quotas import X_RATELIMIT, left_of, seconds_until
from stillhouse.http.transport.retry import retry_after_seconds
from stillhouse.offline.failures import backoff_seconds

from ..simulated import Provider, ask_until, simulate


async def drive(
    provider: Provider, limits: Limits, workers: int, seconds: float, *, tells: bool = False
) -> None:
    await asyncio.gather(*(ask_until(seconds, provider, limits, tells=tells) for _ in range(workers)))


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


def test_a_first_estimate_that_is_far_too_low_is_soon_corrected() -> None:
    provider = Provider(100, 10, 0.2)

    async def main() -> None:
        limits = Limits(256)
        await asyncio.sleep(10)  # nothing was asked yet, which says nothing of the rate
        await drive(provider, limits, 256, 60)

    simulate(main)
    counted = sum(1 for time in provider.accepted if 30 <= time < 60)
    assert counted >= 0.9 * 100 * 30


@pytest.mark.parametrize(("rate", "burst", "latency"), [(100, 6000, 0.5), (5, 300, 1.0), (400, 400, 0.2)])
def test_reported_quota_is_respected_from_the_start(rate: float, burst: float, latency: float) -> None:
    seconds = 3 * burst / rate

    def run(is_told: bool) -> Provider:
        provider = Provider(rate, burst, latency)

        async def main() -> None:
            await drive(provider, Limits(256), 256, seconds, tells=is_told)

        simulate(main)
        return provider

    tells, silent = run(True), run(False)
    assert len(tells.accepted) >= 0.9 * (burst + rate * seconds), "what is allowed is used"
    assert len(tells.refused) <= len(silent.refused) / 4


def test_a_quota_slows_nothing_down_while_there_is_plenty() -> None:
    async def main() -> tuple[float, float]:
        limits, loop = Limits(4), asyncio.get_running_loop()

        async def ask(left: float, reset: float) -> None:
            for _ in range(50):
                permit = await limits.acquire()
                limits.update_quota("requests", left, 1000, reset, is_tokens=False)
                limits.update_quota("tokens", 900_000, 1_000_000, 6.0, is_tokens=True)
                limits.release(permit)
                limits.correct_tokens(0, 10)

        await ask(500, 30.0)
        assert loop.time() == 0.0
        await ask(0, 100.0)
        slow = loop.time()
        await ask(500, 30.0)
        return slow, loop.time() - slow

    slow, fast = simulate(main)
    assert slow == pytest.approx(4.9)
    assert fast == pytest.approx(0.1)


def test_of_several_quotas_the_tightest_holds() -> None:
    async def main() -> float:
        limits = Limits(8)
        limits.release(await limits.acquire())
        limits.correct_tokens(0, 100)
        for _ in range(20):
            permit = await limits.acquire()
            limits.update_quota("tokens", 0, 6000, 60.0, is_tokens=True)  # 100 a second
            limits.update_quota("input-tokens", 50_000, 60_000, 6.0, is_tokens=True)
            limits.update_quota("requests", 999, 1000, 0.1, is_tokens=False)
            limits.release(permit)
            limits.correct_tokens(0, 100)
        return asyncio.get_running_loop().time()

    assert simulate(main) == pytest.approx(19, abs=2)


def test_remaining_quota_accounts_for_requests_in_flight() -> None:
    async def main() -> float:
        limits, loop = Limits(20), asyncio.get_running_loop()
        permits = [await limits.acquire() for _ in range(20)]
        for permit in permits:  # all had been counted when the first was answered
            limits.update_quota("requests", 3, 100, 970.0, is_tokens=False)  # one in ten seconds
            limits.release(permit)
        for _ in range(4):
            await limits.acquire()
        return loop.time()

    assert simulate(main) <= 30


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-ratelimit-remaining-requests": "1"},
        {
            "x-ratelimit-remaining-requests": "nan",
            "x-ratelimit-limit-requests": "9",
            "x-ratelimit-reset-requests": "1",
        },
        {
            "x-ratelimit-remaining-requests": "1",
            "x-ratelimit-limit-requests": "no limit",
            "x-ratelimit-reset-requests": "1",
        },
    ],
)
def test_uninformative_quota_headers_are_ignored(headers: dict[str, str]) -> None:
    assert left_of(headers, X_RATELIMIT[0]) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("120ms", 0.12),
        ("1h2m3.5s", 3723.5),
        ("7.66", 7.66),
        ("2024-01-01T00:00:30Z", 30.0),
        ("2024-01-01T00:00:30", None),
        ("soon", None),
        ("", None),
        ("1s!", None),
    ],
)
def test_when_a_quota_is_full_again(text: str, seconds: float | None) -> None:
    assert seconds_until(text, now=1704067200.0) == seconds


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
                limits.on_success()
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
            limits.release(await limits.acquire(tokens=500))
            limits.correct_tokens(500, 100)
        return loop.time()

    # 100 requests of 100 tokens each take 100 s of the quota; of 500 each they would take 500 s.
    assert 90 <= simulate(main) <= 110


def test_a_corrected_estimate_lets_the_requests_that_wait_go_earlier() -> None:
    async def main() -> float:
        limits = Limits(8, tokens_per_minute=6000)

        async def work() -> None:
            for _ in range(25):
                limits.release(await limits.acquire(tokens=500))
                limits.correct_tokens(500, 100)

        await asyncio.gather(*(work() for _ in range(4)))
        return asyncio.get_running_loop().time()

    assert 90 <= simulate(main) <= 110


def test_concurrency_window_grows_slowly_and_shrinks_once_per_congestion() -> None:
    async def main() -> None:
        limits = Limits(1000)
        assert limits.limit == INITIAL_LIMIT
        permits = [await limits.acquire() for _ in range(INITIAL_LIMIT)]
        for permit in permits:
            limits.on_success()
            limits.release(permit)
        assert limits.limit == 2 * INITIAL_LIMIT
        permits = [await limits.acquire() for _ in range(10)]
        for permit in permits:
            limits.on_overload(permit, None)
            limits.release(permit)
        assert limits.limit == pytest.approx(11 * 0.7)

    simulate(main)


def test_the_time_that_requests_wait_is_counted() -> None:
    async def main() -> None:
        limits = Limits(1)
        permit = await limits.acquire()
        assert limits.seconds_waited == 0
        waiting = asyncio.create_task(limits.acquire())
        await asyncio.sleep(3)
        limits.release(permit)
        limits.release(await waiting)
        assert limits.seconds_waited == pytest.approx(3)

    simulate(main)


def test_waiting_requests_are_admitted_in_order_and_cancelled_ones_skipped() -> None:
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


def test_backoff_is_random_below_a_bound_that_doubles() -> None:
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
