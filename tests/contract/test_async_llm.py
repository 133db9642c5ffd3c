"""`AsyncLLM`: its loop, its window, and what happens when something goes wrong."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import PrivateAttr, SecretStr

from stillhouse import (
    AsyncLLM,
    ConfigurationError,
    EchoLLM,
    FormattedInput,
    GenerateOutput,
    GenerationError,
)
from stillhouse._execution.slots import Slots
from stillhouse._execution.window import SPREAD
from stillhouse.outputs import prepare_output

from ..support import PATIENCE, ScriptedLLM, SingleLLM, chat, chats, in_thread, own_threads, text_of


def settle(llm: AsyncLLM, rounds: int = 20) -> None:
    """Let the LLM's loop do whatever it has to do now."""
    for _ in range(rounds):
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), llm.event_loop).result(PATIENCE)


def texts(outputs: list[Any]) -> list[Any]:
    return [output["generations"][0] for output in outputs]


# The loop


def test_every_loaded_llm_has_one_loop_in_one_thread_of_its_own() -> None:
    places: set[tuple[asyncio.AbstractEventLoop, threading.Thread]] = set()

    class WhereLLM(ScriptedLLM):
        async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
            places.add((asyncio.get_running_loop(), threading.current_thread()))
            return {"generations": ["here"] * num_generations, "statistics": {}}

    with WhereLLM() as first, WhereLLM() as second:
        for llm in (first, second):
            for _ in range(3):
                llm.generate_outputs(chats(*"abcdef"))
        assert {loop for loop, _ in places} == {first.event_loop, second.event_loop}
        assert len(places) == len(own_threads()) == 2
        assert threading.current_thread() not in {thread for _, thread in places}
    assert own_threads() == []


def test_the_thread_is_there_only_while_the_llm_is_loaded() -> None:
    llm = ScriptedLLM()
    with pytest.raises(ConfigurationError, match="not loaded"):
        _ = llm.event_loop
    llm.load()
    loop = llm.event_loop
    assert loop.is_running()
    llm.unload()
    assert loop.is_closed()
    with pytest.raises(ConfigurationError, match="not loaded"):
        _ = llm.event_loop


def test_current_event_loop_of_the_caller_is_not_changed() -> None:
    mine = asyncio.new_event_loop()
    asyncio.set_event_loop(mine)
    try:
        with ScriptedLLM() as llm:
            llm.generate_outputs(chats("a"))
            assert llm.event_loop is not mine
        assert asyncio.get_event_loop_policy().get_event_loop() is mine
        assert not mine.is_closed()
    finally:
        asyncio.set_event_loop(None)
        mine.close()


def test_async_llm_works_inside_a_running_loop() -> None:
    async def main(llm: ScriptedLLM) -> list[Any]:
        before = asyncio.get_running_loop()
        outputs = llm.generate_outputs(chats("a", "b"))
        outputs += [output for _, output in llm.iter_outputs(chats("c"))]
        assert asyncio.get_running_loop() is before
        return outputs

    with ScriptedLLM() as llm:
        assert texts(asyncio.run(main(llm))) == ["a", "b", "c"]
        assert texts(asyncio.run(main(llm))) == ["a", "b", "c"]


def test_async_llm_works_from_several_threads_at_once() -> None:
    with ScriptedLLM(max_concurrency=100) as llm:
        futures = [
            in_thread(lambda name=name: llm.generate_outputs(chats(*(f"wait {name}{i}" for i in range(20)))))
            for name in "abcd"
        ]
        llm.calls.wait_until(lambda calls: calls.in_flight == 80)
        llm.release()
        for name, future in zip("abcd", futures, strict=True):
            assert texts(future.result(PATIENCE)) == [f"wait {name}{i}" for i in range(20)]


def test_max_concurrency_holds_over_all_threads_together() -> None:
    with ScriptedLLM(max_concurrency=5) as llm:
        futures = [
            in_thread(lambda name=name: llm.generate_outputs(chats(*(f"wait {name}{i}" for i in range(9)))))
            for name in "abc"
        ]
        llm.calls.wait_until(lambda calls: calls.in_flight == 5)
        settle(llm)
        assert llm.calls.in_flight == 5
        llm.release()
        for name, future in zip("abc", futures, strict=True):
            assert texts(future.result(PATIENCE)) == [f"wait {name}{i}" for i in range(9)]
        assert llm.calls.peak == 5


