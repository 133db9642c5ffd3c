"""DeepSeek: thinking, JSON by the prompt, reasoning that goes back, and a server that answers late."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

import pytest

from stillhouse import ConfigurationError, GenerationError, UnsupportedError
from stillhouse_openai import DeepSeekLLM

CHAT: Any = [{"role": "user", "content": "hello"}]
TOOLS: Any = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SCHEMA = {
    "type": "object",
    "properties": {"river": {"type": "string", "minLength": 2}},
    "allOf": [{"required": ["river"]}],
}
FORM: Any = {"format": "json", "schema": SCHEMA}


def at(server: Any, **fields: Any) -> DeepSeekLLM:
    return DeepSeekLLM(**{"model": "m", "base_url": server.origin, "api_key": "key", **fields})


@pytest.mark.parametrize(
    ("effort", "fields"),
    [
        ("none", {"thinking": {"type": "disabled"}}), ("minimal", {"reasoning_effort": "low"}),
        ("low", {"reasoning_effort": "low"}), ("medium", {"reasoning_effort": "high"}),
        ("high", {"reasoning_effort": "high"}), ("max", {"reasoning_effort": "max"}), (None, {}),
    ],
)  # fmt: skip
def test_levels_of_effort(server: Any, effort: Any, fields: dict[str, Any]) -> None:
    with at(server) as llm:
        llm.generate_outputs([CHAT], reasoning_effort=effort, max_new_tokens=9)
    assert server.bodies == [{"model": "m", "messages": CHAT, "max_tokens": 9, **fields}]


def test_its_parameters(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEEPSEEK_BASE_URL", raising=False)
    llm = DeepSeekLLM(model="m", api_key="key")
    assert (llm.api_url.rstrip("/"), llm.timeout) == ("https://api.deepseek.com", 600)
    with at(server) as llm:
        llm.generate_outputs([CHAT], thinking={"type": "enabled"}, logprobs=True, top_logprobs=2)
        for name, value in (("seed", 1), ("logit_bias", {"1": 1}), ("top_k", 1)):
            with pytest.raises(ConfigurationError, match=name):
                llm.generate_outputs([CHAT], **{name: value})
        with pytest.raises(UnsupportedError):
            llm.generate_outputs(["raw"])
    assert server.paths == ["/chat/completions"]
    assert server.bodies[0]["thinking"] == {"type": "enabled"}


def test_json_is_asked_for_by_the_prompt_and_asked_for_again(server: Any) -> None:
    server.script[:] = [server.chat(None), server.chat('{"river": "a"}'), server.chat('{"river": "Ob"}')]
    form = {**FORM, "max_retries": 2}
    system: Any = [{"role": "system", "content": "Be brief."}, *CHAT]
    with at(server) as llm:
        (output,) = llm.generate_outputs([(system, form)])
    assert output["generations"] == ['{"river": "Ob"}']
    assert output["statistics"]["output_tokens"] == [9]
    for body in server.bodies:
        assert body["response_format"] == {"type": "json_object"}
        first, *others = body["messages"]
        assert first["content"].startswith("Be brief.\n\n")
        assert "JSON" in first["content"], "the API demands the word"
        assert json.dumps(SCHEMA, separators=(",", ":")) in first["content"]
        assert others[0] == CHAT[0]
    assert system[0]["content"] == "Be brief."
    with at(server) as llm:
        llm.structured_output = FORM
        server.script[:] = [server.chat('{"river": "Ob"}')]
        llm.generate_outputs([CHAT])
    assert [message["role"] for message in server.bodies[-1]["messages"]] == ["system", "user"]


def test_a_form_that_is_no_object_is_refused(server: Any) -> None:
    for schema in ({"type": "array"}, {"type": ["string", "null"]}):
        with pytest.raises(UnsupportedError, match="must be an object"):
            at(server, structured_output={"format": "json", "schema": schema})
    with pytest.raises(UnsupportedError, match="regex"):
        at(server, structured_output={"format": "regex", "schema": "a+"})


def test_reasoning_goes_back_with_tools(server: Any) -> None:
    server.script[:] = [server.chat(None, finish="tool_calls", tool_calls=[CALL], reasoning_content="hm")]
    result = {"role": "tool", "tool_call_id": "1", "content": "42"}
    with at(server) as llm:
        (output,) = llm.generate_outputs([CHAT], tools=TOOLS)
        message = {"role": "assistant", "content": None, "tool_calls": output["tool_calls"][0]}
        ours = {**message, "reasoning": output["reasoning"][0]}
        theirs = {**message, "reasoning_content": "hm"}
        llm.generate_outputs([[*CHAT, ours, result], [*CHAT, theirs, result]], tools=TOOLS)
    assert [body["messages"] for body in server.bodies[1:]] == [[*CHAT, theirs, result]] * 2


def test_cached_tokens_are_part_of_the_input(server: Any) -> None:
    usage = {
        "prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105,
        "prompt_cache_hit_tokens": 80, "prompt_cache_miss_tokens": 20,
        "completion_tokens_details": {"reasoning_tokens": 4},
    }  # fmt: skip
    server.script[:] = [server.chat("a", usage=usage, reasoning_content="hm")]
    with at(server) as llm:
        (output,) = llm.generate_outputs([CHAT])
    assert output["statistics"] == {
        "input_tokens": [100], "output_tokens": [5], "cached_tokens": [80], "reasoning_tokens": [4],
    }  # fmt: skip
    assert output["reasoning"] == ["hm"]


def test_a_lack_of_resources_is_tried_again(server: Any) -> None:
    server.script[:] = [server.chat("half", finish="insufficient_system_resource"), server.chat("whole")]
    with at(server, retry_timeout=30) as llm:
        assert llm.generate_outputs([CHAT])[0]["generations"] == ["whole"]


@pytest.mark.parametrize(
    ("status", "message", "meaning"),
    [
        (400, "This response_format type is unavailable now", ("invalid_request", False)),
        (400, "Missing reasoning_content field in the assistant message at message index 2",
         ("invalid_request", False)),
        (401, "Authentication Fails, Your api key: ****1234 is invalid", ("authentication", True)),
        (402, "Insufficient Balance", ("rate_limit", True)),
        (422, "Invalid parameters", ("invalid_request", False)),
    ],
)  # fmt: skip
def test_errors_by_their_meaning(server: Any, status: int, message: str, meaning: tuple[str, bool]) -> None:
    server.script[:] = [(status, {"error": {"message": message, "type": "x", "param": None, "code": "x"}})]
    with at(server) as llm, pytest.raises(GenerationError) as caught:
        llm.generate_outputs([CHAT])
    assert (caught.value.kind, caught.value.stops_run) == meaning
    assert caught.value.attempts == 1
    assert message[:20] in caught.value.message


def test_empty_lines_before_an_answer_are_no_answer(server: Any) -> None:
    """Under load they keep the connection open; where nothing follows, the request is made again."""
    answer = json.dumps(server.chat("late")).encode()
    pieces = [[b"\n\n", b"\n"], [b"\n", b"\n\n", answer]]
    asked: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        for parts in pieces:
            connection, _ = listener.accept()
            with connection:
                request = b""
                while b"hello" not in request:
                    request += connection.recv(65536)
                asked.append(request)
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                    b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
                )
                for part in (*parts, b""):
                    connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with DeepSeekLLM(model="m", base_url=base_url, api_key="key", retry_timeout=30) as llm:
            (output,) = llm.generate_outputs([CHAT])
        thread.join(10)
    assert output["generations"] == ["late"]
    assert len(asked) == 2
