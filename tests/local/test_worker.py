"""The queue from which an engine takes its work, and the thread in which it works."""

from __future__ import annotations

import asyncio
import functools
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from stillhouse import ConfigurationError, GenerationError
from stillhouse.local import EngineWorker, Job, JobQueue


class Engine:
    """Answers with the request in capitals; `batches` are the sizes of the jobs that it took together."""

    def __init__(self, batch: int = 4) -> None:
        self.batch = batch
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.taken = threading.Event()
        self.on_batch: Callable[[list[Any]], None] = lambda jobs: None

    def serve(self, queue: JobQueue[str, str]) -> None:
        while jobs := queue.take(self.batch):
            self.batches.append([job.size for job in jobs])
            self.taken.set()
            self.gate.wait()
            self.on_batch(jobs)
            for job in jobs:
                job.finish(job.request.upper())


def on_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    @functools.wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


def start(engine: Engine, **options: Any) -> EngineWorker[Engine, str, str]:
    return EngineWorker(lambda: engine, Engine.serve, "test", **options)


@on_loop
async def test_every_request_gets_its_own_answer_and_like_sizes_go_together() -> None:
    engine = Engine()
    worker = start(engine)
    try:
        engine.gate.clear()
        first = asyncio.ensure_future(worker.run("first", 50))
        await asyncio.to_thread(engine.taken.wait)
        sizes = [1, 100, 2, 99, 3, 98, 4, 97]
        rest = [asyncio.ensure_future(worker.run(f"r{size}", size)) for size in sizes]
        await asyncio.sleep(0)
        engine.gate.set()
        assert await first == "FIRST"
        assert await asyncio.gather(*rest) == [f"R{size}" for size in sizes]
        assert engine.batches == [[50], [1, 2, 3, 4], [97, 98, 99, 100]]
        assert not worker.is_busy
    finally:
        worker.close()


class Pieces:
    """Gives the letters of a request, and waits before each one but the first; `dropped` is then set."""

    def __init__(self) -> None:
        self.step = threading.Semaphore(1)
        self.dropped = threading.Event()
        self.died: Exception | None = None

    def serve(self, queue: JobQueue[str, str]) -> None:
        for job in queue.take(1):
            for letter in job.request:
                self.step.acquire()
                if job.cancelled:
                    self.dropped.set()
                    job.fail(RuntimeError("nobody waits"))
                    return
                if self.died is not None:
                    raise self.died
                if job.on_piece is not None:
                    job.on_piece(letter)
            job.finish(job.request.upper())


@on_loop
async def test_pieces_come_on_the_loop_before_the_result() -> None:
    engine, given = Pieces(), asyncio.Queue[str]()
    worker = EngineWorker(lambda: engine, Pieces.serve, "test")
    try:
        call = asyncio.ensure_future(worker.run("abc", on_piece=given.put_nowait))
        assert await given.get() == "a"
        assert not call.done()
        engine.step.release(2)
        assert await call == "ABC"
        assert [given.get_nowait(), given.get_nowait()] == ["b", "c"]
        engine.step.release(3)
        assert await worker.run("abc") == "ABC"
    finally:
        worker.close()


@pytest.mark.parametrize("error", [asyncio.CancelledError(), ValueError("no more")])
def test_a_receiver_that_raises_drops_the_job(error: BaseException) -> None:
    async def main() -> None:
        engine, calls = Pieces(), []

        def receive(piece: str) -> None:
            calls.append(piece)
            raise error

        worker = EngineWorker(lambda: engine, Pieces.serve, "test")
        try:
            with pytest.raises(type(error)):
                await worker.run("abc", on_piece=receive)
            engine.step.release()
            await asyncio.to_thread(engine.dropped.wait)
            assert calls == ["a"]
            engine.step.release()
            with pytest.raises(type(error)):  # also of the last piece, behind which the result is
                await worker.run("a", on_piece=receive)
        finally:
            worker.close()

    asyncio.run(main())


