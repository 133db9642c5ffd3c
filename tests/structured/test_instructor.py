"""Structured output through instructor: the client that is wrapped, and the response model."""

from __future__ import annotations

import asyncio
import enum
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from stillhouse import ConfigurationError, UnsupportedError
from stillhouse.structured.instructor import response_model

from ..support import ScriptedLLM

pytest.importorskip("jsonschema")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    """A part of parts."""

    name: str = Field(min_length=2)
    colour: Colour = Colour.RED
    parts: list[Part] = []


FORM = {"format": "json", "schema": Part}


class Wrapped:
    def __init__(self, client: Any, settings: dict[str, Any]) -> None:
        self.client, self.settings = client, settings


@pytest.fixture
def _instructor(monkeypatch: pytest.MonkeyPatch) -> None:
    """What of instructor is used, wrapping what it is given."""
    monkeypatch.setitem(
        sys.modules,
        "instructor",
        SimpleNamespace(
            Mode=enum.Enum("Mode", {"TOOLS": "tool_call", "JSON": "json_mode"}),
            from_openai=lambda client, **settings: Wrapped(client, settings),
            from_mistral=lambda client, **settings: Wrapped(client, settings),
        ),  # type: ignore[arg-type]
    )


@pytest.mark.usefixtures("_instructor")
def test_instructor_wraps_the_given_client() -> None:
    llm, client = ScriptedLLM(), object()
    first = llm._prepare_structured_output(FORM, client=client, framework="openai")
    second = llm._prepare_structured_output(FORM, client, "openai")
    for prepared in (first, second):
        assert prepared["client"].client is client
        assert prepared["client"].settings == {}
        assert prepared["structured_output"] == {"format": "json", "schema": Part.model_json_schema()}
    assert first["client"] is not second["client"]
    assert llm._prepare_structured_output(FORM, client, "mistral")["client"].settings == {"use_async": True}


@pytest.mark.usefixtures("_instructor")
def test_instructor_mode_is_given_as_a_string() -> None:
    llm = ScriptedLLM()
    prepared = llm._prepare_structured_output({**FORM, "mode": "JSON_MODE"}, object(), "openai")
    assert prepared["client"].settings["mode"].name == "JSON"
    with pytest.raises(ConfigurationError, match="no mode 'json_mod'") as caught:
        llm._prepare_structured_output({**FORM, "mode": "json_mod"}, object(), "openai")
    assert "'json_mode'" in caught.value.hint


@pytest.mark.usefixtures("_instructor")
def test_instructor_refuses_an_unknown_framework_or_a_missing_schema() -> None:
    llm = ScriptedLLM()
    with pytest.raises(ConfigurationError, match="framework 'opnai'") as caught:
        llm._prepare_structured_output(FORM, object(), "opnai")
    assert "'openai'" in caught.value.hint
    with pytest.raises(ConfigurationError, match="no schema"):
        llm._prepare_structured_output({"format": "json"}, object(), "openai")
    for form in ({"format": "regex", "schema": "a"}, {"schema": ["a"]}):
        with pytest.raises(UnsupportedError, match="JSON schemas only"):
            llm._prepare_structured_output(form, object(), "openai")
        with pytest.raises(UnsupportedError, match="JSON schemas only"):
            llm._prepare_kwargs({}, form)
    with pytest.raises(UnsupportedError, match="of an object"):
        llm._prepare_kwargs({}, {"schema": {"type": "string"}})
    with pytest.raises(ConfigurationError, match="JSON schema is not valid"):
        llm._prepare_kwargs({}, {"schema": {"type": "object", "properties": 5}})


def test_without_instructor_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "instructor", None)
    with pytest.raises(ConfigurationError, match="needs instructor") as caught:
        ScriptedLLM()._prepare_structured_output(FORM, object(), "openai")
    assert caught.value.hint == 'stillhouse install "stillhouse[instructor]"'


def test_prepare_kwargs_adds_the_instructor_arguments() -> None:
    llm, arguments = ScriptedLLM(), {"temperature": 0.5}
    plain = llm._prepare_kwargs(arguments, None)
    assert plain == arguments
    prepared = llm._prepare_kwargs(arguments, {**FORM, "max_retries": 3})
    assert prepared["temperature"] == 0.5
    assert prepared["max_retries"] == 3
    assert issubclass(prepared["response_model"], BaseModel)
    assert llm._prepare_kwargs({}, FORM)["max_retries"] == 1
    assert arguments == {"temperature": 0.5}


def test_a_schema_keeps_its_enums_constraints_and_references() -> None:
    model = response_model(Part.model_json_schema())
    schema = model.model_json_schema()
    assert model.__name__ == "Part"
    assert schema["type"] == "object"
    assert schema["$defs"]["Colour"]["enum"] == ["red", "blue"]
    assert schema["properties"]["name"]["minLength"] == 2
    assert schema["properties"]["parts"]["items"] == {"$ref": "#/$defs/Part"}
    answer = {"name": "ab", "colour": "blue", "parts": [{"name": "cd", "model_config": 5, "_x": 1}]}
    assert json.loads(model.model_validate_json(json.dumps(answer)).model_dump_json()) == answer
    for wrong in (
        {},
        {"name": "a"},
        {"name": "ab", "colour": "green"},
        {"name": "ab", "parts": [{"name": "c"}]},
        [],
    ):
        with pytest.raises(ValidationError):
            model.model_validate_json(json.dumps(wrong))


def test_the_schema_that_was_given_is_not_changed() -> None:
    given = {"type": "object", "properties": {"a": {"enum": [1, None, "x"]}}}
    model = response_model(given)
    model.model_json_schema()["properties"].clear()
    given["properties"]["b"] = {}  # type: ignore[index]
    assert model.model_json_schema() == {"type": "object", "properties": {"a": {"enum": [1, None, "x"]}}}


def test_the_real_instructor_asks_again_with_the_whole_schema() -> None:
    pytest.importorskip("instructor")
    openai = pytest.importorskip("openai")
    answers = [{"name": "a"}, {"name": "ab", "colour": "blue"}]
    requests: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append(body)
            message: dict[str, Any] = {"role": "assistant", "content": "plain"}
            if "tools" in body:
                name = body["tools"][0]["function"]["name"]
                call = {"name": name, "arguments": json.dumps(answers.pop(0))}
                message["tool_calls"] = [{"id": "1", "type": "function", "function": call}]
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            response = {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [choice],
            }
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(response).encode())

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    async def main(port: int) -> None:
        async with openai.AsyncOpenAI(api_key="none", base_url=f"http://127.0.0.1:{port}") as client:
            llm, messages = ScriptedLLM(), [{"role": "user", "content": "hi"}]
            prepared = llm._prepare_structured_output(FORM, client, "openai")
            arguments = llm._prepare_kwargs(
                {"model": "m", "messages": messages}, prepared["structured_output"]
            )
            answer = await prepared["client"].chat.completions.create(**{**arguments, "max_retries": 2})
            assert json.loads(answer.model_dump_json()) == {"name": "ab", "colour": "blue"}
            plain = await client.chat.completions.create(model="m", messages=messages)
            assert plain.choices[0].message.content == "plain"

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            asyncio.run(main(server.server_port))
        finally:
            server.shutdown()
    assert len(requests) == 3
    parameters = requests[0]["tools"][0]["function"]["parameters"]
    assert parameters["$defs"]["Colour"]["enum"] == ["red", "blue"]
    assert parameters["properties"]["name"]["minLength"] == 2
    assert "tools" not in requests[2]
