"""`stream` and `astream`: pieces of one generation, and last its output."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import pytest

import stillhouse
from stillhouse import (
    ConfigurationError,
    EchoLLM,
    FormattedInput,
    GenerateOutput,
    GenerationError,
    UnsupportedError,
)
from stillhouse.outputs import prepare_output
from stillhouse.registry import Registry

from ..support import PATIENCE, ScriptedLLM, SingleLLM, SyncLLM, chat, in_thread, text_of


class PiecesLLM(ScriptedLLM):
    """Streams letters, and waits at each full stop until `release()`; what follows a bar is withdrawn."""

    async def agenerate_streamed(self, input: FormattedInput, on_piece: Any, **kwargs: Any) -> GenerateOutput:
        text = text_of(input)
        with self._calls.call(text, **kwargs):
            for letter in text:
                if letter == ".":
                    await self._gate.wait()
                if letter == "!":
                    raise GenerationError("it broke", kind="connection")
                on_piece(letter if letter != "5" else 5)
        if "|" in text:
            return prepare_output([None], finish_reasons=["content_filter"])
        return prepare_output([text], finish_reasons=["stop"])


async def _collect(items: Any) -> list[Any]:
    return [item async for item in items]


def streamed(llm: Any, input: Any, **arguments: Any) -> list[Any]:
    return list(llm.stream(input, **arguments))


def astreamed(llm: Any, input: Any, **arguments: Any) -> list[Any]:
    return asyncio.run(_collect(llm.astream(input, **arguments)))


WAYS = pytest.mark.parametrize("stream", [streamed, astreamed])


@WAYS
def test_pieces_come_first_and_the_output_last(stream: Any) -> None:
    with PiecesLLM() as llm:
        *pieces, output = stream(llm, chat("abc"))
        (given,) = llm.generate_outputs([chat("abc")])
    assert pieces == ["a", "b", "c"]
    assert output["generations"] == given["generations"] == ["abc"]


@WAYS
def test_a_piece_is_there_before_the_next_one_is_made(stream: Any) -> None:
    with PiecesLLM() as llm:
        if stream is streamed:
            items = llm.stream(chat("a.b"))
            assert next(items) == "a"
            llm.release()
            assert list(items)[:-1] == [".", "b"]
            return

        async def main() -> None:
            items = llm.astream(chat("a.b"))
            assert await anext(items) == "a"
            llm.release()
            assert (await _collect(items))[:-1] == [".", "b"]

        asyncio.run(main())


@pytest.mark.parametrize("kind", [SyncLLM, ScriptedLLM])
def test_a_backend_without_pieces_gives_the_whole_text_at_once(kind: Any) -> None:
    with kind() as llm:
        text, output = llm.stream(chat("all of it"))
        assert text == "all of it"
        assert output == llm.generate_outputs([chat("all of it")])[0]


def test_a_backend_of_one_generation_a_call_is_called_once() -> None:
    with SingleLLM() as llm:
        text, output = llm.stream(chat("x"), temperature=0.5)
        assert (text, output["generations"]) == ("x 1", ["x 1"])  # type: ignore[index]
        assert llm.calls.arguments == [{"temperature": 0.5}]


@WAYS
def test_a_text_that_is_withdrawn_is_none_in_the_output(stream: Any) -> None:
    with PiecesLLM() as llm:
        *pieces, output = stream(llm, chat("a|"))
    assert pieces == ["a", "|"]
    assert output["generations"] == [None]
    assert output["finish_reasons"] == ["content_filter"]


@WAYS
@pytest.mark.parametrize("kind", [SyncLLM, PiecesLLM, EchoLLM])
def test_what_is_wrong_is_said_at_once_and_not_at_the_first_piece(kind: Any, stream: Any) -> None:
    if stream is astreamed and kind is SyncLLM:
        pytest.skip("it has no coroutines")
    llm = kind()
    start = (lambda *args, **kwargs: llm.stream(*args, **kwargs)) if stream is streamed else llm.astream
    with pytest.raises(ConfigurationError, match="not loaded"):
        start(chat())
    with llm:
        with pytest.raises(ConfigurationError, match="num_generations"):
            start(chat(), num_generations=2)
        with pytest.raises(ConfigurationError, match="no generation parameter 'wrong'"):
            start(chat(), wrong=1)
        with pytest.raises(ConfigurationError):
            start(5)
        llm.use_offline_batch_generation = True
        with pytest.raises(UnsupportedError, match="offline batch"):
            start(chat())


@WAYS
def test_an_error_follows_the_pieces_before_it(stream: Any) -> None:
    with PiecesLLM() as llm:
        items = llm.stream(chat("ab!"))
        assert [next(items), next(items)] == ["a", "b"]
        with pytest.raises(GenerationError, match="it broke") as caught:
            next(items)
        assert caught.value.kind == "connection"
        with pytest.raises(GenerationError, match="it broke"):
            stream(llm, chat("!"))


def test_a_piece_that_is_no_text_is_a_mistake_of_the_backend() -> None:
    with PiecesLLM() as llm, pytest.raises(GenerationError, match="on_piece takes a text, not int"):
        list(llm.stream(chat("a5")))


def test_leaving_a_stream_ends_its_call() -> None:
    with PiecesLLM(max_concurrency=1) as llm:
        items: Any = llm.stream(chat("a.b"))
        next(items)
        items.close()
        assert llm.calls.cancelled == ["a.b"]
        assert [*llm.stream(chat("c"))][:-1] == ["c"]  # its slot is free


def test_leaving_a_stream_as_a_coroutine_ends_its_call() -> None:
    async def main() -> None:
        async with contextlib.aclosing(llm.astream(chat("a.b"))) as items:  # type: ignore[type-var]
            async for _ in items:
                break
        assert llm.calls.cancelled == ["a.b"]
        waiting = asyncio.create_task(_collect(llm.astream(chat(".c"))))
        await asyncio.to_thread(llm.calls.wait_until, lambda calls: calls.in_flight == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert llm.calls.cancelled == ["a.b", ".c"]

    with PiecesLLM(max_concurrency=1) as llm:
        asyncio.run(main())


def test_a_stream_that_nobody_reads_starts_nothing() -> None:
    with PiecesLLM() as llm:
        llm.stream(chat("a"))
        assert llm.calls.started == []


def test_streams_count_towards_max_concurrency() -> None:
    with PiecesLLM(max_concurrency=2) as llm:
        futures = [in_thread(lambda name=name: list(llm.stream(chat(f".{name}")))) for name in "abcd"]
        llm.calls.wait_until(lambda calls: calls.in_flight == 2)
        llm.release()
        assert [future.result(PATIENCE)[0] for future in futures] == ["."] * 4
        assert llm.calls.peak == 2


def test_unloading_ends_a_stream() -> None:
    llm = PiecesLLM()
    llm.load()
    items = llm.stream(chat("a."))
    next(items)
    llm.unload()
    with pytest.raises(GenerationError, match="unloaded"):
        next(items)


def test_a_synchronous_engine_streams_from_a_thread_and_stops_at_the_next_piece() -> None:
    gate, left = threading.Event(), threading.Event()

    class Engine(SyncLLM):
        def generate_streamed(self, input: Any, on_piece: Any, **kwargs: Any) -> GenerateOutput:
            text = text_of(input)
            try:
                for letter in text:
                    if letter == ".":
                        assert gate.wait(PATIENCE)
                    on_piece(letter)
            except asyncio.CancelledError:
                left.set()
                raise
            return prepare_output([text])

    with Engine() as llm:
        items: Any = llm.stream(chat("a.b"))
        assert next(items) == "a"
        gate.set()
        assert list(items)[:2] == [".", "b"]
        gate.clear()
        items = llm.stream(chat("a.b"))
        next(items)
        gate.set()
        items.close()
        assert left.is_set()


class Recorder:
    def __init__(self) -> None:
        self.events: list[Any] = []

    @stillhouse.hookimpl
    def before_generate(self, input: Any, num_generations: int, arguments: Any) -> Any:
        self.events.append(("before", text_of(input), num_generations, dict(arguments)))
        return prepare_output(["from the cache"]) if text_of(input) == "cached" else None

    @stillhouse.hookimpl
    def after_generate(self, output: Any, error: Any, from_hook: bool) -> None:
        self.events.append(("after", output["generations"] if output else error.message, from_hook))


@WAYS
@pytest.mark.parametrize("kind", [SyncLLM, PiecesLLM])
def test_hooks_see_one_generation(kind: Any, stream: Any, registry: Registry) -> None:
    if stream is astreamed and kind is SyncLLM:
        pytest.skip("it has no coroutines")
    recorder = Recorder()
    registry.register_hooks("recorder", recorder)
    llm = kind()
    llm.use_registry(registry)
    with llm:
        assert "".join(stream(llm, chat("abc"), temperature=0.5)[:-1]) == "abc"
        assert stream(llm, chat("cached"))[0] == "from the cache"
        bad = "auth" if kind is SyncLLM else "x!"
        with pytest.raises(GenerationError) as caught:
            stream(llm, chat(bad))
    assert recorder.events == [
        ("before", "abc", 1, {"temperature": 0.5}),
        ("after", ["abc"], False),
        ("before", "cached", 1, {}),
        ("after", ["from the cache"], True),
        ("before", bad, 1, {}),
        ("after", caught.value.message, False),
    ]


def test_echo_streams_words_and_spreads_its_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = []
    real = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await real(0)

    with EchoLLM(latency=3.0) as llm:
        monkeypatch.setattr("stillhouse.echo.asyncio.sleep", sleep)
        *pieces, output = llm.stream(chat("one  two\nthree"))
        llm.failure_rate = 1.0
        with pytest.raises(GenerationError, match="echo simulated a failure"):
            list(llm.stream(chat("x")))
        monkeypatch.undo()
    assert pieces == ["one  ", "two\n", "three"]
    assert output["generations"] == ["one  two\nthree"]  # type: ignore[index]
    assert slept == [1.0, 1.0, 1.0, 3.0]