@on_loop
async def test_an_engine_that_fails_after_a_piece_fails_the_call() -> None:
    engine, given = Pieces(), asyncio.Queue[str]()
    worker = EngineWorker(lambda: engine, Pieces.serve, "test")
    try:
        call = asyncio.ensure_future(worker.run("abc", on_piece=given.put_nowait))
        assert await given.get() == "a"
        engine.died = ValueError("out of memory")
        engine.step.release()
        with pytest.raises(GenerationError, match="out of memory") as caught:
            await call
        assert caught.value.kind == "server"
    finally:
        worker.close()


@on_loop
async def test_the_oldest_is_always_among_those_that_are_taken() -> None:
    queue: JobQueue[str, str] = JobQueue()
    for size in [500, 1, 2, 3, 4, 5, 6]:
        queue._put(Job("", size, queue))
    assert [job.size for job in queue.take(3)] == [5, 6, 500]
    assert [job.size for job in queue.take(3)] == [1, 2, 3]
    assert [job.size for job in queue.take(3, wait=False)] == [4]
    assert queue.take(3, wait=False) == []


@on_loop
async def test_what_is_left_by_a_batch_is_batches_of_like_sizes() -> None:
    """Also where the oldest one is in the middle: else the smallest and the largest would be left together."""
    queue: JobQueue[str, str] = JobQueue()
    sizes = [50, 90, 10, 40, 80, 20, 60, 30, 70, 100]
    for size in sizes:
        queue._put(Job("", size, queue))
    batches = [[job.size for job in queue.take(3, wait=False)] for _ in range(4)]
    assert batches == [[40, 50, 60], [70, 80, 90], [10, 20, 30], [100]]


@on_loop
async def test_inputs_that_come_one_after_the_other_are_one_batch() -> None:
    engine = Engine(batch=8)
    worker = start(engine)
    try:
        await asyncio.gather(*(worker.run(f"{number}", 1) for number in range(8)))
        assert [len(batch) for batch in engine.batches] == [8]
    finally:
        worker.close()


def test_an_idle_engine_waits_for_several_batches_to_choose_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillhouse.local.queue._COMPANY", 60.0)  # however busy this machine is
    monkeypatch.setattr("stillhouse.local.queue._PATIENCE", 60.0)
    engine = Engine(batch=2)
    sizes = [number * 7 % 32 for number in range(32)]

    async def main() -> None:
        worker = start(engine)
        try:
            await asyncio.gather(*(worker.run(f"{size}", size) for size in sizes))
        finally:
            worker.close()

    asyncio.run(main())
    assert sorted(engine.batches) == [[size, size + 1] for size in range(0, 32, 2)]


@on_loop
async def test_a_cancelled_call_leaves_the_queue_or_says_so_to_the_engine() -> None:
    engine = Engine(batch=1)
    seen: list[tuple[str, bool]] = []
    engine.on_batch = lambda jobs: seen.extend((job.request, job.cancelled) for job in jobs)
    worker = start(engine)
    try:
        engine.gate.clear()
        running = asyncio.ensure_future(worker.run("running"))
        await asyncio.to_thread(engine.taken.wait)
        waiting = asyncio.ensure_future(worker.run("waiting"))
        other = asyncio.ensure_future(worker.run("other"))
        await asyncio.sleep(0)
        running.cancel()
        waiting.cancel()
        await asyncio.gather(running, waiting, return_exceptions=True)
        assert running.cancelled()
        assert waiting.cancelled()
        engine.gate.set()
        assert await other == "OTHER"
        assert seen == [("running", True), ("other", False)]
    finally:
        worker.close()


@on_loop
async def test_what_a_cancelled_call_fails_with_is_not_logged() -> None:
    engine = Engine(batch=1)

    def fail(jobs: list[Any]) -> None:
        jobs[0].fail(GenerationError("no room for 7 GB", kind="server"))

    engine.on_batch = fail
    worker = start(engine)
    logged: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    try:
        engine.gate.clear()
        running = asyncio.ensure_future(worker.run("running"))
        await asyncio.to_thread(engine.taken.wait)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        engine.gate.set()
        with pytest.raises(GenerationError, match="no room"):
            await worker.run("next")
        del running
        gc.collect()
        assert logged == []
    finally:
        worker.close()