def test_a_cancelled_caller_gives_its_place_in_the_queue_away() -> None:
    async def main(llm: ScriptedLLM) -> None:
        first = asyncio.create_task(llm.agenerate_outputs(chats("wait a")))
        await asyncio.to_thread(llm.calls.wait_until, lambda calls: calls.in_flight == 1)
        second = asyncio.create_task(llm.agenerate_outputs(chats("b")))
        third = asyncio.create_task(llm.agenerate_outputs(chats("c")))
        for _ in range(5):
            await asyncio.sleep(0)
            await asyncio.to_thread(settle, llm, 5)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        llm.release()
        assert texts(await first) == ["wait a"]
        assert texts(await third) == ["c"]

    with ScriptedLLM(max_concurrency=1) as llm:
        asyncio.run(main(llm))
        assert llm.calls.started == ["wait a", "c"]


def test_a_slot_that_is_handed_to_a_call_just_cancelled_is_handed_on() -> None:
    async def main() -> None:
        slots = Slots()
        await slots.acquire(1)
        waiting = asyncio.create_task(slots.acquire(1))
        await asyncio.sleep(0)
        slots.release()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert slots.taken == 0
        async with asyncio.timeout(PATIENCE):
            await slots.acquire(1)

    asyncio.run(main())


def test_a_call_may_ask_its_own_llm_again() -> None:
    class NestedLLM(ScriptedLLM):
        async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
            text = text_of(input)
            if text.count(" ") == 3:
                return prepare_output([text])
            (output,) = await self.agenerate_outputs(chats(f"{text} again"))
            return output

    with NestedLLM(max_concurrency=1) as llm:
        assert texts(llm.generate_outputs(chats("a", "b"))) == ["a again again again", "b again again again"]


def test_the_callers_context_is_seen_in_the_calls() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    class ContextLLM(ScriptedLLM):
        async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
            return prepare_output([variable.get()])

    with ContextLLM() as llm:
        for value in ("one", "two"):
            variable.set(value)
            assert texts(llm.generate_outputs(chats("a"))) == [value]


# The window


@pytest.mark.parametrize("size", [1, 7])
def test_exactly_max_concurrency_calls_are_in_flight(size: int) -> None:
    inputs = [f"wait {i}" for i in range(50)]
    with ScriptedLLM(max_concurrency=size) as llm:
        future = in_thread(lambda: llm.generate_outputs(chats(*inputs)))
        llm.calls.wait_until(lambda calls: calls.in_flight == size)
        settle(llm)
        assert llm.calls.in_flight == size
        llm.release()
        assert texts(future.result(PATIENCE)) == inputs
        assert llm.calls.peak == size


def test_max_concurrency_is_a_runtime_parameter_of_a_loaded_llm() -> None:
    with ScriptedLLM(max_concurrency=2) as llm:
        llm.set_runtime_parameters({"max_concurrency": 9})
        future = in_thread(lambda: llm.generate_outputs(chats(*(f"wait {i}" for i in range(20)))))
        llm.calls.wait_until(lambda calls: calls.in_flight == 9)
        llm.release()
        future.result(PATIENCE)
        assert llm.calls.peak == 9


def test_the_window_slides_past_a_slow_input() -> None:
    with ScriptedLLM(max_concurrency=2) as llm:
        inputs = ["wait slow", *(str(i) for i in range(30))]
        future = in_thread(lambda: llm.generate_outputs(chats(*inputs)))
        llm.calls.wait_until(lambda calls: len(calls.finished) == 30)
        assert llm.calls.in_flight == 1
        llm.release()
        assert texts(future.result(PATIENCE)) == inputs


@pytest.mark.parametrize("how", ["generate", "iterate", "async"])
def test_there_is_no_task_per_input(how: str) -> None:
    created: list[str] = []

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **settings: Any) -> asyncio.Task[Any]:
        created.append(coroutine.__qualname__)
        return asyncio.Task(coroutine, loop=loop, **settings)

    async def iterate(llm: ScriptedLLM, inputs: list[Any]) -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        async for _ in llm.aiter_outputs(inputs):
            pass

    with ScriptedLLM(max_concurrency=8) as llm:
        llm.event_loop.set_task_factory(factory)
        inputs = chats(*(f"pause {i}" for i in range(1000)))
        if how == "generate":
            llm.generate_outputs(inputs)
        elif how == "iterate":
            for _ in llm.iter_outputs(inputs):
                pass
        else:
            asyncio.run(iterate(llm, inputs))
        assert len(llm.calls.finished) == 1000
    assert created.count("Window._work") <= 8
    assert len(created) < 30, created


