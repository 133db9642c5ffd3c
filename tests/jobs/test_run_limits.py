"""The limits of a run, leased by workers that are objects here, in simulated time."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stillhouse
from stillhouse import GenerationError
from stillhouse._execution.leases import Closed, Leases, Opened, Terms, Used
from stillhouse._execution.share import Share
from stillhouse._execution.stopping import Stop
from stillhouse.http.transport.leased import LeasedLimits
from stillhouse.http.transport.limits import INITIAL_LIMIT, Limits
from stillhouse.http.transport.permits import Permit, RequestLimits
from stillhouse.jobs.executors.hosted import OPEN_SECONDS, HostedLimits
from stillhouse.jobs.executors.messages import Died
from stillhouse.jobs.executors.run_limits import RunLimits

from ..simulated import Provider, ask_until, simulate
from .conftest import Server, read_jsonl

LATENCY = 0.003


class Line:
    """Delivers messages in their order, each after a while, as copies."""

    def __init__(self, deliver: Callable[[Any], None]) -> None:
        self._deliver = deliver
        self._messages: deque[bytes] = deque()
        self.is_cut = False
        self.sent = 0

    def send(self, message: Any) -> None:
        self.sent += 1
        self._messages.append(pickle.dumps(message))
        asyncio.get_running_loop().call_later(LATENCY, self._next)

    def _next(self) -> None:
        message = pickle.loads(self._messages.popleft())
        if not self.is_cut:
            self._deliver(message)


class Crew:
    """Workers of a run that lease its limits.

    Attributes:
        limits: of the living workers.
        host: of the run.
    """

    def __init__(self, count: int, max_concurrency: int, **quotas: float | None) -> None:
        self._count, self._max_concurrency, self._quotas = count, max_concurrency, quotas
        self.limits: dict[int, LeasedLimits] = {}
        self.host: HostedLimits
        self.lines: dict[int, tuple[Line, Line]] = {}
        self._started = 0
        for number in range(count):
            self.start(number)

    def start(self, number: int) -> int:
        """Start the worker with one of the parts, and return which one it is."""
        worker = self._started
        self._started += 1
        to_worker = Line(lambda terms: leases.take(terms))
        to_run = Line(lambda message: self._take(worker, message, to_worker.send))
        leases = Leases(to_run.send)
        part = Share(number, self._count).of(self._max_concurrency)
        self.lines[worker] = to_worker, to_run
        quotas = self._quotas
        self.limits[worker] = LeasedLimits(
            leases, self._max_concurrency, quotas.get("requests"), quotas.get("tokens"), part
        )
        return worker

    def _take(self, worker: int, message: Any, send: Callable[[Terms], None]) -> None:
        if isinstance(message, Opened):
            if not hasattr(self, "host"):
                self.host = HostedLimits(message)
            self.host.join(worker, message, send)
        elif isinstance(message, Closed):
            self.host.leave(worker)
        else:
            assert isinstance(message, Used)
            self.host.take(worker, message)

    def kill(self, worker: int) -> None:
        """End a worker without a word. The run notices it later."""
        for line in self.lines[worker]:
            line.is_cut = True
        del self.limits[worker]
        asyncio.get_running_loop().call_later(LATENCY, self.host.leave, worker)

    @property
    def in_flight(self) -> int:
        return sum(limits.in_flight for limits in self.limits.values())

    def check(self, *, is_idle: bool = False) -> None:
        """Compare what the workers have with what the run knows of them.

        Args:
            is_idle: whether all requests have ended, and all messages have arrived.
        """
        assert self.in_flight <= self._max_concurrency
        tenants = self.host._tenants
        assert sum(tenant.permits for tenant in tenants.values()) <= self.host._limits.in_flight
        for worker, limits in self.limits.items():
            tenant = tenants.get(worker)
            assert limits.in_flight <= (tenant.permits if tenant else 0)
            if is_idle:
                assert tenant is not None
                assert not tenant.asked
                assert limits.in_flight == 0
                assert tenant.permits == limits._slots == (tenant.opened.part if tenant.has_slots else 0)


def simulated(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        simulate(test)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


async def settle() -> None:
    """Wait until every message has arrived and been answered."""
    await asyncio.sleep(20 * LATENCY)


async def opened(count: int = 2, max_concurrency: int = 8) -> Crew:
    crew = Crew(count, max_concurrency)
    await settle()
    return crew


@simulated
async def test_while_nothing_restricts_requests_no_permit_is_asked_for() -> None:
    crew = await opened()
    sent = [line.sent for lines in crew.lines.values() for line in lines]
    for limits in crew.limits.values():
        permits = [limits.try_acquire() for _ in range(5)]
        assert [permit is not None for permit in permits] == [True] * 4 + [False]
        for permit in permits[:4]:
            assert permit is not None
            limits.release(permit)
    assert [line.sent for lines in crew.lines.values() for line in lines] == sent


@simulated
async def test_workers_of_a_wide_window_begin_with_that_of_one_process() -> None:
    crew = await opened(2, 100)
    asked = [asyncio.create_task(crew.limits[n % 2].acquire()) for n in range(100)]
    await settle()
    assert crew.in_flight == INITIAL_LIMIT
    while not all(task.done() for task in asked):
        for task in [task for task in asked if task.done()]:
            asked.remove(task)
            limits = crew.limits[len(asked) % 2]
            limits.on_success()
            limits.release(task.result())
        await settle()
        assert crew.in_flight <= 100
    await asyncio.sleep(2 * OPEN_SECONDS)
    crew.limits[0].on_success()
    await settle()
    assert crew.limits[0].try_acquire() is not None, "all of the window is open"


@simulated
async def test_a_pause_told_to_one_holds_for_all() -> None:
    crew, loop = await opened(), asyncio.get_running_loop()
    permit = crew.limits[0].try_acquire()
    assert permit is not None
    told = loop.time()
    crew.limits[0].on_rate_limit(permit, 30.0)
    crew.limits[0].release(permit)
    await settle()
    assert crew.limits[1].try_acquire() is None
    waiting = [asyncio.create_task(limits.acquire()) for limits in crew.limits.values() for _ in range(2)]
    await asyncio.gather(*waiting)
    assert told + 30 <= loop.time() <= told + 30 + 1
    assert all(task.result().epoch == 1 for task in waiting)


@simulated
async def test_each_congestion_lowers_the_limit_once_for_all_workers() -> None:
    crew = await opened(4, 32)
    granted = [(limits, limits.try_acquire()) for limits in crew.limits.values() for _ in range(8)]
    for limits, permit in granted:
        assert permit is not None
        limits.on_overload(permit, None)
        limits.release(permit)
    await settle()
    assert crew.host._limits.limit == pytest.approx(32 * 0.7)
    assert crew.host._limits.epoch == 1


@simulated
async def test_overload_of_workers_that_use_little_lowers_the_limit_to_what_they_use() -> None:
    crew = await opened(4, 400)
    for _ in range(5):  # until all of the window is open
        crew.limits[0]._news.accepted += 400
        crew.limits[0]._send_soon()
        await asyncio.sleep(OPEN_SECONDS)
    permits = [(limits, limits.try_acquire()) for limits in crew.limits.values() for _ in range(5)]
    for limits, permit in permits:
        assert permit is not None
        limits.on_success()
    await asyncio.sleep(OPEN_SECONDS)
    limits, permit = permits[0]
    assert permit is not None
    limits.on_overload(permit, None)
    await settle()
    assert crew.host._limits.limit == pytest.approx(21 * 0.7)


@simulated
async def test_what_a_dead_worker_held_returns() -> None:
    crew = await opened(2, 4)
    permit = crew.limits[0].try_acquire()
    assert permit is not None
    crew.limits[0].on_rate_limit(permit, 5.0)
    crew.limits[0].release(permit)
    await settle()
    held = [asyncio.create_task(crew.limits[1].acquire()) for _ in range(10)]
    await asyncio.sleep(6)
    taken = crew.limits[1].in_flight
    assert 1 <= taken <= 2
    waiting = asyncio.create_task(crew.limits[0].acquire())
    await settle()
    assert not waiting.done()
    crew.kill(1)
    await settle()
    assert waiting.done()
    assert crew.host._limits.in_flight == 1
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    crew.start(1)
    await settle()
    assert crew.host._limits.in_flight == 1


@simulated
async def test_requests_that_wait_are_admitted_in_their_order_and_cancelled_ones_skipped() -> None:
    crew, order = await opened(2, 2), list[int]()
    permit = await crew.limits[0].acquire()
    crew.limits[0].on_overload(permit, None)
    await settle()
    assert crew.host._limits.limit == pytest.approx(2 * 0.7)

    async def ask(number: int) -> None:
        limits = crew.limits[number % 2]
        given = await limits.acquire()
        order.append(number)
        limits.release(given)

    tasks = []
    for number in range(6):
        tasks.append(asyncio.create_task(ask(number)))
        await settle()
    tasks[2].cancel()
    tasks[3].cancel()
    await settle()
    crew.limits[0].release(permit)
    await asyncio.gather(*tasks, return_exceptions=True)
    await settle()
    assert order == [0, 1, 4, 5]
    assert crew.in_flight == crew.host._limits.in_flight == 0


@simulated
async def test_a_stop_ends_requests_that_wait_also_where_the_run_is_silent() -> None:
    crew = await opened(1, 1)
    limits = crew.limits[0]
    permit = await limits.acquire()
    crew.lines[0][0].is_cut = True
    stop = Stop()

    async def wait() -> None:
        with stop.interrupting():
            await limits.acquire()

    task = asyncio.create_task(wait())
    await settle()
    stop.request()
    with pytest.raises(asyncio.CancelledError):
        await task
    limits.release(permit)
    limits.close()


@simulated
async def test_a_quota_of_tokens_is_that_of_all_workers_and_corrected() -> None:
    crew, loop = Crew(4, 32, tokens=6000), asyncio.get_running_loop()

    async def work(limits: LeasedLimits) -> None:
        for _ in range(25):
            limits.release(await limits.acquire(500))
            limits.correct_tokens(500, 100)

    await asyncio.gather(*(work(limits) for limits in crew.limits.values()))
    assert 85 <= loop.time() <= 115  # 100 requests of 100 tokens; of 500 each they would take 500 s


@simulated
async def test_a_known_quota_is_kept_by_all_workers_together() -> None:
    crew, loop, starts = Crew(4, 64, requests=600), asyncio.get_running_loop(), list[float]()

    async def work(limits: LeasedLimits) -> None:
        while loop.time() < 120:
            permit = await limits.acquire()
            starts.append(loop.time())
            await asyncio.sleep(0.3)
            limits.on_success()
            limits.release(permit)

    await asyncio.gather(*(work(crew.limits[number % 4]) for number in range(64)))
    for first in range(60):
        assert sum(1 for time in starts if first <= time < first + 60) <= 600 + 50 + 1
    assert len(starts) >= 0.95 * 1200


@simulated
async def test_little_left_of_a_quota_restricts_all_and_plenty_nobody() -> None:
    crew = await opened(2, 8)
    permit = await crew.limits[0].acquire()
    crew.limits[0].update_quota("requests", 900, 1000, 10.0, is_tokens=False)
    await settle()
    assert crew.limits[1].try_acquire() is not None
    crew.limits[0].update_quota("requests", 0, 1000, 100.0, is_tokens=False)
    crew.limits[0].release(permit)
    await settle()
    assert crew.limits[1].try_acquire() is None


def test_a_request_of_more_tokens_than_the_quota_fails_at_once() -> None:
    """Alone and among others; one of fewer passes, although it is larger than what may be used at once."""

    async def main() -> None:
        crew = Crew(2, 8, tokens=6000)
        both: list[RequestLimits] = [Limits(8, tokens_per_minute=6000), crew.limits[0]]
        for limits in both:
            limits.release(await limits.acquire(4000))
            for _ in range(2):  # the second while others wait
                with pytest.raises(GenerationError, match="may use 7,000 tokens") as caught:
                    limits.try_acquire(7000) or await limits.acquire(7000)
                assert caught.value.kind == "invalid_request"
                assert "raise tokens_per_minute" in caught.value.hint
                waiting = asyncio.create_task(limits.acquire(4000))
                await asyncio.sleep(0.1)
                assert not waiting.done()
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)

    simulate(main)


class Unleased:
    """Four runs that know nothing of each other."""

    def __init__(self, count: int, max_concurrency: int) -> None:
        self.limits = {number: Limits(max_concurrency // count) for number in range(count)}


async def ask_all(provider: Provider, crew: Crew | Unleased, seconds: float) -> None:
    await asyncio.gather(*(ask_until(seconds, provider, crew.limits[number % 4]) for number in range(128)))


def test_a_hidden_limit_is_used_and_kept_by_all_workers_as_by_one() -> None:
    refused = []
    for made in (Crew, Unleased):
        provider = Provider(100, 10, 0.2)

        async def main(provider: Provider = provider, made: Any = made) -> None:
            await ask_all(provider, made(4, 128), 60)

        simulate(main)
        accepted = sum(1 for time in provider.accepted if 20 <= time < 60)
        refused.append(sum(1 for time in provider.refused if 20 <= time < 60))
        if made is Crew:
            assert accepted / 40 >= 0.95 * 100
            assert refused[0] < 0.01 * accepted
    assert refused[0] * 3 < refused[1]


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["ask"] * 6
            + ["end"] * 4
            + ["quota", "plenty", "cancel", "start", "wait", "long"] * 2
            + ["refused", "overload", "pause", "kill"]
        ),
        st.integers(0, 7),
    ),
    min_size=20,
    max_size=150,
)
QUOTAS = {"quota": 2.0, "plenty": 99.0}
"""What is left of a hundred requests."""


@settings(max_examples=150, deadline=None, derandomize=True)
@given(actions=ACTIONS, max_concurrency=st.integers(3, 9), requests=st.sampled_from([None, None, 600.0]))
def test_never_more_is_in_flight_than_may_be_and_nothing_is_lost(
    actions: list[tuple[str, int]], max_concurrency: int, requests: float | None
) -> None:
    async def main() -> None:
        crew = Crew(3, max_concurrency, requests=requests)
        parts = {0: 0, 1: 1, 2: 2}
        asked: dict[int, list[asyncio.Task[Permit]]] = {0: [], 1: [], 2: []}
        await settle()

        def end(worker: int, how: str) -> None:
            limits = crew.limits[worker]
            done = next((task for task in asked[worker] if task.done()), None)
            if done is None:
                return
            asked[worker].remove(done)
            permit = done.result()
            if how == "end":
                limits.on_success()
            elif how == "overload":
                limits.on_overload(permit, None)
            else:
                limits.on_rate_limit(permit, 0.5 if how == "pause" else None)
            limits.release(permit)

        def act(action: str, number: int) -> None:
            living = sorted(crew.limits)
            if action == "start" and len(living) < 3:
                part = min({0, 1, 2} - {parts[worker] for worker in living})
                worker = crew.start(part)
                parts[worker], asked[worker] = part, []
                return
            if not living:
                return
            worker = living[number % len(living)]
            if action == "ask":
                asked[worker].append(asyncio.create_task(crew.limits[worker].acquire()))
            elif action == "cancel" and asked[worker]:
                task = asked[worker][-1]
                if not task.done():
                    asked[worker].remove(task)
                    task.cancel()
            elif action == "kill":
                for task in asked.pop(worker):
                    task.cancel()
                crew.kill(worker)
            elif action in QUOTAS:
                crew.limits[worker].update_quota("requests", QUOTAS[action], 100, 10.0, is_tokens=False)
            elif action in ("end", "refused", "overload", "pause"):
                end(worker, action)

        async def check_all_is_used() -> None:
            """Whatever has died, those that are there may have as much in flight as there may be."""
            for part in sorted({0, 1, 2} - {parts[worker] for worker in crew.limits}):
                crew.start(part)
            await settle()
            wanted = [
                (limits, asyncio.create_task(limits.acquire()))
                for limits in crew.limits.values()
                for _ in range(max_concurrency)
            ]
            await asyncio.sleep(300)
            crew.check()
            assert crew.in_flight == int(crew.host._limits.limit)
            for limits, task in wanted:
                if task.done():
                    limits.release(task.result())
                else:
                    task.cancel()
            await settle()

        for action, number in actions:
            act(action, number)
            # Fractions of the time that a message takes, so that messages cross.
            await asyncio.sleep({"wait": 5 * LATENCY, "long": 2.0}.get(action, LATENCY * number / 8))
            crew.check()
        while any(asked.values()):
            for worker in list(crew.limits):
                for _ in range(len(asked[worker])):
                    end(worker, "end")
            assert asyncio.get_running_loop().time() < 3000, "every request that waits is admitted"
            await asyncio.sleep(0.5)
            crew.check()
        await settle()
        crew.check(is_idle=True)
        await check_all_is_used()
        for limits in crew.limits.values():
            limits.close()
        await settle()
        assert crew.host._limits.in_flight == 0

    simulate(main)


def test_a_run_takes_messages_of_limits_in_any_thread_and_before_it_knows_a_worker() -> None:
    run, sent, came = RunLimits(), list[Terms](), threading.Event()

    def send(terms: Terms) -> None:
        sent.append(terms)
        if len(sent) == 2:
            came.set()

    run.start()
    run.take(1, Opened(0, 4, None, None, 2))
    run.take(1, Used(0, 1, 0, congestions=[(False, 0, None)]))
    run.join(1, send)
    assert came.wait(60)
    assert [terms.slots for terms in sent] == [2, 0]
    run.take(1, Died("killed"))
    run.take(1, Used(0, 1, 0))
    run.take(2, Used(7, 0, 0))
    run.close()
    run.take(1, Used(0, 1, 0))
    assert not [thread for thread in threading.enumerate() if thread.name == "stillhouse-limits"]


class Watched:
    """What the workers of a run say of limits, as it comes, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hosts: set[HostedLimits] = set()
        self.restricted: set[int] = set()
        self.asking: set[int] = set()
        self.changed = threading.Condition()
        take = HostedLimits.take

        def spy(host: HostedLimits, worker: int, used: Used) -> None:
            take(host, worker, used)
            with self.changed:
                self.hosts.add(host)
                if used.held is not None:
                    self.restricted.add(worker)
                if used.asked:
                    self.asking.add(worker)
                self.changed.notify_all()

        monkeypatch.setattr(HostedLimits, "take", spy)

    def wait(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, 60)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return Watched(monkeypatch)


