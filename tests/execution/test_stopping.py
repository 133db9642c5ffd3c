"""A run that stops sends nothing more, wherever an input waits; what is in flight has its result."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import PrivateAttr

from stillhouse import AsyncLLM, FormattedInput, GenerateOutput, GenerationError, prepare_output
from stillhouse._execution.stopping import Stop, StoppedError, has_stopped, stopping_with
from stillhouse.local import EngineWorker, JobQueue

from ..support import PATIENCE, ScriptedLLM, SingleLLM, SyncLLM, chat, in_thread, text_of


def results_of(llm: Any, inputs: Any, stop: Stop, **options: Any) -> list[tuple[int, Any]]:
    """The results until the run has stopped, or is done."""
    found = []
    with stopping_with(stop):
        for group in llm.iter_finished(inputs, on_error="yield", **options):
            found += [(index, result) for index, result, _ in group]
    return found


def endless() -> Iterator[FormattedInput]:
    number = 0
    while True:
        yield chat(f"wait {number}")
        number += 1


@pytest.mark.parametrize("ordered", [True, False])
def test_inputs_that_wait_in_the_window_are_dropped(ordered: bool) -> None:
    stop = Stop()
    with ScriptedLLM(max_concurrency=4) as llm:
        future = in_thread(lambda: results_of(llm, endless(), stop, ordered=ordered))
        llm.calls.wait_until(lambda calls: calls.in_flight == 4)
        stop.request()
        llm.release()
        found = future.result(PATIENCE)
        assert sorted(index for index, _ in found) == [0, 1, 2, 3]
        assert len(llm.calls.started) == 4


def test_an_asynchronous_source_is_left_when_the_run_stops() -> None:
    stop = Stop()

    async def source() -> AsyncIterator[FormattedInput]:
        for number in range(3):
            yield chat(f"wait {number}")
        await asyncio.Event().wait()

    async def work(llm: ScriptedLLM) -> list[int]:
        found = []
        with stopping_with(stop):
            async for index, _ in llm.aiter_outputs(source()):
                found.append(index)
        return found

    with ScriptedLLM(max_concurrency=4) as llm:
        future = in_thread(lambda: asyncio.run(work(llm)))
        llm.calls.wait_until(lambda calls: calls.in_flight == 3)
        stop.request()
        llm.release()
        assert future.result(PATIENCE) == [0, 1, 2]


def test_some_of_the_calls_for_an_input_keep_what_they_made() -> None:
    stop = Stop()
    with SingleLLM(max_concurrency=2) as llm:
        inputs = [chat("wait a"), chat("wait b")]
        future = in_thread(lambda: results_of(llm, inputs, stop, num_generations=3))
        llm.calls.wait_until(lambda calls: calls.in_flight == 2)
        stop.request()
        llm.release()
        ((index, error),) = future.result(PATIENCE)
        assert (index, has_stopped(error)) == (0, True)
        assert len(error.outputs[0]["generations"]) == 2
        assert len(llm.calls.started) == 2


class StoppingLLM(ScriptedLLM):
    """Requests the stop in a call, and waits for nothing."""

    _stop: Stop = PrivateAttr(default_factory=Stop)

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:  # type: ignore[override]
        """Stop, then answer."""
        self._stop.request()
        with self._calls.call(text_of(input)):
            return prepare_output(["x"] * num_generations)


def test_the_next_input_is_not_begun_in_the_turn_that_the_stop_is_requested_in() -> None:
    with StoppingLLM(max_concurrency=1) as llm:
        found = results_of(llm, [chat(str(number)) for number in range(12)], llm._stop)
        assert [index for index, _ in found] == [0]
        assert llm.calls.started == ["0"]


class StoppingSyncLLM(SyncLLM):
    """Requests the stop in a call."""

    _stop: Stop = PrivateAttr(default_factory=Stop)

    def generate(  # type: ignore[override]
        self, inputs: list[FormattedInput], num_generations: int = 1
    ) -> list[GenerateOutput]:
        """Stop, then answer."""
        self._stop.request()
        return super().generate(inputs, num_generations)


def test_a_synchronous_backend_is_not_called_again() -> None:
    with StoppingSyncLLM() as llm:
        found = results_of(llm, [chat(str(number)) for number in range(12)], llm._stop)
        assert [index for index, _ in found] == [0, 1, 2, 3]
        assert llm.batches == [["0", "1", "2", "3"]]


def test_the_inputs_of_a_list_that_failed_are_not_asked_for_one_by_one() -> None:
    with StoppingSyncLLM() as llm:
        found = results_of(llm, [chat("fail"), chat("b"), chat("c")], llm._stop)
        assert found == []
        assert len(llm.batches) == 1


class CompositeLLM(AsyncLLM):
    """Asks its member twice."""

    _member: ScriptedLLM = PrivateAttr(default_factory=lambda: ScriptedLLM(max_concurrency=2))

    @property
    def model_name(self) -> str:
        return "composite"

    def load(self) -> None:
        super().load()
        self._member.load()

    def unload(self) -> None:
        self._member.unload()
        super().unload()

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        """Ask the member."""
        (first,) = await self._member.agenerate_outputs([input])
        results = self._member.aiter_outputs([input], on_error="yield")
        _, second = await anext(results)
        if isinstance(second, GenerationError):
            raise second
        return prepare_output([first["generations"][0]] * num_generations)


def test_a_composite_is_not_failed_by_a_member_that_is_not_asked() -> None:
    stop = Stop()
    with CompositeLLM(max_concurrency=8) as llm:
        future = in_thread(lambda: results_of(llm, endless(), stop))
        llm._member.calls.wait_until(lambda calls: calls.in_flight == 2)
        stop.request()
        llm._member.release()
        assert future.result(PATIENCE) == []
        assert len(llm._member.calls.started) == 2


def test_a_job_that_no_engine_has_taken_is_dropped() -> None:
    taken, go_on = threading.Event(), threading.Event()
    requests = []

    def serve(engine: None, queue: JobQueue[str, str]) -> None:
        for job in queue.take(1):
            requests.append(job.request)
            taken.set()
            assert go_on.wait(PATIENCE)
            stop.request()
            job.finish(job.request)

    class EngineLLM(ScriptedLLM):
        async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:  # type: ignore[override]
            """Ask the engine."""
            return prepare_output([await worker.run(text_of(input))])

    stop, worker = Stop(), EngineWorker(lambda: None, serve, "stillhouse-test-engine")
    try:
        with EngineLLM(max_concurrency=4) as llm:
            future = in_thread(lambda: results_of(llm, endless(), stop))
            assert taken.wait(PATIENCE)
            go_on.set()
            assert [index for index, _ in future.result(PATIENCE)] == [0]
            assert requests == ["wait 0"]
    finally:
        go_on.set()
        worker.close()


def test_an_error_made_of_the_end_of_a_run_is_known() -> None:
    stopped = StoppedError([])
    wrapped = GenerationError("the aggregator failed")
    wrapped.__cause__ = stopped
    assert has_stopped(wrapped)
    assert has_stopped(stopped)
    assert not has_stopped(GenerationError("x"))
    assert not has_stopped(None)


def test_without_a_request_nothing_is_dropped() -> None:
    with ScriptedLLM(max_concurrency=2) as llm:
        found = results_of(llm, [chat(str(number)) for number in range(50)], Stop())
        assert [index for index, _ in found] == list(range(50))