@pytest.mark.parametrize("ordered", [True, False])
def test_inputs_are_pulled_lazily_and_boundedly(ordered: bool) -> None:
    size, pulled = 4, 0

    def inputs() -> Iterator[Any]:
        nonlocal pulled
        for i in range(2000):
            pulled += 1
            yield chat(str(i))

    with ScriptedLLM(max_concurrency=size) as llm:
        results = llm.iter_outputs(inputs(), ordered=ordered)
        assert pulled == 0
        for yielded, _ in enumerate(results):
            assert pulled - yielded <= size * SPREAD
        assert pulled == 2000


def test_iter_outputs_prefetches_at_most_max_concurrency_inputs() -> None:
    pulled = 0

    def inputs() -> Iterator[Any]:
        nonlocal pulled
        for i in range(100):
            pulled += 1
            yield chat(f"wait {i}")

    with ScriptedLLM(max_concurrency=4) as llm:
        future = in_thread(lambda: list(llm.iter_outputs(inputs())))
        llm.calls.wait_until(lambda calls: calls.in_flight == 4)
        settle(llm)
        assert pulled == 8
        llm.release()
        assert len(future.result(PATIENCE)) == 100


@pytest.mark.parametrize("ordered", [True, False])
def test_one_slow_input_does_not_fill_the_memory_with_the_others(ordered: bool) -> None:
    size, pulled, came = 4, 0, []

    def inputs() -> Iterator[Any]:
        nonlocal pulled
        for i in range(size * SPREAD * 5):
            pulled += 1
            yield chat("wait" if i == 0 else str(i))

    def consume(llm: ScriptedLLM) -> None:
        for index, _ in llm.iter_outputs(inputs(), ordered=ordered):
            came.append(index)

    with ScriptedLLM(max_concurrency=size) as llm:
        future = in_thread(lambda: consume(llm))
        if ordered:
            llm.calls.wait_until(lambda calls: len(calls.finished) == size * SPREAD - 1)
            settle(llm)
            assert pulled == size * SPREAD
            assert came == []
        else:
            llm.calls.wait_until(lambda calls: len(calls.finished) == size * SPREAD * 5 - 1)
        llm.release()
        future.result(PATIENCE)
    assert sorted(came) == list(range(size * SPREAD * 5))
    assert (came[0] == 0) is ordered
    assert (came == sorted(came)) is ordered


def test_unordered_results_come_out_as_they_are_finished() -> None:
    with ScriptedLLM(max_concurrency=3) as llm:
        results = llm.iter_outputs(chats("wait", "b", "c"), ordered=False)
        assert {next(results)[0], next(results)[0]} == {1, 2}
        llm.release()
        assert [index for index, _ in results] == [0]


def test_finished_results_are_yielded_while_an_async_source_waits() -> None:
    async def main(llm: ScriptedLLM) -> None:
        answered: asyncio.Queue[str] = asyncio.Queue()

        async def source() -> AsyncIterator[Any]:
            text = "a"
            while len(text) < 5:
                yield chat(text)
                text = await answered.get() + "a"

        came = []
        async for _, output in llm.aiter_outputs(source()):
            came.append(output["generations"][0])
            answered.put_nowait(came[-1])
        assert came == ["a", "aa", "aaa", "aaaa"]

    with ScriptedLLM() as llm:
        asyncio.run(asyncio.wait_for(main(llm), PATIENCE))


def test_pulled_inputs_are_sent_while_a_slow_source_is_read() -> None:
    with ScriptedLLM(max_concurrency=8) as llm:

        def inputs() -> Iterator[Any]:
            yield chat("0")
            threading.Event().wait(0.05)  # a slow pull
            yield chat("1")
            llm.calls.wait_until(lambda calls: len(calls.finished) == 2)
            yield chat("2")

        assert [index for index, _ in llm.iter_outputs(inputs())] == [0, 1, 2]


# Errors