def run_counted(tmp_path: Path, server: Server, rows: int, **fields: Any) -> list[dict[str, Any]]:
    """Run rows through two worker processes that ask the server."""
    import worker_llms

    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"prompt": f"row {number}"}) + "\n" for number in range(rows)))
    llm = worker_llms.Counted(model="m", base_url=f"http://127.0.0.1:{server.port}", **fields)
    stillhouse.run(
        source, llm=llm, output=output, executor="processes", workers=2, show_bar=False, max_failures=0
    )
    return read_jsonl(output)


def test_a_pause_told_to_one_process_holds_for_the_other(
    tmp_path: Path, server: Server, watched: Watched
) -> None:
    told: list[str] = []
    seen: list[int] = []

    def refuse_first(body: dict[str, Any]) -> int | None:
        if len(server.asked) < 8 or told:
            return None
        told.append(body["prompt"])
        return 3

    def release() -> None:
        watched.wait(lambda: len(watched.restricted) == 2)
        watched.asking.clear()
        server.let_go()
        watched.wait(lambda: len(watched.asking) == 2)
        seen.append(len(server.asked))

    server.hold()
    server.refuses = refuse_first
    releasing = threading.Thread(target=release)
    releasing.start()
    rows = run_counted(tmp_path, server, 40, max_concurrency=8)
    releasing.join()
    assert seen == [8], "both ask and neither sends"
    assert [row["generations"] for row in rows] == [[f"row {number}!0"] for number in range(40)]
    assert len(server.asked) == 41


