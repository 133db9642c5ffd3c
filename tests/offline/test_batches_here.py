"""A batch of an engine on this machine is generated at once, in the engine's order."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import pytest

from stillhouse import (
    ConfigurationError,
    FormattedInput,
    GenerationError,
    OfflineBatchNotFinishedError,
    UnsupportedError,
)
from stillhouse.typing import CAPABILITIES, Capability

from ..support import ScriptedLLM, SyncLLM, chat, chats, text_of

WITHOUT = CAPABILITIES - {"offline_batch"}
WORDS = ["clementine", "fig", "kiwi", "plum", "apple", "fig"]
IN_ORDER = ["fig", "fig", "kiwi", "plum", "apple", "clementine"]


class LengthMixin:
    capabilities: ClassVar[frozenset[Capability]] = WITHOUT

    def batch_key(self, input: FormattedInput) -> int | str | None:
        return len(text_of(input))


class EngineLLM(LengthMixin, ScriptedLLM):
    """One call for each input."""


class SyncEngineLLM(LengthMixin, SyncLLM):
    """One call for all inputs."""


def engine(kind: Any = EngineLLM, **fields: Any) -> Any:
    return kind(use_offline_batch_generation=True, **fields)


def texts(outputs: Any) -> list[Any]:
    return [output and output["generations"] for output in outputs]


def test_outputs_come_in_the_order_of_the_inputs() -> None:
    with engine(max_concurrency=1, offline_batch_generation_block_until_done=60.0) as llm:
        outputs = llm.generate_outputs(chats(*WORDS), 2, temperature=0.5)
        assert texts(outputs) == [[word] * 2 for word in WORDS]
        assert llm.calls.started == IN_ORDER
        assert llm.calls.arguments[0] == {"num_generations": 2, "temperature": 0.5, "stop": None}
        assert texts(asyncio.run(llm.agenerate_outputs(chats(*WORDS)))) == [[word] for word in WORDS]
        assert llm.calls.started == IN_ORDER * 2
        assert llm.generate_outputs([]) == llm.offline_batch_generate([]) == []
        assert (llm.jobs_ids, llm.jobs_digest) == (None, None)


def test_a_list_in_one_call_is_in_order_too() -> None:
    with engine(SyncEngineLLM) as llm:
        assert texts(llm.generate_outputs(chats(*WORDS))) == [[word] for word in WORDS]
        assert llm.batches == [IN_ORDER]
        llm.use_offline_batch_generation = False
        llm.generate_outputs(chats(*WORDS))
        assert llm.batches[1] == WORDS


def test_offline_batch_generate_needs_no_second_call() -> None:
    with EngineLLM(max_concurrency=1) as llm:
        assert texts(llm.offline_batch_generate(chats(*WORDS), 2)) == [[word] * 2 for word in WORDS]
        assert llm.calls.started == IN_ORDER
        with pytest.raises(ConfigurationError, match="there is nothing to collect"):
            llm.offline_batch_generate()
        with pytest.raises(ConfigurationError, match="temprature"):
            llm.offline_batch_generate(chats("a"), temprature=1.0)


@pytest.mark.parametrize("is_async", [False, True])
def test_an_error_keeps_what_was_finished_in_the_order_of_the_inputs(is_async: bool) -> None:
    words = ["clementine", "fig", "fail plum", "kiwi"]
    with engine(max_concurrency=1) as llm:
        inputs = chats(*words)
        with pytest.raises(GenerationError) as caught:
            asyncio.run(llm.agenerate_outputs(inputs)) if is_async else llm.generate_outputs(inputs)
    assert texts(caught.value.outputs) == [None, ["fig"], None, ["kiwi"]]


def test_inputs_are_checked_before_any_is_generated_for() -> None:
    with engine() as llm, pytest.raises(ConfigurationError):
        llm.generate_outputs([chat("fig"), []])
    assert llm.calls.started == []


def test_a_stream_is_no_batch() -> None:
    with engine() as llm, pytest.raises(UnsupportedError, match="takes all its inputs at once"):
        llm.iter_outputs(chats("a"))


@pytest.mark.parametrize(
    ("keys", "order"),
    [
        ({"a": None, "b": None, "c": None}, "abc"),
        ({"a": "b", "b": "", "c": "a\0"}, "bca"),
        ({"a": "\ud83d", "b": "\uffff", "c": "\U0001f600"}, "abc"),
        ({"a": 2**70, "b": -(2**70), "c": True}, "bca"),
        ({"a": "1", "b": 2, "c": None}, "cba"),
        ({"a": 1, "b": KeyError("x"), "c": 0}, "bca"),
    ],
)
def test_keys_of_any_kind_have_an_order(keys: dict[str, Any], order: str) -> None:
    class LLM(EngineLLM):
        def batch_key(self, input: FormattedInput) -> Any:
            key = keys[text_of(input)]
            if isinstance(key, Exception):
                raise key
            return key

    with engine(LLM, max_concurrency=1) as llm:
        assert texts(llm.generate_outputs(chats(*"abc"))) == [["a"], ["b"], ["c"]]
        assert "".join(llm.calls.started) == order


def test_what_is_no_key_is_refused() -> None:
    class LLM(EngineLLM):
        def batch_key(self, input: FormattedInput) -> Any:
            return 0.5

    with engine(LLM) as llm, pytest.raises(ConfigurationError, match="batch_key returned a float"):
        llm.generate_outputs(chats("a"))


def test_a_provider_s_batches_come_first() -> None:
    """A backend that submits batches submits them, whatever order its inputs have."""

    class LLM(EngineLLM):
        capabilities: ClassVar[frozenset[Capability]] = CAPABILITIES

        def offline_batch_generate(self, inputs: Any = None, num_generations: int = 1, **kwargs: Any) -> Any:
            raise OfflineBatchNotFinishedError(["job"])

    with engine(LLM) as llm:
        assert not llm.orders_batches
        with pytest.raises(OfflineBatchNotFinishedError):
            llm.generate_outputs(chats("a"))


def test_without_a_key_there_is_no_batch() -> None:
    with ScriptedLLM(use_offline_batch_generation=True) as llm:
        assert llm.batch_key(chat("a")) is None
        assert not llm.orders_batches
        with pytest.raises(UnsupportedError, match="has no offline batch generation"):
            llm.generate_outputs(chats("a"))
