"""A backend against a mock provider that fails in every known way, and a verdict on how it copes.

The tests of several plugins share it: a plugin derives a class of its own, and says which provider it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from stillhouse import LLM, GenerationError

__all__ = ["CHAT", "WEATHER", "ProviderFaults"]

CHAT: Any = [{"role": "user", "content": "What is the weather in Paris?"}]

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


class ProviderFaults:
    """The faults of one provider of llmock."""

    provider: ClassVar[str]
    """Its name in llmock."""

    overloaded: ClassVar[int] = 503
    """The status of an outage."""

    def make(self, llmock: Any, **fields: Any) -> LLM:
        """Return an LLM that asks llmock."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def short_waits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """They grow, as they do in earnest, where chance decides how much."""
        monkeypatch.setattr(
            "stillhouse.http.transport.session.backoff_seconds", lambda attempt: 0.04 * 2**attempt
        )

    @pytest.fixture
    def llm(self, llmock: Any) -> Iterator[LLM]:
        with self.make(llmock, retry_timeout=20.0) as loaded:
            yield loaded

    @pytest.mark.parametrize(
        ("status", "times"), [(408, 2), (409, 1), (429, 1), (500, 3), (502, 1), (503, 1), (504, 1)]
    )
    def test_transient_server_faults_are_retried(
        self, llm: LLM, llmock: Any, status: int, times: int
    ) -> None:
        llmock.fail(status, times=times, provider=self.provider)
        assert llm.generate_outputs([CHAT])[0]["generations"][0]
        assert [record.status for record in llmock.requests] == [status] * times + [200]
        llmock.assert_resilient(strict=True)

    def test_rate_limit_waits_as_long_as_asked(self, llm: LLM, llmock: Any) -> None:
        llmock.rate_limit(times=1, retry_after=0.5, provider=self.provider)
        assert llm.generate_outputs([CHAT])[0]["generations"][0]
        first, second = llmock.requests
        assert second.started_at - first.ended_at >= 0.45
        llmock.assert_resilient(strict=True)

    def test_request_quota_is_discovered_and_every_request_is_answered(self, llm: LLM, llmock: Any) -> None:
        """A real quota, of which 120 may be used at once: all are answered, few are refused."""
        llmock.limits(rpm=120)
        chats: Any = [[{"role": "user", "content": f"Question {number}"}] for number in range(123)]
        outputs = llm.generate_outputs(chats)
        assert all(output["generations"][0] for output in outputs)
        records = llmock.requests
        assert records[-1].ended_at - records[0].started_at > 1.0  # the quota was really in the way
        assert sum(record.status == 429 for record in records) < 13
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
        self, llm: LLM, llmock: Any, status: int, kind: str, stops_run: bool
    ) -> None:
        llmock.fail(status, times=None, provider=self.provider)
        with pytest.raises(GenerationError) as caught:
            llm.generate_outputs([CHAT])
        assert (caught.value.kind, caught.value.attempts) == (kind, 1)
        assert caught.value.stops_run is stops_run
        # Of a model that is not there, the names near it are looked for.
        assert [record.method for record in llmock.requests].count("POST") == 1
        llmock.assert_resilient(strict=True)

    def test_prompt_too_long(self, llm: LLM, llmock: Any) -> None:
        llmock.limits(context_window=20)
        long: Any = [{"role": "user", "content": "word " * 200}]
        results = dict(llm.iter_outputs([long, CHAT], on_error="yield"))
        assert isinstance(results[0], GenerationError)
        assert results[0].kind == "context_length"
        assert not isinstance(results[1], GenerationError)
        llmock.assert_resilient(strict=True)

    def test_outage_is_given_up(self, llmock: Any) -> None:
        llmock.outage(status=self.overloaded, provider=self.provider)
        with self.make(llmock, retry_timeout=1.5) as llm, pytest.raises(GenerationError) as caught:
            llm.generate_outputs([CHAT])
        assert caught.value.kind == "server"
        assert 2 <= caught.value.attempts == len(llmock.requests)
        llmock.assert_resilient(strict=True)

    def test_slow_answer_times_out_and_is_retried(self, llmock: Any) -> None:
        llmock.delay(2.0, times=1, provider=self.provider)
        with self.make(llmock, timeout=0.4) as llm:
            assert llm.generate_outputs([CHAT])[0]["generations"][0]
        assert len(llmock.requests) == 2
        llmock.assert_resilient(strict=True)

    def test_tool_call(self, llm: LLM, llmock: Any) -> None:
        """A whole turn with a tool: the call, its result, and the answer."""
        llmock.call_tool("weather", {"city": "Paris"}).fail(self.overloaded, provider=self.provider)
        (output,) = llm.generate_outputs([CHAT], tools=[WEATHER], tool_choice="required")
        assert output["finish_reasons"] == ["tool_calls"]
        (calls,) = output["tool_calls"]
        assert calls is not None
        assert calls[0]["function"]["name"] == "weather"
        assert json.loads(calls[0]["function"]["arguments"]) == {"city": "Paris"}
        result = {"role": "tool", "tool_call_id": calls[0]["id"], "content": "21 degrees"}
        chat: Any = [*CHAT, {"role": "assistant", "content": None, "tool_calls": calls}, result]
        (answer,) = llm.generate_outputs([chat], tools=[WEATHER])
        assert answer["generations"][0]
        assert answer["finish_reasons"] == ["stop"]
        llmock.assert_resilient(strict=True)
