"""The contract of offline batches, with a provider in memory."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from pydantic import PrivateAttr

from stillhouse import GenerationError, OfflineBatchNotFinishedError, UnsupportedError
from stillhouse.outputs import prepare_output
from stillhouse.typing import CAPABILITIES, Capability

from ..support import PATIENCE, ScriptedLLM, SyncLLM, chat, chats, in_thread, text_of


class Provider:
    """Jobs, each with its inputs; a job is done once it was asked for `patience` times."""

    def __init__(self) -> None:
        self.jobs: dict[str, list[Any]] = {}
        self.asked: dict[str, int] = {}
        self.patience = 1
        self.on_ask: Callable[[], None] = lambda: None
        self.on_submit: Callable[[], None] = lambda: None

    def submit(self, inputs: list[Any], n: int) -> str:
        name = f"job-{len(self.jobs)}"
        self.jobs[name] = [prepare_output([text_of(input)] * n) for input in inputs]
        self.asked[name] = 0
        self.on_submit()
        return name

    def ask(self, name: str) -> list[Any] | None:
        self.on_ask()
        self.asked[name] += 1
        return self.jobs[name] if self.asked[name] > self.patience else None


class OfflineMixin:
    """As a backend writes it: submit, else look."""

    def offline_batch_generate(
        self, inputs: Any = None, num_generations: int = 1, temperature: float | None = None, **kwargs: Any
    ) -> Any:
        provider: Provider = self._provider  # type: ignore[attr-defined]
        if self.jobs_ids is None:  # type: ignore[has-type]
            half = (len(inputs) + 1) // 2
            first = provider.submit(inputs[:half], num_generations)
            self.jobs_ids = (first,)
            second = provider.submit(inputs[half:], num_generations)
            self.jobs_ids = (first, second)
            raise OfflineBatchNotFinishedError(self.jobs_ids)
        outputs: list[Any] = []
        for name in self.jobs_ids:
            done = provider.ask(name)
            if done is None:
                raise OfflineBatchNotFinishedError(self.jobs_ids)
            outputs += done
        return outputs


class OfflineLLM(OfflineMixin, SyncLLM):
    capabilities: ClassVar[frozenset[Capability]] = CAPABILITIES
    _provider: Provider = PrivateAttr(default_factory=Provider)


class AsyncOfflineLLM(OfflineMixin, ScriptedLLM):
    _provider: Provider = PrivateAttr(default_factory=Provider)


def offline(kind: Any = OfflineLLM, **fields: Any) -> Any:
    return kind(use_offline_batch_generation=True, **fields)


INPUTS = chats("a", "b", "c")


def test_the_first_call_submits_and_later_calls_collect() -> None:
    with offline() as llm:
        with pytest.raises(OfflineBatchNotFinishedError) as caught:
            llm.generate_outputs(INPUTS, num_generations=2)
        assert caught.value.jobs_ids == llm.jobs_ids == ("job-0", "job-1")
        with pytest.raises(OfflineBatchNotFinishedError) as caught:
            llm.generate_outputs(INPUTS, num_generations=2)
        assert caught.value.jobs_ids == ("job-0", "job-1")
        llm._provider.patience = 0
        outputs = llm.generate_outputs(INPUTS, num_generations=2)
        assert [output["generations"] for output in outputs] == [["a"] * 2, ["b"] * 2, ["c"] * 2]
        assert len(llm._provider.jobs) == 2


def test_job_ids_are_cleared_once_collected() -> None:
    with offline() as llm:
        llm._provider.patience = 0
        for round in range(2):
            with pytest.raises(OfflineBatchNotFinishedError):
                llm.generate_outputs(INPUTS)
            assert len(llm._provider.jobs) == 2 * (round + 1)
            assert llm.generate_outputs(INPUTS)
            assert llm.jobs_ids is None
            assert llm.jobs_digest is None


@pytest.mark.parametrize(
    ("inputs", "arguments"),
    [
        (chats("a", "b"), {}),
        (chats("c", "b", "a"), {}),
        ([*chats("a", "b"), (chat("c"), {"format": "regex", "schema": "c"})], {}),
        (INPUTS, {"temperature": 0.5}),
        (INPUTS, {"num_generations": 2}),
    ],
)
def test_other_inputs_or_arguments_make_new_jobs(
    inputs: Any, arguments: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with offline() as llm:
        with pytest.raises(OfflineBatchNotFinishedError):
            llm.generate_outputs(INPUTS)
        with (
            caplog.at_level(logging.WARNING, "stillhouse.offline"),
            pytest.raises(OfflineBatchNotFinishedError) as caught,
        ):
            llm.generate_outputs(inputs, **arguments)
        assert caught.value.jobs_ids == llm.jobs_ids == ("job-2", "job-3")
        assert "not collected: job-0, job-1" in caplog.text


def test_equal_inputs_in_another_process_collect_the_same_jobs() -> None:
    with offline() as llm:
        with pytest.raises(OfflineBatchNotFinishedError):
            llm.generate_outputs(INPUTS, temperature=0.5)
        provider = llm._provider
    dumped = (llm.jobs_ids, llm.jobs_digest)
    other = offline(jobs_ids=dumped[0], jobs_digest=dumped[1])
    other._provider = provider
    provider.patience = 0
    with other:
        assert len(other.generate_outputs(copy.deepcopy(INPUTS), temperature=0.5)) == 3
        assert len(provider.jobs) == 2


def test_jobs_without_a_digest_are_collected_without_a_check() -> None:
    with offline() as llm:
        llm._provider.patience = 0
        llm.jobs_ids = (llm._provider.submit(INPUTS, 1),)
        assert len(llm.generate_outputs(INPUTS)) == 3
        llm.jobs_ids = (llm._provider.submit(INPUTS, 1),)
        assert len(llm.offline_batch_generate()) == 3
        assert llm.jobs_ids is None


def test_job_ids_of_an_interrupted_submission_stay_bound_to_its_inputs() -> None:
    with offline() as llm:

        def break_off() -> None:
            if len(llm._provider.jobs) == 2:
                raise OSError("the network is gone")

        llm._provider.on_submit = break_off
        with pytest.raises(OSError, match="network"):
            llm.generate_outputs(INPUTS)
        assert llm.jobs_ids == ("job-0",)
        llm._provider.on_submit = lambda: None
        with pytest.raises(OfflineBatchNotFinishedError) as caught:
            llm.generate_outputs(INPUTS)
        assert caught.value.jobs_ids == ("job-0",)
        with pytest.raises(OfflineBatchNotFinishedError) as caught:
            llm.generate_outputs(chats("other"))
        assert "job-0" not in caught.value.jobs_ids


def test_an_error_while_collecting_keeps_the_ids() -> None:
    with offline() as llm:
        with pytest.raises(OfflineBatchNotFinishedError):
            llm.generate_outputs(INPUTS)

        def fail() -> None:
            raise OSError("the network is gone")

        llm._provider.on_ask = fail
        with pytest.raises(OSError, match="network"):
            llm.generate_outputs(INPUTS)
        assert llm.jobs_ids == ("job-0", "job-1")
        llm._provider.on_ask = lambda: None
        llm._provider.patience = 0
        assert len(llm.generate_outputs(INPUTS)) == 3


def test_outputs_that_do_not_match_the_inputs_are_never_paired_with_them() -> None:
    with offline() as llm:
        llm._provider.patience = 0
        with pytest.raises(OfflineBatchNotFinishedError):
            llm.generate_outputs(INPUTS)
        llm._provider.jobs["job-0"].pop()
        with pytest.raises(GenerationError, match="2 outputs for 3 inputs") as caught:
            llm.generate_outputs(INPUTS)
        assert len(caught.value.outputs) == 2  # they were paid


def test_not_finished_error_without_ids_keeps_the_job_ids() -> None:
    class TerseLLM(OfflineLLM):
        def offline_batch_generate(self, inputs: Any = None, num_generations: int = 1, **kwargs: Any) -> Any:
            if self.jobs_ids is None:
                raise OfflineBatchNotFinishedError(["job-0"])
            raise OfflineBatchNotFinishedError

    with offline(TerseLLM) as llm:
        for _ in range(3):
            with pytest.raises(OfflineBatchNotFinishedError):
                llm.generate_outputs(INPUTS)
            assert llm.jobs_ids == ("job-0",)


def test_no_inputs_submit_nothing() -> None:
    with offline() as llm:
        assert llm.generate_outputs([]) == []
        assert asyncio.run(_none(offline(AsyncOfflineLLM))) == []
        assert llm._provider.jobs == {}


async def _none(llm: Any) -> Any:
    with llm:
        return await llm.agenerate_outputs([])


def test_wrong_inputs_and_arguments_are_refused_before_anything_is_submitted() -> None:
    with offline() as llm:
        with pytest.raises(ValueError, match="temprature"):
            llm.generate_outputs(INPUTS, temprature=1)
        with pytest.raises(ValueError, match="type int"):
            llm.generate_outputs([*INPUTS, 5])
        assert llm._provider.jobs == {}


def test_generation_kwargs_apply() -> None:
    with offline(generation_kwargs={"temperature": 0.5}) as llm:
        with pytest.raises(OfflineBatchNotFinishedError):
            llm.generate_outputs(INPUTS)
        llm.generation_kwargs = {}
        with pytest.raises(OfflineBatchNotFinishedError) as caught:
            llm.generate_outputs(INPUTS)
        assert caught.value.jobs_ids == ("job-2", "job-3")


# Polling


def test_polling_repeats_until_the_batch_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("stillhouse.offline.contract.time.sleep", slept.append)
    with offline(offline_batch_generation_block_until_done=45) as llm:
        llm._provider.patience = 3
        outputs = llm.generate_outputs(INPUTS)
    assert [output["generations"] for output in outputs] == [["a"], ["b"], ["c"]]
    assert slept
    assert set(slept) == {45}
    assert llm.jobs_ids is None


def test_an_interrupt_during_the_sleep_gives_the_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stillhouse.offline.contract.time.sleep", interrupt)
    with offline(offline_batch_generation_block_until_done=45) as llm:
        with pytest.raises(OfflineBatchNotFinishedError) as caught:
            llm.generate_outputs(INPUTS)
        assert caught.value.jobs_ids == llm.jobs_ids == ("job-0", "job-1")
        monkeypatch.undo()
        llm._provider.patience = 0
        assert len(llm.generate_outputs(INPUTS)) == 3


def test_an_interrupt_during_the_call_gives_the_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stillhouse.offline.contract.time.sleep", lambda seconds: None)
    with offline(offline_batch_generation_block_until_done=45) as llm:
        llm._provider.on_ask = interrupt
        with pytest.raises(OfflineBatchNotFinishedError) as caught:
            llm.generate_outputs(INPUTS)
        assert caught.value.jobs_ids == ("job-0", "job-1")
        other = offline(offline_batch_generation_block_until_done=45)
        other._provider.on_submit = interrupt
        with other, pytest.raises(OfflineBatchNotFinishedError) as caught:
            other.generate_outputs(INPUTS)
        assert caught.value.jobs_ids == ()


def test_a_coroutine_polls_without_blocking_its_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def ask() -> None:
        asked.set()
        assert go_on.wait(PATIENCE), "the loop of the caller is blocked"

    def blocks(seconds: float) -> None:
        raise AssertionError("the thread sleeps")

    async def main(llm: Any) -> Any:
        task = asyncio.create_task(llm.agenerate_outputs(INPUTS))
        await asyncio.to_thread(asked.wait, PATIENCE)
        go_on.set()  # while the provider is being asked, this loop runs
        return await task

    with offline(AsyncOfflineLLM, offline_batch_generation_block_until_done=0.001) as llm:
        llm._provider.patience = 5
        llm._provider.on_ask = ask
        monkeypatch.setattr("time.sleep", blocks)
        outputs = asyncio.run(main(llm))
    assert [output["generations"] for output in outputs] == [["a"], ["b"], ["c"]]


def test_a_coroutine_that_polls_can_be_cancelled_and_the_ids_stay() -> None:
    asked = threading.Event()

    async def main(llm: Any) -> None:
        task = asyncio.create_task(llm.agenerate_outputs(INPUTS))
        await asyncio.to_thread(asked.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert llm.jobs_ids == ("job-0", "job-1")

    with offline(AsyncOfflineLLM, offline_batch_generation_block_until_done=0) as llm:
        llm._provider.patience = 10**9
        llm._provider.on_ask = asked.set
        in_thread(lambda: asyncio.run(main(llm))).result(PATIENCE)


def test_coroutine_without_polling_raises_not_finished_at_once() -> None:
    async def main(llm: Any) -> None:
        with pytest.raises(OfflineBatchNotFinishedError):
            await llm.agenerate_outputs(INPUTS)

    with offline(AsyncOfflineLLM) as llm:
        asyncio.run(main(llm))


# What has none


def test_a_backend_without_offline_batches_says_so() -> None:
    with offline(SyncLLM) as llm:
        with pytest.raises(UnsupportedError, match="has no offline batch generation") as caught:
            llm.generate_outputs(INPUTS)
        assert isinstance(caught.value, NotImplementedError)
        assert llm.batches == []


def test_an_offline_batch_takes_all_its_inputs_at_once() -> None:
    with offline() as llm, pytest.raises(UnsupportedError, match="all its inputs at once"):
        llm.iter_outputs(INPUTS)
    with offline(AsyncOfflineLLM) as llm, pytest.raises(UnsupportedError, match="all its inputs at once"):
        llm.aiter_outputs(INPUTS)


def test_job_ids_are_pickled_with_the_error() -> None:
    error = pickle.loads(pickle.dumps(OfflineBatchNotFinishedError(["a"])))
    assert error.jobs_ids == ("a",)
