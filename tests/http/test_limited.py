"""`LimitedLLM`: the calls of a library under the limits, retries and pauses of the transport."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from stillhouse import FormattedInput, GenerateOutput, GenerationError, UnsupportedError, prepare_output
from stillhouse.http import Failure, LimitedLLM
from stillhouse.http.transport.limits import INITIAL_LIMIT

KEY = "sk-0123456789abcdef"


class LibraryError(Exception):
    def __init__(self, **failure: Any) -> None:
        super().__init__(f"the key {KEY} was sent")
        self.failure = Failure(**{"kind": "server", "message": f"the key {KEY} was refused", **failure})


class ForeignLLM(LimitedLLM):
    """Asks a library, which does as `script` says: an exception is raised, a callable awaited."""

    model: str = "m"
    api_key: SecretStr | None = None

    @property
    def model_name(self) -> str:
        return self.model

    def further_secrets(self) -> list[str]:
        return ["found-in-the-vault-77"]

    async def agenerate(
        self, input: FormattedInput, num_generations: int = 1, max_new_tokens: int | None = None
    ) -> GenerateOutput:
        text = await self.limited(
            self._library, tokens=max_new_tokens or 0, used_tokens=lambda text: len(str(text).split())
        )
        return prepare_output([str(text)], finish_reasons=["stop"])

    async def _library(self) -> Any:
        SCRIPT.calls += 1
        SCRIPT.called.set()
        said = SCRIPT.says.pop(0) if SCRIPT.says else "fine"
        if isinstance(said, Exception):
            raise said
        return await said() if callable(said) else said

    def failure_of(self, error: Exception) -> Failure:
        return error.failure if isinstance(error, LibraryError) else super().failure_of(error)

    def failure_in(self, answer: Any) -> Failure | None:
        return Failure("server", "an empty answer", retried=True) if answer == "" else None


class Script:
    def __init__(self) -> None:
        self.says: list[Any] = []
        self.calls = 0
        self.called = asyncio.Event()


SCRIPT = Script()
CHAT: Any = [{"role": "user", "content": "?"}]


@pytest.fixture(autouse=True)
def script() -> Script:
    SCRIPT.__init__()  # type: ignore[misc]
    return SCRIPT


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillhouse.http.transport.calls.backoff_seconds", lambda attempt: 0.0)


def ask(llm: LimitedLLM, count: int = 1, **arguments: Any) -> list[str | None]:
    return [output["generations"][0] for output in llm.generate_outputs([CHAT] * count, **arguments)]


def failed(llm: LimitedLLM) -> GenerationError:
    with pytest.raises(GenerationError) as raised:
        ask(llm)
    return raised.value


def test_what_may_succeed_is_tried_again(script: Script) -> None:
    busy = LibraryError(kind="rate_limit", retried=True, congestion=True)
    script.says = [busy, LibraryError(kind="connection", retried=True), "", "at last"]
    with ForeignLLM() as llm:
        assert ask(llm) == ["at last"]
        assert script.calls == 4
        assert llm._calls is not None
        assert llm._calls.limits.limit < INITIAL_LIMIT
        assert llm._calls.limits.in_flight == 0


def test_a_count_that_cannot_be_read_loses_no_answer(script: Script) -> None:
    class Counting(ForeignLLM):
        async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:  # type: ignore[override]
            answer = await self.limited(self._library, tokens=5, used_tokens=lambda found: found["usage"])
            return prepare_output([str(answer)], finish_reasons=["stop"])

    script.says = [{"usage": 3}, {"usage": None}, {"text": "paid"}]
    with Counting(tokens_per_minute=1e6) as llm:
        assert ask(llm, 3)[2] == "{'text': 'paid'}"
    assert script.calls == 3


@pytest.mark.parametrize("stops", [True, False])
def test_what_will_not_is_given_up_as_its_failure_says(script: Script, stops: bool) -> None:
    script.says = [LibraryError(kind="context_length", hint="shorten it", stops_run=stops, request_id="r1")]
    with ForeignLLM() as llm:
        error = failed(llm)
    assert (error.kind, error.attempts, error.hint, error.request_id, error.stops_run) == (
        "context_length", 1, "shorten it", "r1", stops,
    )  # fmt: skip


def test_a_longer_wait_than_allowed_stops_the_run(script: Script) -> None:
    script.says = [LibraryError(kind="rate_limit", retried=True, congestion=True, retry_after=3600.0)]
    with ForeignLLM(retry_timeout=30) as llm:
        error = failed(llm)
        assert ask(llm) == ["fine"]  # the others did not wait
    assert error.stops_run
    assert "it asks to wait 3600 s" in error.message


def test_a_pause_is_shared(script: Script) -> None:
    busy = LibraryError(kind="rate_limit", retried=True, congestion=True, retry_after=20.0)
    script.says = [busy]
    with ForeignLLM(max_concurrency=1) as llm:

        async def first() -> float:
            task = asyncio.create_task(llm.agenerate(CHAT))
            await script.called.wait()
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert llm._calls is not None
            return llm._calls.limits._wait(0)

        assert 0 < llm.run_on_loop(first()) <= 20
        assert script.calls == 1


def test_an_attempt_has_a_time_limit(script: Script) -> None:
    script.says = [asyncio.Event().wait, "late"]
    with ForeignLLM(timeout=0.05) as llm:
        assert ask(llm) == ["late"]
    script.says = [asyncio.Event().wait]
    with ForeignLLM(timeout=0.05, retry_timeout=0) as llm:
        error = failed(llm)
    assert (error.kind, error.attempts) == ("timeout", 1)


def test_a_time_limit_of_the_librarys_own_is_what_the_backend_says(script: Script) -> None:
    script.says = [TimeoutError("the library's")]
    with ForeignLLM() as llm:
        assert failed(llm).kind == "unknown"


def test_a_cancelled_call_returns_its_permit(script: Script) -> None:
    script.says = [asyncio.Event().wait]
    with ForeignLLM(max_concurrency=1) as llm:

        async def cancelled() -> int:
            task = asyncio.create_task(llm.agenerate(CHAT))
            await script.called.wait()
            task.cancel()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(result, asyncio.CancelledError)
            assert llm._calls is not None
            return llm._calls.limits.in_flight

        assert llm.run_on_loop(cancelled()) == 0
        assert ask(llm) == ["fine"]


def test_no_more_calls_are_in_flight_than_allowed(script: Script) -> None:
    running, most = 0, 0

    async def count() -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return "fine"

    script.says = [count] * 20
    with ForeignLLM(max_concurrency=3) as llm:
        assert ask(llm, 20) == ["fine"] * 20
    assert most == 3


def test_tokens_are_counted_and_corrected(script: Script) -> None:
    script.says = ["one two three"]
    with ForeignLLM(tokens_per_minute=600_000) as llm:
        assert llm._calls is not None
        limits = llm._calls.limits
        corrected: list[tuple[int, int]] = []
        limits.correct_tokens = lambda *counts: corrected.append(counts)  # type: ignore[method-assign]
        ask(llm, max_new_tokens=50)
    assert corrected == [(50, 3)]


@pytest.mark.parametrize("error", [LibraryError(), RuntimeError(f"{KEY} found-in-the-vault-77")])
def test_secrets_are_masked_and_the_exception_is_not_kept(script: Script, error: Exception) -> None:
    script.says = [error]
    with ForeignLLM(api_key=KEY) as llm:
        with pytest.raises(GenerationError) as caught:
            llm.run_on_loop(llm.agenerate(CHAT))  # nothing else masks here
        raised = caught.value
    told = "".join(traceback.format_exception(raised))
    assert KEY not in told
    assert "vault-77" not in told
    chain: list[Callable[..., Any] | BaseException | None] = [raised]
    while chain[-1] is not None:
        assert chain[-1] is not error
        chain.append(chain[-1].__cause__ or chain[-1].__context__)  # type: ignore[union-attr]


def test_an_error_of_the_backends_own_passes(script: Script) -> None:
    script.says = [UnsupportedError("not here")]
    with ForeignLLM() as llm:
        with pytest.raises(GenerationError, match="not here") as raised:
            ask(llm)
        assert isinstance(raised.value.__cause__, UnsupportedError)
    assert script.calls == 1