def test_workers_learn_one_pace_for_a_server_that_hides_its_limit(
    tmp_path: Path, server: Server, watched: Watched
) -> None:
    admitted = 0.0
    updated = 0.0
    refused = 0

    def refuse(body: dict[str, Any]) -> int | None:
        nonlocal admitted, updated, refused
        now = asyncio.get_running_loop().time()
        admitted = max(0.0, admitted - (now - updated) * 100)
        updated = now
        if admitted >= 10:
            refused += 1
            return 0
        admitted += 1
        return None

    server.refuses = refuse
    rows = run_counted(tmp_path, server, 300, max_concurrency=64)
    assert all(row["generations"] for row in rows)
    assert len(server.asked) == 300 + refused
    assert 1 <= refused <= 150
    (host,) = watched.hosts
    assert host._limits.pace is not None


def test_a_row_of_more_tokens_than_the_quota_fails_by_name_with_workers(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import worker_llms

    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps({"prompt": "word " * words}) + "\n" for words in (3200, 5600)))
    outputs = []
    for name, more in (("one.jsonl", {}), ("two.jsonl", {"executor": "processes", "workers": 2})):
        llm = worker_llms.Counted(
            model="m", base_url=f"http://127.0.0.1:{server.port}", tokens_per_minute=6000.0
        )
        stillhouse.run(source, llm=llm, output=tmp_path / name, show_bar=False, max_failures=0, **more)
        outputs.append((tmp_path / name).read_bytes())
    assert outputs[0] == outputs[1]
    errors = [row["error"] for row in read_jsonl(tmp_path / "two.jsonl")]
    assert errors[0] is None
    assert errors[1]["kind"] == "invalid_request"
    assert "tokens_per_minute is 6,000" in errors[1]["message"]
