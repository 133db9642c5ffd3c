"""What hooks see of a call, in every way of making one."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

import stillhouse
from stillhouse import GenerationError
from stillhouse.outputs import prepare_output
from stillhouse.protocols import Row, RowInputs
from stillhouse.registry import Registry

from ..support import ScriptedLLM, SyncLLM, chat, chats, text_of


class Recorder:
    """Answers inputs that begin with `cached`, and writes down everything."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    @stillhouse.hookimpl
    def before_generate(self, llm: Any, input: Any, num_generations: int, arguments: Any) -> Any:
        self.events.append(("before", text_of(input), num_generations, dict(arguments), llm.model_name))
        if text_of(input).startswith("cached"):
            return prepare_output(["from the cache"] * num_generations)
        if text_of(input).startswith("short"):
            return prepare_output(["x"] * (num_generations + 1))
        return None

    @stillhouse.hookimpl
    def after_generate(self, input: Any, output: Any, error: Any, from_hook: bool) -> None:
        assert (output is None) is not (error is None)
        became = output["generations"][0] if output else error.message
        text = None if input is None else text_of(input)
        self.events.append(("after", text, became, from_hook))

    def of(self, kind: str) -> list[Any]:
        return sorted(event[1:] for event in self.events if event[0] == kind)


async def _collect(results: Any) -> Any:
    return [item async for item in results]


def iterate(llm: Any, inputs: Any, **arguments: Any) -> list[Any]:
    return [result for _, result in llm.iter_outputs(inputs, **arguments)]


def aiterate(llm: Any, inputs: Any, **arguments: Any) -> list[Any]:
    return [result for _, result in asyncio.run(_collect(llm.aiter_outputs(inputs, **arguments)))]


def agenerate(llm: Any, inputs: Any, **arguments: Any) -> Any:
    return asyncio.run(llm.agenerate_outputs(inputs, **arguments))


WAYS = [
    pytest.param(SyncLLM, SyncLLM.generate_outputs, id="sync generate_outputs"),
    pytest.param(SyncLLM, iterate, id="sync iter_outputs"),
    pytest.param(ScriptedLLM, ScriptedLLM.generate_outputs, id="generate_outputs"),
    pytest.param(ScriptedLLM, iterate, id="iter_outputs"),
    pytest.param(ScriptedLLM, agenerate, id="agenerate_outputs"),
    pytest.param(ScriptedLLM, aiterate, id="aiter_outputs"),
]
ALL = pytest.mark.parametrize(("kind", "generate"), WAYS)


def with_hooks(kind: Any, registry: Registry, **fields: Any) -> tuple[Any, Recorder]:
    recorder = Recorder()
    registry.register_hooks("recorder", recorder)
    llm = kind(**fields)
    llm.use_registry(registry)
    return llm, recorder


@ALL
def test_hooks_see_each_input_before_and_after_generation(
    kind: Any, generate: Any, registry: Registry
) -> None:
    llm, recorder = with_hooks(kind, registry, model="m", generation_kwargs={"temperature": 0.5})
    with llm:
        outputs = generate(llm, chats("a", "b"), num_generations=2, stop=["x"])
    assert [output["generations"] for output in outputs] == [["a"] * 2, ["b"] * 2]
    arguments = {"temperature": 0.5, "stop": ["x"]}
    assert recorder.of("before") == [("a", 2, arguments, "m"), ("b", 2, arguments, "m")]
    assert recorder.of("after") == [("a", "a", False), ("b", "b", False)]
    for text in ("a", "b"):
        kinds = [event[0] for event in recorder.events if event[1] == text]
        assert kinds == ["before", "after"]


@ALL
def test_an_answer_of_a_hook_takes_the_place_of_the_call(
    kind: Any, generate: Any, registry: Registry
) -> None:
    llm, recorder = with_hooks(kind, registry)
    with llm:
        outputs = generate(llm, chats("a", "cached 1", "b", "cached 2"))
        assert [output["generations"][0] for output in outputs] == [
            "a",
            "from the cache",
            "b",
            "from the cache",
        ]
        sent = llm.batches[0] if isinstance(llm, SyncLLM) else llm.calls.started
        assert sorted(sent) == ["a", "b"]
        assert generate(llm, chats("cached 3"))[0]["generations"] == ["from the cache"]
    assert recorder.of("after") == [
        ("a", "a", False),
        ("b", "b", False),
        ("cached 1", "from the cache", True),
        ("cached 2", "from the cache", True),
        ("cached 3", "from the cache", True),
    ]


