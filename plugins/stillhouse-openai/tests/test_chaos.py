"""The backends against a server that fails on purpose and rates how its clients cope."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse import GenerationError
from stillhouse_openai import GroqLLM, OpenAILLM, TogetherLLM

pytest.importorskip("llmock")

CLASSES = {"openai": OpenAILLM, "groq": GroqLLM, "together": TogetherLLM}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits grow as they do, from some hundredths of a second, without the luck of the draw.

    The judge calls waits that do not grow no backoff, and a jittered wait may be shorter than the
    one before.
    """
    monkeypatch.setattr("stillhouse.offline.failures.INITIAL_BACKOFF_SECONDS", 0.06)
    monkeypatch.setattr("stillhouse.offline.failures.random.random", lambda: 1.0)


def chats(count: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": f"Question {number}"}] for number in range(count)]


def make(llmock: Any, provider: str = "openai", **fields: Any) -> Any:
    given = {"model": "m", "base_url": llmock.base_url(provider), "api_key": "key", "retry_timeout": 30}
    return CLASSES[provider](**{**given, **fields})


# Where the provider would say when to come back, it says so; the others say nothing.
BURSTS = {408: None, 409: None, 429: 0.2, 500: None, 502: None, 503: 0.2, 504: 0.2, 529: 0.2}


@pytest.mark.parametrize(
    ("provider", "status"),
    [
        *(("openai", status) for status in BURSTS),
        ("groq", 429),
        ("groq", 500),
        ("together", 429),
        ("together", 500),
    ],
)
def test_a_burst_of_errors_is_survived(llmock: Any, provider: str, status: int) -> None:
    llmock.fail(status, times=3, provider=provider, retry_after=BURSTS[status])
    with make(llmock, provider, max_concurrency=1) as llm:
        outputs = llm.generate_outputs(chats(3))
    assert all(output["generations"][0] for output in outputs)
    assert len(llmock.requests) == 6
    llmock.assert_resilient(strict=True)


def test_retry_after_is_obeyed(llmock: Any) -> None:
    llmock.rate_limit(times=4, retry_after=0.4)
    with make(llmock) as llm:
        outputs = llm.generate_outputs(chats(8))
    assert all(output["generations"][0] for output in outputs)
    assert llmock.verdict().faults == 4
    llmock.assert_resilient(strict=True)


def test_outage_ends_in_a_server_error(llmock: Any) -> None:
    llmock.outage(status=500)
    with make(llmock, retry_timeout=1.0) as llm, pytest.raises(GenerationError) as caught:
        llm.generate_outputs(chats(1))
    assert caught.value.kind == "server"
    assert 3 <= caught.value.attempts <= 5
    llmock.assert_resilient(strict=True)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request"), (401, "authentication"), (403, "authentication"), (422, "invalid_request")],
)
def test_permanent_server_errors_are_not_retried(llmock: Any, status: int, kind: str) -> None:
    llmock.fail(status, times=1)
    with make(llmock) as llm, pytest.raises(GenerationError) as caught:
        llm.generate_outputs(chats(1))
    assert (caught.value.kind, caught.value.attempts) == (kind, 1)
    assert len(llmock.requests) == 1
    llmock.assert_resilient(strict=True)


def test_a_prompt_that_is_too_long_fails_alone(llmock: Any) -> None:
    llmock.limits(context_window=50)
    inputs = chats(4)
    inputs[2][0]["content"] = "long " * 400
    with make(llmock) as llm:
        results = list(llm.iter_outputs(inputs, on_error="yield"))
    kinds = [getattr(result, "kind", None) for _, result in results]
    assert kinds == [None, None, "context_length", None]
    llmock.assert_resilient(strict=True)


def test_slow_answer_is_awaited_and_stalled_answer_is_retried(llmock: Any) -> None:
    llmock.delay(0.3, times=1)
    with make(llmock, timeout=5) as llm:
        assert llm.generate_outputs(chats(1))[0]["generations"][0]
    assert len(llmock.requests) == 1
    llmock.reset().delay(1.0, times=1)
    with make(llmock, timeout=0.3) as llm:
        assert llm.generate_outputs(chats(1))[0]["generations"][0]
        assert llmock.verdict().attempts == 2
    llmock.assert_resilient(strict=True)


@pytest.mark.parametrize("provider", CLASSES)
def test_a_quota_of_requests_is_kept_to(llmock: Any, provider: str) -> None:
    llmock.limits(rpm=600)  # ten a second, and more at once than are asked here
    with make(llmock, provider, requests_per_minute=600) as llm:
        outputs = llm.generate_outputs(chats(60))
    assert len(outputs) == 60
    assert llmock.verdict().faults == 0
    llmock.assert_resilient(strict=True)


def test_unknown_request_quota_is_discovered(llmock: Any) -> None:
    # One a second after the first 60: 76 meet the limit if they take less than 16 seconds.
    llmock.limits(rpm=60)
    with make(llmock, max_concurrency=32) as llm:
        outputs = llm.generate_outputs(chats(76))
    assert all(output["generations"][0] for output in outputs)
    verdict = llmock.verdict()
    assert verdict.faults > 0, "the quota was never reached"
    assert verdict.attempts < 5 * 76
    llmock.assert_resilient(strict=True)


def test_unknown_token_quota_is_discovered(llmock: Any) -> None:
    llmock.limits(tpm=1500)  # about one request in two seconds after the first 35 or so
    with make(llmock, max_concurrency=32) as llm:
        outputs = llm.generate_outputs(chats(40), max_new_tokens=20)
    assert all(output["generations"][0] for output in outputs)
    verdict = llmock.verdict()
    assert verdict.faults > 0, "the quota was never reached"
    llmock.assert_resilient(strict=True)


def test_tools_are_passed_through_and_calls_come_back(llmock: Any) -> None:
    llmock.call_tool("get_weather", {"city": "Lima"})
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
    with make(llmock) as llm:
        output = llm.generate_outputs(chats(1), tools=tools)[0]
    call = output["tool_calls"][0][0]["function"]
    assert (call["name"], call["arguments"]) == ("get_weather", '{"city": "Lima"}')
    assert (output["generations"], output["finish_reasons"]) == ([None], ["tool_calls"])
    llmock.assert_resilient(strict=True)