def test_the_first_error_cancels_the_others_and_waits_until_they_have_ended() -> None:
    with ScriptedLLM(max_concurrency=10, cleanup_steps=50) as llm:
        inputs = ["a", "wait b", "wait c", "d", "fail e", *(f"wait {i}" for i in range(30))]
        with pytest.raises(GenerationError, match="fail e failed") as caught:
            llm.generate_outputs(chats(*inputs))
        assert llm.calls.in_flight == 0
        assert caught.value.kind == "server"
        assert len(llm.calls.started) <= 10
        done = [output and output["generations"][0] for output in caught.value.outputs]
        assert done == [text if text in llm.calls.finished else None for text in inputs]
        assert {"a", "d"} <= set(llm.calls.finished)
        # Nothing of it runs on into the next call.
        assert texts(llm.generate_outputs(chats("x"))) == ["x"]
        assert llm.calls.started[-1] == "x"


@pytest.mark.parametrize("how", ["generate", "generate_outputs", "agenerate_outputs"])
def test_an_error_keeps_all_that_was_finished(how: str) -> None:
    class FirstLLM(ScriptedLLM):
        """All calls end in the same turn of the loop, the failing one first."""

    inputs = ["wait fail", *(f"wait {i}" for i in range(9))]
    with FirstLLM(max_concurrency=10) as llm:
        if how == "agenerate_outputs":
            future = in_thread(lambda: asyncio.run(llm.agenerate_outputs(chats(*inputs))))
        else:
            future = in_thread(lambda: getattr(llm, how)(chats(*inputs)))
        llm.calls.wait_until(lambda calls: calls.in_flight == 10)
        llm.release()
        error = future.exception(PATIENCE)
        assert isinstance(error, GenerationError)
        assert llm.calls.in_flight == 0
        done = [output and output["generations"][0] for output in error.outputs]
        assert done == [text if text in llm.calls.finished else None for text in inputs]
        assert len(llm.calls.finished) == 9


def test_the_cause_of_an_error_is_kept() -> None:
    class BrokenLLM(ScriptedLLM):
        async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
            raise ZeroDivisionError("of all things")

    with BrokenLLM() as llm:
        for generate in (llm.generate, llm.generate_outputs):
            with pytest.raises(GenerationError, match="ZeroDivisionError: of all things") as caught:
                generate(chats("a"))
            assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_no_input_is_started_after_an_error_that_will_be_raised() -> None:
    with ScriptedLLM(max_concurrency=2) as llm:
        inputs = ["wait", "fail", *(str(i) for i in range(100))]
        results = llm.iter_outputs(chats(*inputs))
        future = in_thread(lambda: next(results))
        llm.calls.wait_until(lambda calls: len(calls.failed) == 1)
        settle(llm)
        llm.release()
        assert future.result(PATIENCE)[0] == 0
        with pytest.raises(GenerationError, match="fail failed"):
            next(results)
        assert llm.calls.started == ["wait", "fail"]


@pytest.mark.parametrize("ordered", [True, False])
def test_failed_inputs_are_yielded_in_their_place(ordered: bool) -> None:
    inputs = ["a", "fail b", "c", "fail d", "e"]
    with ScriptedLLM() as llm:
        results = dict(llm.iter_outputs(chats(*inputs), on_error="yield", ordered=ordered))
    assert sorted(results) == [0, 1, 2, 3, 4]
    for index, text in enumerate(inputs):
        result = results[index]
        if "fail" in text:
            assert isinstance(result, GenerationError)
            assert result.message == f"{text} failed"
        else:
            assert texts([result]) == [text]


@pytest.mark.parametrize("on_error", ["raise", "yield"])
def test_an_error_that_stops_the_run_is_raised_and_no_input_is_started_after_it(on_error: Any) -> None:
    with ScriptedLLM(max_concurrency=2) as llm:
        inputs = ["wait", "auth", *(str(i) for i in range(100))]
        results = llm.iter_outputs(chats(*inputs), on_error=on_error)
        future = in_thread(lambda: next(results))
        llm.calls.wait_until(lambda calls: len(calls.failed) == 1)
        settle(llm)
        llm.release()
        assert future.result(PATIENCE)[0] == 0
        with pytest.raises(GenerationError, match="the key was refused"):
            next(results)
        assert llm.calls.started == ["wait", "auth"]


