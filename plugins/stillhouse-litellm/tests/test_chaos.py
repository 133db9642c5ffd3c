"""The backend against a mock provider that fails in every known way, and a verdict on how it copes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from stillhouse import GenerationError
from stillhouse_litellm import LiteLLM

CHAT: Any = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """They grow, as they do in earnest, where chance decides how much."""
    monkeypatch.setattr("stillhouse.http.transport.calls.backoff_seconds", lambda attempt: 0.1 * 2**attempt)


@pytest.fixture
def llm(llmock: Any) -> Iterator[LiteLLM]:
    with LiteLLM(model="openai/gpt-test", retry_timeout=20.0) as loaded:
        loaded.generate_outputs([CHAT])  # the first request takes long, and would hide how waits grow
        llmock.reset()
        yield loaded


@pytest.mark.parametrize(("status", "times"), [(408, 2), (409, 1), (500, 3), (502, 1), (503, 1), (504, 1)])
def test_transient_faults_are_retried(llm: LiteLLM, llmock: Any, status: int, times: int) -> None:
    llmock.fail(status, times=times)
    assert llm.generate_outputs([CHAT])[0]["generations"][0]
    assert [record.status for record in llmock.requests] == [status] * times + [200]
    llmock.assert_resilient(strict=True)


def test_rate_limit_waits_as_long_as_asked(llm: LiteLLM, llmock: Any) -> None:
    llmock.rate_limit(times=1, retry_after=1.0)
    assert llm.generate_outputs([CHAT])[0]["generations"][0]
    first, second = llmock.requests
    assert second.started_at - first.ended_at >= 0.95
    llmock.assert_resilient(strict=True)


def test_request_quota_is_discovered_and_every_request_is_answered(llm: LiteLLM, llmock: Any) -> None:
    llmock.limits(rpm=120)
    chats: Any = [[{"role": "user", "content": f"Question {number}"}] for number in range(125)]
    outputs = llm.generate_outputs(chats)
    assert all(output["generations"][0] for output in outputs)
    assert sum(record.status == 429 for record in llmock.requests) < 35
    llmock.assert_resilient(strict=True)


@pytest.mark.parametrize(
    ("status", "kind", "stops_run"),
    [
        (400, "invalid_request", False),
        (401, "authentication", True),
        (403, "authentication", True),
        (404, "invalid_request", True),
        (422, "invalid_request", False),
    ],
)
def test_permanent_faults_are_not_retried(
    llm: LiteLLM, llmock: Any, status: int, kind: str, stops_run: bool
) -> None:
    llmock.fail(status, times=None)
    with pytest.raises(GenerationError) as caught:
        llm.generate_outputs([CHAT])
    assert (caught.value.kind, caught.value.attempts, caught.value.stops_run) == (kind, 1, stops_run)
    assert len(llmock.requests) == 1
