"""Inputs with generation parameters of their own, in every way in which a stream of inputs is generated."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from itertools import chain
from typing import Any, ClassVar

import pytest
from pydantic import PrivateAttr

import stillhouse
from stillhouse import LLM, AsyncLLM, ConfigurationError, GenerationError
from stillhouse._execution.stopping import Stop, stopping_with
from stillhouse.outputs import prepare_output
from stillhouse.protocols import InputWithArguments, Row, RowInputs
from stillhouse.registry import Registry
from stillhouse.typing import Capability, FormattedInput, GenerateOutput

from ..support import chat, text_of


class RecordingLLM(AsyncLLM):
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"chat", "num_generations", "seed"})
    several: bool = True
    _calls: list[tuple[str, int, dict[str, Any]]] = PrivateAttr(default_factory=list)
    _checks: list[dict[str, Any]] = PrivateAttr(default_factory=list)

    @property
    def model_name(self) -> str:
        return "recording"

    def load(self) -> None:
        self._num_generations_param_supported = self.several
        super().load()

    def check_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self._checks.append(arguments)
        return super().check_arguments(arguments)

    async def agenerate(  # type: ignore[override]
        self,
        input: FormattedInput,
        num_generations: int = 1,
        temperature: float | None = None,
        seed: int | None = None,
        stop: str | list[str] | None = None,
    ) -> GenerateOutput:
        await asyncio.sleep(0)
        given = {"temperature": temperature, "seed": seed, "stop": stop}
        self._calls.append(
            (text_of(input), num_generations, {k: v for k, v in given.items() if v is not None})
        )
        return prepare_output([text_of(input)] * num_generations)


class RecordingSyncLLM(LLM):
    _calls: list[tuple[list[str], dict[str, Any]]] = PrivateAttr(default_factory=list)
    _checks: list[dict[str, Any]] = PrivateAttr(default_factory=list)
    _raises: dict[str, Exception] = PrivateAttr(default_factory=dict)
    _stop: Any = PrivateAttr(default=None)

    @property
    def model_name(self) -> str:
        return "recording"

    def check_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self._checks.append(arguments)
        return super().check_arguments(arguments)

    def generate(  # type: ignore[override]
        self,
        inputs: list[FormattedInput],
        num_generations: int = 1,
        temperature: float | None = None,
        seed: int | None = None,
    ) -> list[GenerateOutput]:
        texts = [text_of(input) for input in inputs]
        given = {"temperature": temperature, "seed": seed}
        self._calls.append((texts, {k: v for k, v in given.items() if v is not None}))
        for text in texts:
            if text in self._raises:
                raise self._raises[text]
            if text == "interrupt":
                signal.raise_signal(signal.SIGINT)
            if text == "stop":
                self._stop.request()
        return [prepare_output([text] * num_generations) for text in texts]


class Inputs(RowInputs):
    """Texts, each with its own arguments or `None`."""

    has_arguments = True

    def __init__(self, items: list[tuple[str, dict[str, Any] | None]]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        for text, own in self._items:
            yield (
                chat(text) if own is None else InputWithArguments(chat(text), own, repr(sorted(own.items())))
            )

    def row_at(self, position: int) -> Row:
        return Row(position, position + 1, {})


async def _all(results: Any) -> list[Any]:
    return [item async for item in results]


def iterate(llm: Any, inputs: Any, *args: Any, **arguments: Any) -> dict[int, Any]:
    return dict(llm.iter_outputs(inputs, *args, **arguments))


def aiterate(llm: Any, inputs: Any, *args: Any, **arguments: Any) -> dict[int, Any]:
    return dict(asyncio.run(_all(llm.aiter_outputs(inputs, *args, **arguments))))


ASYNC = pytest.mark.parametrize("generate", [iterate, aiterate])


@ASYNC
def test_an_inputs_own_arguments_win_over_those_of_the_call_and_of_the_llm(generate: Any) -> None:
    items = [("a", {"temperature": 0.1}), ("b", None), ("c", {"stop": ["x"]}), ("d", {"temperature": 0.1})]
    with RecordingLLM(generation_kwargs={"temperature": 0.9, "seed": 3}) as llm:
        outputs = generate(llm, Inputs(items), temperature=0.5)
    assert [outputs[place]["generations"] for place in range(4)] == [["a"], ["b"], ["c"], ["d"]]
    assert sorted(llm._calls) == [
        ("a", 1, {"temperature": 0.1, "seed": 3}),
        ("b", 1, {"temperature": 0.5, "seed": 3}),
        ("c", 1, {"temperature": 0.5, "seed": 3, "stop": ["x"]}),
        ("d", 1, {"temperature": 0.1, "seed": 3}),
    ]


@ASYNC
def test_arguments_are_checked_once_for_each_different_set(generate: Any) -> None:
    items = [(str(number), {"temperature": number % 3 / 10}) for number in range(300)]
    with RecordingLLM() as llm:
        generate(llm, Inputs(items))
    assert len(llm._checks) == 1 + 3  # those of the call, and each set


@ASYNC
def test_a_seed_of_an_input_is_raised_for_each_of_its_calls(generate: Any) -> None:
    items = [("a", {"seed": 70}), ("b", None), ("c", {"temperature": 0.2})]
    with RecordingLLM(several=False) as llm:
        outputs = generate(llm, Inputs(items), 3, seed=10)
    assert all(
        output["generations"] == [text] * 3 for output, text in zip(outputs.values(), "abc", strict=True)
    )
    assert sorted((text, given["seed"]) for text, _, given in llm._calls) == [
        ("a", 70), ("a", 71), ("a", 72), ("b", 10), ("b", 11), ("b", 12), ("c", 10), ("c", 11), ("c", 12),
    ]  # fmt: skip


@ASYNC
def test_a_wrong_argument_fails_its_input_alone_and_nothing_is_sent_for_it(generate: Any) -> None:
    items = [("a", {"temperature": "hot"}), ("b", None), ("c", {"heat": 1}), ("d", {"temperature": 1})]
    with RecordingLLM() as llm:
        outputs = generate(llm, Inputs(items), on_error="yield")
    assert sorted(text for text, _, _ in llm._calls) == ["b", "d"]
    for place, name in ((0, "temperature"), (2, "heat")):
        error = outputs[place]
        assert isinstance(error, GenerationError)
        assert (error.kind, error.attempts) == ("invalid_input", 0)
        assert name in error.message


def test_an_input_that_is_an_error_stays_one() -> None:
    class Broken(Inputs):
        def __iter__(self) -> Iterator[Any]:
            yield GenerationError("line 1: broken", kind="invalid_input", attempts=0)
            yield from super().__iter__()

    with RecordingLLM() as llm:
        outputs = iterate(llm, Broken([("a", {"seed": 1})]), on_error="yield")
    assert outputs[0].message == "line 1: broken"
    assert llm._calls == [("a", 1, {"seed": 1})]


@pytest.mark.parametrize("kind", [RecordingLLM, RecordingSyncLLM])
def test_hooks_are_shown_the_arguments_that_hold_for_each_input(kind: Any, registry: Registry) -> None:
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}

    class Watcher:
        @stillhouse.hookimpl
        def before_generate(self, input: Any, arguments: Any) -> None:
            before[text_of(input)] = arguments

        @stillhouse.hookimpl
        def after_generate(self, input: Any, arguments: Any) -> None:
            after[text_of(input)] = arguments

    registry.register_hooks("watcher", Watcher())
    llm = kind()
    llm.use_registry(registry)
    with llm:
        items = [("a", {"temperature": 0.1}), ("b", None), ("c", {"temperature": 0.1})]
        iterate(llm, Inputs(items), seed=4)
    assert before == {
        "a": {"temperature": 0.1, "seed": 4},
        "b": {"seed": 4},
        "c": {"temperature": 0.1, "seed": 4},
    }
    # One dict for those that have the same, before and after: a hook knows by it what belongs together.
    assert before["a"] is before["c"] is after["a"] is after["c"]
    assert before["b"] is after["b"] is not before["a"]


def test_a_list_is_generated_for_in_one_call_for_each_set_of_arguments() -> None:
    items = [
        (f"{number:02}", None if number % 3 == 0 else {"temperature": number % 3 / 10})
        for number in range(32)
    ]
    with RecordingSyncLLM() as llm:
        outputs = iterate(llm, Inputs(items))
    assert [outputs[place]["generations"] for place in range(32)] == [[text] for text, _ in items]
    assert sorted(llm._calls) == [
        ([f"{number:02}" for number in range(32) if number % 3 == rest], given)
        for rest, given in ((0, {}), (1, {"temperature": 0.1}), (2, {"temperature": 0.2}))
    ]
    assert len(llm._checks) == 1 + 2


def test_a_failed_call_of_one_set_leaves_the_others_alone() -> None:
    items = [("a", {"seed": 1}), ("b", {"seed": 2}), ("c", {"seed": 1}), ("d", {"seed": 2})]
    with RecordingSyncLLM() as llm:
        llm._raises["c"] = GenerationError("broken", kind="server")
        outputs = iterate(llm, Inputs(items), on_error="yield")
    assert [isinstance(outputs[place], GenerationError) for place in range(4)] == [False, False, True, False]


def test_an_error_that_stops_the_run_asks_for_no_other_set() -> None:
    items = [("a", {"seed": 1}), ("b", {"seed": 2})]
    with RecordingSyncLLM() as llm:
        llm._raises["a"] = GenerationError("refused", kind="authentication")
        with pytest.raises(GenerationError, match="refused"):
            iterate(llm, Inputs(items), on_error="yield")
    assert [texts for texts, _ in llm._calls] == [["a"]]


def test_what_one_set_got_is_given_out_before_an_interrupt_of_the_next() -> None:
    items = [("a", {"seed": 1}), ("interrupt", {"seed": 2}), ("c", {"seed": 3})]
    taken: list[Any] = []
    with RecordingSyncLLM() as llm, pytest.raises(KeyboardInterrupt):
        taken.extend(chain.from_iterable(llm.iter_finished(Inputs(items), on_error="yield")))
    assert [(index, output["generations"]) for index, output, _ in taken] == [(0, ["a"])]
    assert [texts for texts, _ in llm._calls] == [["a"], ["interrupt"]]


def test_no_further_set_is_asked_for_once_the_run_stops() -> None:
    items = [("stop", {"seed": 1}), ("b", {"seed": 2})]
    taken: list[Any] = []
    stop = Stop()
    with RecordingSyncLLM() as llm, stopping_with(stop):
        llm._stop = stop
        with pytest.raises(asyncio.CancelledError):
            taken.extend(chain.from_iterable(llm.iter_finished(Inputs(items), on_error="yield")))
    assert [output["generations"] for _, output, _ in taken] == [["stop"]]
    assert [texts for texts, _ in llm._calls] == [["stop"]]


def test_without_the_flag_an_input_with_arguments_is_none() -> None:
    class Plain(Inputs):
        has_arguments = False

    with RecordingLLM() as llm, pytest.raises(ConfigurationError, match="InputWithArguments"):
        iterate(llm, Plain([("a", {"seed": 1})]))