def test_an_input_that_is_an_error_is_its_own_result() -> None:
    unreadable = GenerationError("line 2 is not JSON", kind="invalid_input", attempts=0)
    with ScriptedLLM() as llm:
        results = list(llm.iter_outputs([chat("a"), unreadable, chat("c")], on_error="yield"))
        assert [index for index, _ in results] == [0, 1, 2]
        assert results[1][1] is unreadable
        assert sorted(llm.calls.started) == ["a", "c"]
        with pytest.raises(GenerationError, match="line 2"):
            list(llm.iter_outputs([chat("a"), unreadable]))


def test_an_input_that_is_refused_fails_alone_and_before_it_is_sent() -> None:
    with ScriptedLLM() as llm:
        inputs: list[Any] = [chat("a"), 5, [], [{"content": "no role"}], (chat("b"), {"form": 1}), chat("c")]
        results = dict(llm.iter_outputs(inputs, on_error="yield"))
        assert [isinstance(results[i], GenerationError) for i in range(6)] == [False, *[True] * 4, False]
        assert {results[i].kind for i in range(1, 5)} == {"invalid_request"}  # type: ignore[union-attr]
        assert {results[i].attempts for i in range(1, 5)} == {0}  # type: ignore[union-attr]
        assert sorted(llm.calls.started) == ["a", "c"]


def test_a_check_that_breaks_fails_its_input_alone() -> None:
    class PickyLLM(ScriptedLLM):
        def check_input(self, input: Any) -> None:
            super().check_input(input)
            if text_of(input) == "b":
                raise KeyError("the backend's own mistake")

    with PickyLLM() as llm:
        results = dict(llm.iter_outputs(chats("a", "b", "c"), on_error="yield"))
        assert isinstance(results[1], GenerationError)
        assert texts([results[0], results[2]]) == ["a", "c"]


def test_an_error_of_the_source_comes_through_and_ends_the_calls() -> None:
    def inputs() -> Iterator[Any]:
        yield from chats("wait 1", "wait 2")
        llm.calls.wait_until(lambda calls: True)
        raise OSError("the disk is gone")

    async def asynchronous() -> AsyncIterator[Any]:
        for input in inputs():
            yield input

    async def iterate() -> None:
        async for _ in llm.aiter_outputs(asynchronous()):
            pass

    with ScriptedLLM() as llm:
        with pytest.raises(OSError, match="the disk is gone"):
            list(llm.iter_outputs(inputs()))
        with pytest.raises(OSError, match="the disk is gone"):
            asyncio.run(iterate())
        assert llm.calls.in_flight == 0


def test_a_backend_that_swallows_its_cancellation_does_not_hang_the_caller() -> None:
    class StubbornLLM(ScriptedLLM):
        async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
            try:
                return await super().agenerate(input, num_generations)
            except asyncio.CancelledError:
                return prepare_output(["late"])

    with StubbornLLM(max_concurrency=3) as llm:
        for generate in (llm.generate_outputs, lambda inputs: asyncio.run(llm.agenerate_outputs(inputs))):
            future = in_thread(lambda generate=generate: generate(chats("wait", "wait", "fail")))
            error = future.exception(PATIENCE)
            assert isinstance(error, GenerationError)
            # What it answered with after all was finished too.
            assert [output and output["generations"] for output in error.outputs] == [
                ["late"],
                ["late"],
                None,
            ]
        future = in_thread(lambda: llm.generate_outputs(chats("wait", "wait", "wait", "wait")))
        llm.calls.wait_until(lambda calls: calls.in_flight == 3)
        in_thread(llm.unload).result(PATIENCE)
        assert isinstance(future.exception(PATIENCE), GenerationError)


def test_a_backend_that_cancels_its_own_request_fails_that_input() -> None:
    class QuittingLLM(ScriptedLLM):
        async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
            if text_of(input) == "quit":
                raise asyncio.CancelledError
            if text_of(input) == "exit":
                raise SystemExit(3)
            return prepare_output(["fine"])

    with QuittingLLM() as llm:
        results = dict(llm.iter_outputs(chats("a", "quit", "exit", "b"), on_error="yield"))
    assert isinstance(results[1], GenerationError)
    assert isinstance(results[2], GenerationError)
    assert texts([results[0], results[3]]) == ["fine", "fine"]


class Panic(BaseException):
    """As the panics of libraries written in Rust, which tokenizers are."""


class Templated(Exception):
    """An exception whose message is computed, as those of Jinja's templates are."""

    @property
    def message(self) -> str:
        return "computed"


