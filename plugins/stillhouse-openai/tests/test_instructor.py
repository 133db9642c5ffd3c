"""Structured output with a mode, through instructor itself and over our own transport."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from stillhouse import ConfigurationError, GenerationError, UnsupportedError
from stillhouse_openai import ClientvLLM, OpenAILLM

CHAT: Any = [{"role": "user", "content": "Hi"}]
SCHEMA = {
    "type": "object",
    "title": "Leaf",
    "properties": {"a": {"type": "integer", "maximum": 9}, "b": {"type": "string", "minLength": 2}},
    "required": ["a"],
}


def form(mode: str = "tool_call", **others: Any) -> dict[str, Any]:
    return {"format": "json", "schema": SCHEMA, "mode": mode, **others}


def called(server: Any, arguments: Any, finish: str = "tool_calls") -> Any:
    call = {"id": "1", "type": "function", "function": {"name": "Leaf", "arguments": json.dumps(arguments)}}
    return server.chat(None, finish=finish, tool_calls=[call])


def test_missing_instructor_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "instructor", None)
    with pytest.raises(ConfigurationError) as caught:
        OpenAILLM.form_of({**form(), "schema": {"type": "object", "title": "Another"}})
    assert caught.value.hint == 'stillhouse install "stillhouse[instructor]"'


class TestWithInstructor:
    @pytest.fixture(autouse=True)
    def _instructor(self) -> None:
        pytest.importorskip("instructor", reason="pip install 'stillhouse-openai[instructor]'")

    def test_instructor_retries_an_invalid_answer_and_counts_all_tokens(self, make: Any, server: Any) -> None:
        server.script = [
            called(server, {"a": 10}),
            called(server, {"a": 3, "b": "xy"}),
            called(server, {"a": 4}),
        ]
        with make(structured_output=form(max_retries=2), api_key="sesame") as llm:
            (output,) = llm.generate_outputs([CHAT], num_generations=2, seed=1, temperature=0.5)
        assert [json.loads(text) for text in output["generations"]] == [{"a": 3, "b": "xy"}, {"a": 4}]
        assert output["finish_reasons"] == ["stop", "stop"]
        assert sum(output["statistics"]["output_tokens"]) == 9
        assert "tool_calls" not in output
        first, second, _ = server.bodies
        assert first["tools"][0]["function"]["parameters"]["properties"]["b"] == SCHEMA["properties"]["b"]  # type: ignore[index]
        assert (first["temperature"], first["seed"], "n" in first) == (0.5, 1, False)
        assert "10 is greater than the maximum of 9" in json.dumps(second["messages"])
        assert {headers["authorization"] for headers in server.headers} == {"Bearer sesame"}

    def test_each_input_has_its_own_mode(self, make: Any, server: Any) -> None:
        server.script = [server.chat('```json\n{"a": 1}\n```'), server.chat("plain")]
        with make(max_concurrency=1) as llm:
            outputs = llm.generate_outputs([(CHAT, form("markdown_json_mode")), CHAT])
        assert [json.loads(outputs[0]["generations"][0] or ""), outputs[1]["generations"][0]] == [
            {"a": 1},
            "plain",
        ]
        assert "response_format" not in server.bodies[1]
        assert server.bodies[1]["messages"] == CHAT

    @pytest.mark.parametrize(
        ("finish", "kind", "requests"), [("tool_calls", "schema", 3), ("length", "truncated", 1)]
    )
    def test_an_answer_that_stays_wrong(
        self, make: Any, server: Any, finish: str, kind: str, requests: int
    ) -> None:
        server.script = [called(server, {"a": 10}, finish) for _ in range(5)]
        with make(structured_output=form(max_retries=2)) as llm:
            ((_, error),) = llm.iter_outputs([CHAT], on_error="yield")
        assert isinstance(error, GenerationError)
        assert (error.kind, error.attempts, len(server.bodies)) == (kind, requests, requests)
        (output,) = error.outputs
        assert output is not None
        assert output["statistics"]["input_tokens"] == [5 * requests]

    def test_request_failures_under_instructor_are_those_of_the_transport(
        self, make: Any, server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stillhouse.http.transport.session.backoff_seconds", lambda attempt: 0.0)
        server.script = [(500, b""), called(server, {"a": 1}), (401, {"error": {"message": "no such key"}})]
        with make(structured_output=form()) as llm:
            assert json.loads(llm.generate_outputs([CHAT])[0]["generations"][0]) == {"a": 1}
            with pytest.raises(GenerationError, match="no such key") as caught:
                llm.generate_outputs([CHAT])
        assert (caught.value.kind, caught.value.attempts, caught.value.stops_run) == (
            "authentication",
            1,
            True,
        )

    def test_unsupported_instructor_mode_is_refused_on_assignment(self) -> None:
        with pytest.raises(ValueError, match="no mode 'tool_cal'"):
            OpenAILLM(model="m", structured_output=form("tool_cal"))
        for mode in ("anthropic_tools", "parallel_tool_call", "responses_tools"):
            with pytest.raises(ConfigurationError, match=f"no mode '{mode}' for openai") as caught:
                OpenAILLM.form_of(form(mode))
            assert "tool_call" in caught.value.hint
        with pytest.raises(UnsupportedError, match="of an object"):
            OpenAILLM(model="m", structured_output={**form(), "schema": {"type": "string"}})
        with pytest.raises(UnsupportedError, match="JSON schemas only"):
            ClientvLLM(model="m", structured_output={**form(), "format": "choice", "schema": ["a"]})
        with pytest.raises(UnsupportedError, match="raw prompts"):
            ClientvLLM(model="m", structured_output=form()).check_input("raw")
