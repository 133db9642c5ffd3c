"""Event loops whose time the test turns, and providers that limit requests in it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from stillhouse.offline.failures import backoff_seconds


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

    def left(self) -> tuple[float, float, float]:
        """What its headers would say: what is left, the whole, and when it is full again."""
        level = max(0.0, float(int(self.level)))
        return level, self.burst, (self.burst - level) / self.rate


async def ask_until(seconds: float, provider: Provider, limits: Any, *, tells: bool = False) -> None:
    """Send one request after the other until a time; one that is refused, later again.

    Args:
        seconds: the time of the loop at which none is begun any more.
        provider: who is asked.
        limits: of the requests, as `RequestLimits`.
        tells: whether answers say what is left of the quota.
    """
    loop = asyncio.get_running_loop()
    attempt = 0
    while loop.time() < seconds:
        permit = await limits.acquire()
        is_accepted = await provider.ask()
        attempt = 0 if is_accepted else attempt + 1
        if is_accepted:
            limits.on_success()
            if tells:
                limits.update_quota("requests", *provider.left(), is_tokens=False)
        else:
            limits.on_rate_limit(permit, None)
        limits.release(permit)
        if not is_accepted:
            await asyncio.sleep(backoff_seconds(attempt, 0.5))