class Mute(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(
    "error",
    [
        Panic("gone"),
        BaseExceptionGroup("several", [Panic("gone")]),
        Templated("no"),
        Mute(),
        KeyboardInterrupt(),
    ],
)
def test_whatever_a_backend_raises_fails_that_input_alone(error: BaseException) -> None:
    """A panic hung the run, and what could not be shown or masked ended it."""

    class RaisingLLM(ScriptedLLM):
        api_key: SecretStr = SecretStr("sk-1234567890abcdef")

        async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
            if text_of(input) == "raise":
                raise error
            return prepare_output(["fine"])

    with RaisingLLM() as llm:
        future = in_thread(
            lambda: list(llm.iter_outputs(chats("a", "raise", "b"), on_error="yield")),
        )
        results = dict(future.result(PATIENCE))
    assert isinstance(results[1], GenerationError)
    assert type(error).__name__ in results[1].message
    assert texts([results[0], results[2]]) == ["fine", "fine"]


@pytest.mark.parametrize("how", ["generate", "iterate", "async"])
def test_unloading_while_generating_is_an_error_and_not_a_hang(how: str) -> None:
    def consume() -> Any:
        inputs = chats(*(f"wait {i}" for i in range(5)))
        if how == "generate":
            return llm.generate_outputs(inputs)
        if how == "iterate":
            return list(llm.iter_outputs(inputs))
        return asyncio.run(llm.agenerate_outputs(inputs))

    llm = ScriptedLLM(cleanup_steps=3)
    llm.load()
    future = in_thread(consume)
    llm.calls.wait_until(lambda calls: calls.in_flight == 5)
    llm.unload()
    assert len(llm.calls.cancelled) == 5
    with pytest.raises(GenerationError, match="unloaded"):
        future.result(PATIENCE)


def test_unload_ends_generation_on_many_threads() -> None:
    def consume(llm: ScriptedLLM) -> None:
        while True:
            llm.generate_outputs(chats("a", "b"))

    for _ in range(20):
        llm = ScriptedLLM(max_concurrency=2)
        llm.load()
        futures = [in_thread(lambda llm=llm: consume(llm)) for _ in range(4)]
        llm.calls.wait_until(lambda calls: len(calls.finished) > 8)
        llm.unload()
        for future in futures:
            assert isinstance(future.exception(PATIENCE), (GenerationError, ConfigurationError))
        assert own_threads() == []


def test_synchronous_call_on_the_llms_own_loop_is_an_error_not_a_deadlock() -> None:
    class RecursiveLLM(ScriptedLLM):
        async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
            reports = []
            for call in (
                lambda: self.generate(chats("b")),
                lambda: self.generate_outputs(chats("b")),
                lambda: list(self.iter_outputs(chats("b"))),
                self.unload,
            ):
                try:
                    call()
                except (ConfigurationError, GenerationError) as error:
                    reports.append(str(error))
            return prepare_output(["\n".join(reports)])

    with RecursiveLLM() as llm:
        future = in_thread(lambda: llm.generate_outputs(chats("a")))
        report = future.result(PATIENCE)[0]["generations"][0]
        assert report is not None
        assert report.count("wait for ever") == 4
        assert "aiter_outputs" in report
        assert llm.is_loaded


# Callers that are coroutines


def test_a_coroutine_of_another_loop_is_answered_without_being_blocked() -> None:
    async def main(llm: ScriptedLLM) -> None:
        task = asyncio.create_task(llm.agenerate_outputs(chats("wait a", "wait b")))
        # This loop goes on while the calls wait, else nobody would release them.
        await asyncio.to_thread(llm.calls.wait_until, lambda calls: calls.in_flight == 2)
        llm.release()
        assert texts(await task) == ["wait a", "wait b"]

    with ScriptedLLM() as llm:
        asyncio.run(main(llm))


def test_coroutines_of_several_loops_share_one_llm() -> None:
    async def main(name: str) -> list[Any]:
        return await llm.agenerate_outputs(chats(*(f"wait {name}{i}" for i in range(10))))

    with ScriptedLLM() as llm:
        futures = [in_thread(lambda name=name: asyncio.run(main(name))) for name in "abc"]
        llm.calls.wait_until(lambda calls: calls.in_flight == 30)
        llm.release()
        for name, future in zip("abc", futures, strict=True):
            assert texts(future.result(PATIENCE)) == [f"wait {name}{i}" for i in range(10)]


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize("ordered", [True, False])
def test_aiter_outputs_takes_any_iterable_lazily(asynchronous: bool, ordered: bool) -> None:
    size, pulled = 4, 0

    def inputs() -> Iterator[Any]:
        nonlocal pulled
        for i in range(1000):
            pulled += 1
            yield chat(str(i))

    async def ainputs() -> AsyncIterator[Any]:
        for input in inputs():
            yield input

    async def main(llm: ScriptedLLM) -> None:
        came = []
        source: Any = ainputs() if asynchronous else inputs()
        async for index, output in llm.aiter_outputs(source, ordered=ordered):
            came.append(index)
            assert output["generations"] == [str(index)]
            assert pulled - len(came) <= size * SPREAD
        assert sorted(came) == list(range(1000))
        if ordered:
            assert came == sorted(came)

    with ScriptedLLM(max_concurrency=size) as llm:
        asyncio.run(main(llm))
        assert llm.calls.peak <= size


def test_errors_of_aiter_outputs_are_those_of_iter_outputs() -> None:
    async def main(llm: ScriptedLLM) -> None:
        results = {i: r async for i, r in llm.aiter_outputs(chats("a", "fail b", "c"), on_error="yield")}
        assert isinstance(results[1], GenerationError)
        assert texts([results[0], results[2]]) == ["a", "c"]
        with pytest.raises(GenerationError, match="fail b"):
            _ = [item async for item in llm.aiter_outputs(chats("a", "fail b", "wait"))]
        with pytest.raises(GenerationError, match="refused"):
            _ = [item async for item in llm.aiter_outputs(chats("a", "auth b"), on_error="yield")]
        assert llm.calls.in_flight == 0
        with pytest.raises(ConfigurationError, match="on_error"):
            llm.aiter_outputs(chats("a"), on_error="ignore")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="temprature"):
            llm.aiter_outputs(chats("a"), temprature=1)
        with pytest.raises(GenerationError, match="fail b") as caught:
            await llm.agenerate_outputs(chats("a", "fail b", "wait"))
        assert caught.value.outputs[2] is None

    with ScriptedLLM() as llm:
        asyncio.run(main(llm))