@on_loop
async def test_what_cannot_be_opened_comes_out_of_the_constructor() -> None:
    def fail() -> Engine:
        raise ConfigurationError("there is no model")

    with pytest.raises(ConfigurationError, match="there is no model"):
        EngineWorker(fail, Engine.serve, "test")


@on_loop
async def test_an_engine_that_raises_fails_what_it_had_taken_and_goes_on() -> None:
    engine = Engine(batch=2)
    worker = start(engine)

    def burst(jobs: list[Any]) -> None:
        if any(job.request == "bad" for job in jobs):
            raise MemoryError("no room for 7 GB")

    engine.on_batch = burst
    try:
        results = await asyncio.gather(worker.run("bad", 1), worker.run("beside", 1), return_exceptions=True)
        for result in results:
            assert isinstance(result, GenerationError)
            assert result.kind == "server"
            assert "no room for 7 GB" in result.message
        assert results[0] is not results[1]
        assert await worker.run("good") == "GOOD"
    finally:
        worker.close()


@on_loop
async def test_an_engine_that_dies_without_work_fails_every_call_that_comes() -> None:
    died = threading.Event()

    def serve(engine: Engine, queue: JobQueue[str, str]) -> None:
        died.set()
        raise RuntimeError("the device is gone")

    worker = EngineWorker(Engine, serve, "test")
    try:
        await asyncio.to_thread(died.wait)
        for _ in range(2):
            with pytest.raises(GenerationError, match="the device is gone") as raised:
                await worker.run("late")
            assert raised.value.kind == "server"
    finally:
        worker.close()


@on_loop
async def test_closing_ends_what_waits_and_what_is_in_hand() -> None:
    def serve(engine: Engine, queue: JobQueue[str, str]) -> None:
        jobs = queue.take(1)
        engine.taken.set()
        while jobs and not jobs[0].cancelled:
            engine.gate.wait(0.01)

    engine = Engine()
    worker = EngineWorker(lambda: engine, serve, "test")
    calls = [asyncio.ensure_future(worker.run(word)) for word in ("in hand", "waiting")]
    await asyncio.to_thread(engine.taken.wait)
    await asyncio.to_thread(worker.close)
    for result in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(result, GenerationError)
        assert "unloaded" in result.message
    with pytest.raises(GenerationError, match="unloaded"):
        await worker.run("late")
    worker.close()  # twice is once


@on_loop
async def test_the_engine_is_freed_on_closing_and_when_the_worker_is_dropped() -> None:
    for close in (True, False):
        made: list[weakref.ref[Engine]] = []

        def open_engine(made: list[weakref.ref[Engine]] = made) -> Engine:
            engine = Engine()
            made.append(weakref.ref(engine))
            return engine

        worker = EngineWorker(open_engine, Engine.serve, "test", threads=2)
        assert await worker.run("a") == "A"
        threads = worker._threads
        if close:
            worker.close()
        del worker
        gc.collect()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
        gc.collect()
        assert made[0]() is None


@on_loop
async def test_the_time_until_jobs_are_taken_is_counted() -> None:
    engine = Engine(batch=1)
    worker = start(engine)
    try:
        engine.gate.clear()
        first = asyncio.ensure_future(worker.run("a"))
        await asyncio.to_thread(engine.taken.wait)
        alone = worker.seconds_waited
        second = asyncio.ensure_future(worker.run("b"))
        await asyncio.sleep(0.05)
        assert worker.seconds_waited == alone  # nobody knows yet how long it will be
        engine.gate.set()
        await asyncio.gather(first, second)
        assert worker.seconds_waited > alone
    finally:
        worker.close()


@on_loop
async def test_several_threads_serve_one_engine() -> None:
    both = threading.Barrier(2, timeout=10)
    engine = Engine(batch=1)
    engine.on_batch = lambda jobs: both.wait() and None
    worker = start(engine, threads=2)
    try:
        assert await asyncio.gather(worker.run("a"), worker.run("b")) == ["A", "B"]
    finally:
        worker.close()


@on_loop
async def test_a_forked_process_is_told_to_load_again() -> None:
    worker = start(Engine())
    try:
        worker._pid += 1  # as it is in a child
        with pytest.raises(ConfigurationError, match="forked"):
            await worker.run("a")
        worker._pid -= 1
    finally:
        worker.close()
