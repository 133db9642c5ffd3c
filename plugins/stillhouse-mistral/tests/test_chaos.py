"""The backend against a mock provider that fails in every known way, and a verdict on how it copes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from stillhouse import GenerationError
from stillhouse_mistral import MistralLLM

CHAT: Any = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """They grow, as they do in earnest, where chance decides how much."""
    monkeypatch.setattr(
        "stillhouse.http.transport.session.backoff_seconds", lambda attempt: 0.04 * 2**attempt
    )


@pytest.fixture
def fields(llmock: Any) -> dict[str, Any]:
    return {"model": "mistral-test", "base_url": llmock.base_url("mistral"), "api_key": "key-0001-test"}


@pytest.fixture
def llm(fields: dict[str, Any]) -> Iterator[MistralLLM]:
    with MistralLLM(**fields, retry_timeout=20.0) as loaded:
        yield loaded


@pytest.mark.parametrize(
    ("status", "times"), [(408, 2), (409, 1), (429, 1), (500, 3), (502, 1), (503, 1), (504, 1)]
)
def test_transient_server_faults_are_retried(llm: MistralLLM, llmock: Any, status: int, times: int) -> None:
    llmock.fail(status, times=times, provider="mistral")
    assert llm.generate_outputs([CHAT])[0]["generations"][0]
    assert [record.status for record in llmock.requests] == [status] * times + [200]
    llmock.assert_resilient(strict=True)


def test_rate_limit_waits_as_long_as_asked(llm: MistralLLM, llmock: Any) -> None:
    llmock.rate_limit(times=1, retry_after=0.5, provider="mistral")
    assert llm.generate_outputs([CHAT])[0]["generations"][0]
    first, second = llmock.requests
    assert second.started_at - first.ended_at >= 0.45
    llmock.assert_resilient(strict=True)


def test_quota_is_discovered_and_every_request_is_answered(llm: MistralLLM, llmock: Any) -> None:
    llmock.limits(rpm=120)
    chats: Any = [[{"role": "user", "content": f"Question {number}"}] for number in range(123)]
    outputs = llm.generate_outputs(chats)
    assert all(output["generations"][0] for output in outputs)
    assert sum(record.status == 429 for record in llmock.requests) < 13
    llmock.assert_resilient(strict=True)


@pytest.mark.parametrize(
    ("status", "kind", "stops_run"),
    [
        (400, "invalid_request", False),
        (401, "authentication", True),
        (402, "rate_limit", True),
        (403, "authentication", True),
        (404, "invalid_request", True),
        (413, "context_length", False),
        (422, "invalid_request", False),
    ],
)
def test_permanent_server_faults_are_not_retried(
    llm: MistralLLM, llmock: Any, status: int, kind: str, stops_run: bool
) -> None:
    llmock.fail(status, times=None, provider="mistral")
    with pytest.raises(GenerationError) as caught:
        llm.generate_outputs([CHAT])
    assert (caught.value.kind, caught.value.attempts) == (kind, 1)
    assert caught.value.stops_run is stops_run
    assert [record.method for record in llmock.requests].count("POST") == 1
    llmock.assert_resilient(strict=True)


def test_prompt_too_long(llm: MistralLLM, llmock: Any) -> None:
    llmock.limits(context_window=20)
    long: Any = [{"role": "user", "content": "word " * 200}]
    results = dict(llm.iter_outputs([long, CHAT], on_error="yield"))
    assert isinstance(results[0], GenerationError)
    assert results[0].kind == "context_length"
    assert not isinstance(results[1], GenerationError)
    llmock.assert_resilient(strict=True)


def test_outage_is_given_up(fields: dict[str, Any], llmock: Any) -> None:
    llmock.outage(status=503, provider="mistral")
    with MistralLLM(**fields, retry_timeout=2.5) as llm, pytest.raises(GenerationError) as caught:
        llm.generate_outputs([CHAT])
    assert caught.value.kind == "server"
    assert 2 <= caught.value.attempts == len(llmock.requests)
    llmock.assert_resilient(strict=True)


def test_slow_answer_times_out_and_is_retried(fields: dict[str, Any], llmock: Any) -> None:
    llmock.delay(2.0, times=1, provider="mistral")
    with MistralLLM(**fields, timeout=0.4) as llm:
        assert llm.generate_outputs([CHAT])[0]["generations"][0]
    assert len(llmock.requests) == 2
    llmock.assert_resilient(strict=True)


def test_tool_call(llm: MistralLLM, llmock: Any) -> None:
    """A whole turn with a tool: the call, its result, and the answer."""
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    llmock.call_tool("weather", {"city": "Paris"}).fail(500, provider="mistral")
    (output,) = llm.generate_outputs([CHAT], tools=[tool], tool_choice="required")
    assert output["finish_reasons"] == ["tool_calls"]
    (calls,) = output["tool_calls"]
    assert calls is not None
    result = {"role": "tool", "tool_call_id": calls[0]["id"], "content": "21 degrees"}
    chat: Any = [*CHAT, {"role": "assistant", "content": None, "tool_calls": calls}, result]
    (answer,) = llm.generate_outputs([chat], tools=[tool])
    assert (answer["finish_reasons"], bool(answer["generations"][0])) == (["stop"], True)
    llmock.assert_resilient(strict=True)


def test_several_generations_are_one_request(llm: MistralLLM, llmock: Any) -> None:
    (output,) = llm.generate_outputs([CHAT], num_generations=3)
    assert (len(output["generations"]), len(llmock.requests)) == (3, 1)