@ALL
def test_hook_answer_of_the_wrong_length_is_ignored(
    kind: Any, generate: Any, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    llm, recorder = with_hooks(kind, registry)
    with llm, caplog.at_level(logging.WARNING, "stillhouse"):
        (output,) = generate(llm, chats("short"), num_generations=2)
    assert output["generations"] == ["short"] * 2
    assert recorder.of("after") == [("short", "short", False)]
    assert "before_generate" in caplog.text


@ALL
def test_hooks_see_an_error_as_a_generation_error(kind: Any, generate: Any, registry: Registry) -> None:
    llm, recorder = with_hooks(kind, registry)
    with llm, pytest.raises(GenerationError, match="fail a failed"):
        generate(llm, chats("fail a"))
    assert recorder.of("after") == [("fail a", "fail a failed", False)]


@pytest.mark.parametrize("kind", [SyncLLM, ScriptedLLM])
def test_before_hook_does_not_see_refused_inputs_or_errors(kind: Any, registry: Registry) -> None:
    llm, recorder = with_hooks(kind, registry)
    unreadable = GenerationError("line 2", kind="invalid_input")
    with llm:
        refused: Any = ([], None)
        results = iterate(llm, [chat("a"), unreadable, refused], on_error="yield")
    assert results[1] is unreadable
    assert recorder.of("before") == [("a", 1, {}, llm.model_name)]
    after = [event[1:] for event in recorder.events if event[0] == "after"]
    assert ("a", "a", False) in after
    assert (None, "line 2", False) in after


@ALL
def test_a_hook_that_raises_is_reported_and_passed_over(
    kind: Any, generate: Any, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        @stillhouse.hookimpl
        def before_generate(self, input: Any) -> Any:
            raise OSError("the disk is full")

        @stillhouse.hookimpl
        def after_generate(self, input: Any) -> None:
            raise OSError("the disk is full")

    registry.register_hooks("broken", Broken())
    llm = kind()
    llm.use_registry(registry)
    with llm, caplog.at_level(logging.WARNING, "stillhouse"):
        outputs = generate(llm, chats(*"abc"))
    assert [output["generations"] for output in outputs] == [["a"], ["b"], ["c"]]
    assert 1 <= caplog.text.count("the disk is full") <= 2


@ALL
def test_outside_a_run_there_is_no_row(kind: Any, generate: Any, registry: Registry) -> None:
    rows: list[Any] = []

    class Watcher:
        @stillhouse.hookimpl
        def before_generate(self, row: Any) -> None:
            rows.append(row)

        @stillhouse.hookimpl
        def after_generate(self, row: Any) -> None:
            rows.append(row)

    registry.register_hooks("watcher", Watcher())
    llm = kind()
    llm.use_registry(registry)
    with llm:
        generate(llm, chats("a"))
    assert rows == [None, None]


@pytest.mark.parametrize(("kind", "generate"), [WAYS[1].values, WAYS[3].values, WAYS[5].values])
def test_inputs_that_were_made_of_rows_are_shown_with_them(
    kind: Any, generate: Any, registry: Registry
) -> None:
    class Inputs(RowInputs):
        def __iter__(self) -> Any:
            return (chat(f"text {position}") for position in range(20))

        def row_at(self, position: int) -> Row:
            return Row(100 + position, 1, {"text": f"text {position}"})

    seen: list[Any] = []

    class Watcher:
        @stillhouse.hookimpl
        def before_generate(self, input: Any, row: Any) -> None:
            seen.append((text_of(input), row.index, row.columns["text"]))

        @stillhouse.hookimpl
        def after_generate(self, output: Any, row: Any) -> None:
            seen.append((output["generations"][0], row.index, row.columns["text"]))

    registry.register_hooks("watcher", Watcher())
    llm = kind()
    llm.use_registry(registry)
    with llm:
        generate(llm, Inputs())
    assert sorted(seen) == sorted([(f"text {n}", 100 + n, f"text {n}") for n in range(20)] * 2)


def test_call_without_registered_hooks_calls_none(registry: Registry) -> None:
    llm = ScriptedLLM()
    llm.use_registry(registry)
    with llm:
        call = llm._begin_call(1, {})
        assert not call.has_hooks
        assert call._before is None
        assert call._after is None


def test_an_llm_calls_the_hooks_of_the_registry_that_made_it(registry: Registry) -> None:
    recorder = Recorder()
    registry.register_hooks("recorder", recorder)
    with registry.create("echo") as made, stillhouse.EchoLLM() as other:
        other.generate_outputs(chats("other"))
        assert recorder.events == []
        made.generate_outputs(chats("made"))
        assert recorder.of("before") == [("made", 1, {}, "echo")]


@ALL
def test_hooks_are_shown_how_long_a_call_took(kind: Any, generate: Any, registry: Registry) -> None:
    times: dict[Any, float] = {}

    class Clock:
        @stillhouse.hookimpl
        def before_generate(self, input: Any) -> Any:
            return stillhouse.prepare_output(["kept"]) if text_of(input) == "b" else None

        @stillhouse.hookimpl
        def after_generate(self, output: Any, seconds: float) -> None:
            times[output["generations"][0]] = seconds

    registry.register_hooks("clock", Clock())
    llm = kind()
    llm.use_registry(registry)
    with llm:
        generate(llm, chats("a", "b"))
    assert times["kept"] == 0
    assert times["a"] > 0
