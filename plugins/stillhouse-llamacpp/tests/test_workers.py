from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import Any

import pytest

from stillhouse import GenerationError
from stillhouse_llamacpp.workers import Cancelled, Workers


def wait_until_cancelled(cancelled: Cancelled, began: threading.Event) -> str:
    began.set()
    while not cancelled():
        time.sleep(0.001)
    return "ended"


def test_as_many_calls_run_at_once_as_there_are_threads() -> None:
    workers = Workers(2, "test")
    both, running, most = threading.Barrier(2, timeout=10), [0], [0]
    lock = threading.Lock()

    def call(cancelled: Cancelled) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        both.wait()
        with lock:
            running[0] -= 1

    async def main() -> None:
        await asyncio.gather(*(workers.run(call) for _ in range(6)))

    asyncio.run(main())
    workers.close()
    assert most == [2]


def test_cancelled_worker_call_is_signalled_and_awaited() -> None:
    workers, began, ended = Workers(1, "test"), threading.Event(), threading.Event()

    def call(cancelled: Cancelled) -> None:
        wait_until_cancelled(cancelled, began)
        ended.set()

    async def main() -> None:
        task = asyncio.create_task(workers.run(call))
        queued = asyncio.create_task(workers.run(lambda cancelled: pytest.fail("it was cancelled")))
        await asyncio.to_thread(began.wait, 10)
        assert workers.is_busy
        queued.cancel()
        task.cancel()
        for item in (queued, task):
            with pytest.raises(asyncio.CancelledError):
                await item
        assert ended.is_set()
        assert not workers.is_busy

    asyncio.run(main())
    workers.close()


def test_exception_of_a_cancelled_worker_call_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    workers, began = Workers(1, "test"), threading.Event()

    def call(cancelled: Cancelled) -> None:
        wait_until_cancelled(cancelled, began)
        raise ValueError("it was cancelled")

    async def main() -> None:
        task = asyncio.create_task(workers.run(call))
        await asyncio.to_thread(began.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    workers.close()
    gc.collect()
    assert caplog.text == ""


def test_closing_the_workers_ends_calls_and_threads() -> None:
    workers, began = Workers(1, "test-closing"), threading.Event()
    results: list[Any] = []

    async def main() -> None:
        running = asyncio.create_task(workers.run(lambda cancelled: wait_until_cancelled(cancelled, began)))
        queued = asyncio.create_task(workers.run(lambda cancelled: "never"))
        await asyncio.to_thread(began.wait, 10)
        await asyncio.to_thread(workers.close)
        results.extend(await asyncio.gather(running, queued, return_exceptions=True))
        with pytest.raises(GenerationError, match="unloaded"):
            await workers.run(lambda cancelled: "never")

    asyncio.run(main())
    assert results[0] == "ended"
    assert isinstance(results[1], GenerationError)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("test-closing")]


def test_threads_end_when_nobody_holds_them_any_more() -> None:
    workers = Workers(2, "test-dropped")
    threads = list(workers._threads)
    del workers
    gc.collect()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_exception_in_a_worker_call_is_raised_to_the_caller() -> None:
    workers = Workers(1, "test")

    def fail(cancelled: Cancelled) -> None:
        raise ValueError("as it was told to")

    with pytest.raises(ValueError, match="as it was told to"):
        asyncio.run(workers.run(fail))
    workers.close()