@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize("asynchronous", [True, False])
def test_leaving_aiter_outputs_early_ends_the_calls(close: bool, asynchronous: bool) -> None:
    async def ainputs() -> AsyncIterator[Any]:
        for input in chats("a", *(f"wait {i}" for i in range(20))):
            yield input

    async def main(llm: ScriptedLLM) -> None:
        source: Any = ainputs() if asynchronous else chats("a", *(f"wait {i}" for i in range(20)))
        results: Any = llm.aiter_outputs(source)
        async for index, _ in results:
            assert index == 0
            break
        if close:
            await results.aclose()
            assert llm.calls.in_flight == 0

    with ScriptedLLM(cleanup_steps=20) as llm:
        asyncio.run(main(llm))
        assert llm.calls.in_flight == 0
        assert llm.is_loaded


@pytest.mark.parametrize("how", ["agenerate_outputs", "aiter_outputs"])
def test_a_cancelled_caller_leaves_nothing_running(how: str) -> None:
    async def consume(llm: ScriptedLLM) -> None:
        inputs = chats(*(f"wait {i}" for i in range(8)))
        if how == "agenerate_outputs":
            await llm.agenerate_outputs(inputs)
        else:
            async for _ in llm.aiter_outputs(inputs):
                pass

    async def main(llm: ScriptedLLM) -> None:
        task = asyncio.create_task(consume(llm))
        await asyncio.to_thread(llm.calls.wait_until, lambda calls: calls.in_flight == 8)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert llm.calls.in_flight == 0

    with ScriptedLLM(cleanup_steps=50) as llm:
        asyncio.run(main(llm))
        assert len(llm.calls.cancelled) == 8


def test_leaving_iter_outputs_early_ends_the_calls() -> None:
    with ScriptedLLM(cleanup_steps=50) as llm:
        results = llm.iter_outputs(chats("a", *(f"wait {i}" for i in range(20))))
        assert next(results)[0] == 0
        results.close()  # type: ignore[attr-defined]
        assert llm.calls.in_flight == 0
        for index, _ in llm.iter_outputs(chats("a", *(f"wait {i}" for i in range(20)))):
            if index == 0:
                break
        settle(llm)
        assert llm.calls.in_flight == 0


# Several generations where the backend makes one a call


def test_a_backend_of_single_generations_is_called_as_often_as_needed() -> None:
    with SingleLLM(max_concurrency=4) as llm:
        first, second = llm.generate_outputs(chats("a", "b"), num_generations=3)
        assert sorted(first["generations"]) == ["a 1", "a 2", "a 3"]  # type: ignore[type-var]
        assert sorted(second["generations"]) == ["b 1", "b 2", "b 3"]  # type: ignore[type-var]
        for output in (first, second):
            assert output["statistics"]["input_tokens"] == [3, 3, 3]
            assert output["finish_reasons"] == ["stop"] * 3
            # Entry i belongs to generation i.
            numbers = [int((text or "")[-1]) for text in output["generations"]]
            assert output["statistics"]["output_tokens"] == numbers
        assert len(llm.calls.started) == 6
        assert all("num_generations" not in arguments for arguments in llm.calls.arguments)
        (single,) = llm.generate_outputs(chats("c"))
        assert single["generations"] == ["c 1"]


def test_single_generation_calls_respect_max_concurrency() -> None:
    with SingleLLM(max_concurrency=4) as llm:
        future = in_thread(
            lambda: list(llm.iter_outputs(chats(*(f"wait {i}" for i in range(10))), num_generations=3))
        )
        llm.calls.wait_until(lambda calls: calls.in_flight == 4)
        settle(llm)
        assert llm.calls.in_flight == 4
        llm.release()
        assert [len(output["generations"]) for _, output in future.result(PATIENCE)] == [3] * 10
        assert llm.calls.peak == 4
        assert len(llm.calls.started) == 30


def test_failed_single_generation_call_fails_its_input_and_keeps_the_rest() -> None:
    with SingleLLM() as llm:
        results = dict(llm.iter_outputs(chats("a", "third"), num_generations=4, on_error="yield"))
        assert len(results[0]["generations"]) == 4  # type: ignore[index]
        error = results[1]
        assert isinstance(error, GenerationError)
        (partial,) = error.outputs
        assert partial is not None
        assert sorted(partial["generations"]) == ["third 1", "third 2", "third 4"]  # type: ignore[type-var]
        with pytest.raises(GenerationError, match="the third one failed") as caught:
            llm.generate_outputs(chats("third x", "wait"), num_generations=3)
        assert caught.value.outputs == [None, None]


def test_first_failed_single_generation_call_is_raised_at_once() -> None:
    with SingleLLM(max_concurrency=1) as llm:
        future = in_thread(lambda: llm.generate_outputs(chats("fail a", "b"), num_generations=3))
        assert "fail a failed" in str(future.exception(PATIENCE))
        future = in_thread(
            lambda: list(llm.iter_outputs(chats("auth a", "b"), num_generations=3, on_error="yield"))
        )
        assert "refused" in str(future.exception(PATIENCE))
        assert llm.calls.started == ["fail a", "auth a"]


def test_an_empty_iterable_gives_nothing() -> None:
    async def main(llm: AsyncLLM) -> None:
        assert [item async for item in llm.aiter_outputs([])] == []
        assert await llm.agenerate_outputs([]) == []

    with EchoLLM() as llm:
        assert llm.generate([]) == []
        assert llm.generate_outputs([]) == []
        assert list(llm.iter_outputs([])) == []
        asyncio.run(main(llm))


class SeededLLM(ScriptedLLM):
    """A backend that makes one generation a call, and the first of them last."""

    _num_generations_param_supported: bool = PrivateAttr(default=False)
    _seeds: list[int | None] = PrivateAttr(default_factory=list)
    _others: asyncio.Event = PrivateAttr(default_factory=asyncio.Event)

    async def agenerate(  # type: ignore[override]
        self, input: FormattedInput, seed: int | None = None
    ) -> GenerateOutput:
        self._seeds.append(seed)
        if seed == 7:
            await asyncio.wait_for(self._others.wait(), PATIENCE)
        elif {8, 9} <= set(self._seeds):
            self._others.set()
        return prepare_output([str(seed)])


def test_merged_generations_have_consecutive_seeds_in_order() -> None:
    with SeededLLM() as llm:
        (output,) = llm.generate_outputs([chat("x")], num_generations=3, seed=7)
        assert output["generations"] == ["7", "8", "9"]
        (output,) = llm.generate_outputs([chat("x")], num_generations=2)
        assert output["generations"] == ["None", "None"]
