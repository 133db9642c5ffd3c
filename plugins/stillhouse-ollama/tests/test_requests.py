"""What is sent: parameters, messages, tools, images, forms, and where to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stillhouse import ConfigurationError, GenerationError, UnsupportedError
from stillhouse.testing import ScriptedServer
from stillhouse_ollama import OllamaLLM
from stillhouse_ollama.address import address_of

CHAT: list[Any] = [{"role": "user", "content": "Name a river."}]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
TOOL = {
    "type": "function",
    "function": {"name": "length_of", "parameters": {"type": "object", "properties": {}}},
}


def sent(llm: OllamaLLM, server: ScriptedServer, prompt: Any = CHAT, **arguments: Any) -> dict[str, Any]:
    llm.generate_outputs([prompt], **arguments)
    body: dict[str, Any] = server.requests[-1].body
    return body


def test_chat_is_sent_whole_and_not_as_a_stream(make: Any, server: ScriptedServer) -> None:
    body = sent(make(), server)
    assert body == {
        "model": "llama3.2",
        "messages": [{"role": "user", "content": "Name a river."}],
        "stream": False,
        "truncate": False,
        "shift": False,
    }
    assert server.requests[-1].path == "/api/chat"


def test_raw_prompt_is_sent_without_a_template(make: Any, server: ScriptedServer) -> None:
    body = sent(make(), server, "Once upon a time", max_new_tokens=5, logprobs=True)
    assert server.requests[-1].path == "/api/generate"
    assert body == {
        "model": "llama3.2", "prompt": "Once upon a time", "raw": True, "stream": False, "truncate": False,
        "shift": False, "options": {"num_predict": 5}, "logprobs": True,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["tools", "tool_choice", "think", "reasoning_effort"])
def test_raw_prompt_takes_no_parameters_of_chats(make: Any, server: ScriptedServer, name: str) -> None:
    value: Any = {"tools": [TOOL], "tool_choice": "auto", "think": True, "reasoning_effort": "low"}[name]
    with pytest.raises((UnsupportedError, GenerationError), match=name):
        make().generate_outputs(["Once"], **{name: value})
    assert not server.requests


def test_options_have_the_names_of_the_api(make: Any, server: ScriptedServer) -> None:
    given = {
        "max_new_tokens": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "typical_p": 0.7,
        "stop": "###", "seed": 3, "frequency_penalty": 0.1, "presence_penalty": 0.2,
        "repetition_penalty": 1.1, "repeat_last_n": 64, "num_ctx": 8192, "num_keep": 4,
    }  # fmt: skip
    options = sent(make(), server, **given)["options"]
    assert options == {
        "num_predict": 7, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "typical_p": 0.7,
        "stop": ["###"], "seed": 3, "frequency_penalty": 0.1, "presence_penalty": 0.2, "repeat_penalty": 1.1,
        "repeat_last_n": 64, "num_ctx": 8192, "num_keep": 4,
    }  # fmt: skip


def test_named_parameters_win_over_options_and_extra_body_over_all(make: Any, server: ScriptedServer) -> None:
    body = sent(
        make(),
        server,
        temperature=0.5,
        seed=1,
        options={"temperature": 1.0, "num_gpu": 0},
        extra_body={"options": {"seed": 2}, "truncate": True, "width": 1},
    )
    assert body["options"] == {"temperature": 0.5, "num_gpu": 0, "seed": 2}
    assert (body["truncate"], body["width"]) == (True, 1)


def test_fields_bring_the_servers_own_cutting_back(make: Any, server: ScriptedServer) -> None:
    body = sent(make(truncate=True, shift=True), server)
    assert (body["truncate"], body["shift"]) == (True, True)


@pytest.mark.parametrize(
    ("given", "written"),
    [(-1, -1), ("-1", -1), ("300", 300), (" 300 ", 300), ("0", 0), ("1.5", 1.5), ("5m", "5m"),
     ("-1m", "-1m"), ("1h30m", "1h30m"), (2.5, 2.5)],
)  # fmt: skip
def test_keep_alive_that_is_a_number_is_sent_as_one(
    make: Any, server: ScriptedServer, given: Any, written: Any
) -> None:
    found = sent(make(), server, keep_alive=given)["keep_alive"]
    assert (found, type(found)) == (written, type(written))


@pytest.mark.parametrize(
    ("given", "think"),
    [({"think": True}, True), ({"think": "false"}, False), ({"think": "high"}, "high"),
     ({"reasoning_effort": "none"}, False), ({"reasoning_effort": "minimal"}, "low"),
     ({"reasoning_effort": "medium"}, "medium"), ({"reasoning_effort": "max"}, "max")],
)  # fmt: skip
def test_thinking_is_a_boolean_or_a_level(
    make: Any, server: ScriptedServer, given: dict[str, Any], think: Any
) -> None:
    found = sent(make(), server, **given)["think"]
    assert (found, type(found)) == (think, type(think))


def test_thinking_is_not_said_twice(make: Any, server: ScriptedServer) -> None:
    with pytest.raises((ConfigurationError, GenerationError), match="set the same thing"):
        make().generate_outputs([CHAT], think=True, reasoning_effort="low")
    assert not server.requests


def test_top_logprobs_imply_logprobs(make: Any, server: ScriptedServer) -> None:
    body = sent(make(), server, top_logprobs=3)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 3)


@pytest.mark.parametrize(
    "choice", ["none", "required", {"type": "function", "function": {"name": "length_of"}}]
)
def test_tool_choice_that_the_api_ignores_is_refused(make: Any, server: ScriptedServer, choice: Any) -> None:
    with pytest.raises((UnsupportedError, GenerationError), match="tool_choice"):
        make().generate_outputs([CHAT], tools=[TOOL], tool_choice=choice)
    assert not server.requests


@pytest.mark.parametrize("given", [{"tool_choice": "required"}, {"think": True, "reasoning_effort": "low"}])
def test_what_no_request_can_have_is_refused_before_the_first_row(
    make: Any, server: ScriptedServer, given: Any
) -> None:
    with pytest.raises((ConfigurationError, UnsupportedError), match=r"tool_choice|set the same thing"):
        list(make().iter_outputs([CHAT], on_error="yield", **given))
    assert not server.requests


def test_tool_choice_auto_is_what_the_api_does(make: Any, server: ScriptedServer) -> None:
    body = sent(make(), server, tools=[TOOL], tool_choice="auto")
    assert body["tools"] == [TOOL]
    assert "tool_choice" not in body


def test_tools_that_are_none_are_not_sent(make: Any, server: ScriptedServer) -> None:
    assert "tools" not in sent(make(), server, tools=[])


def test_tool_calls_go_back_with_objects_and_results_with_names(make: Any, server: ScriptedServer) -> None:
    def call(id: str, name: str, arguments: Any) -> dict[str, Any]:
        return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}

    chat: list[Any] = [
        {"role": "user", "content": "How long are they?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [call("1", "length_of", '{"river": "Ucayali"}')],
        },
        {"role": "tool", "tool_call_id": "1", "content": "1771"},
        {"role": "assistant", "content": "", "tool_calls": [call("1", "depth_of", {})]},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "30"}]},
        {"role": "tool", "tool_call_id": "?", "name": "other", "content": "1"},
        {"role": "assistant", "content": "So.", "tool_calls": [], "thinking": "Hm."},
    ]
    before = [dict(message) for message in chat]
    messages = sent(make(), server, chat)["messages"]
    assert messages[1]["content"] == ""
    assert messages[1]["tool_calls"][0]["function"] == {
        "name": "length_of",
        "arguments": {"river": "Ucayali"},
    }
    assert (messages[2]["tool_name"], messages[2]["content"]) == ("length_of", "1771")
    assert (messages[4]["tool_name"], messages[4]["content"]) == ("depth_of", "30")
    assert messages[5]["tool_name"] == "other"
    assert messages[6] == {"role": "assistant", "content": "So.", "thinking": "Hm."}
    assert chat == before


@pytest.mark.parametrize("arguments", ["[1]", "{", '"x"', 5])
def test_arguments_that_are_no_object_are_refused(make: Any, server: ScriptedServer, arguments: Any) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    chat = [*CHAT, {"role": "assistant", "content": None, "tool_calls": [call]}]
    with pytest.raises((ConfigurationError, GenerationError), match="arguments"):
        make().generate_outputs([chat])
    assert not server.requests


def test_images_stand_beside_the_text_as_bare_base64(make: Any, server: ScriptedServer) -> None:
    parts = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/jpg;base64,{PNG}"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    ]
    (message,) = sent(make(), server, [{"role": "user", "content": parts}])["messages"]
    assert message == {"role": "user", "content": "What is it?", "images": [PNG, PNG]}


@pytest.mark.parametrize(
    "url", ["https://example.org/a.png", "data:image/tiff;base64,AAAA", "data:image/png;base64,%%%", ""]
)
def test_images_that_the_api_cannot_take_are_refused(make: Any, server: ScriptedServer, url: str) -> None:
    chat = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    with pytest.raises((ConfigurationError, GenerationError), match="image"):
        make().generate_outputs([chat])
    assert not server.requests


def test_developer_is_a_system_message(make: Any, server: ScriptedServer) -> None:
    chat = [{"role": "developer", "content": "Be brief."}, *CHAT]
    assert sent(make(), server, chat)["messages"][0] == {"role": "system", "content": "Be brief."}


def test_several_generations_are_as_many_requests_with_other_seeds(make: Any, server: ScriptedServer) -> None:
    (output,) = make().generate_outputs([CHAT], num_generations=3, seed=5)
    assert len(output["generations"]) == 3
    assert sorted(request.body["options"]["seed"] for request in server.requests) == [5, 6, 7]


def schema(**item: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": item}, "required": ["a"]}


@pytest.mark.parametrize("prompt", [CHAT, "Once"], ids=["chat", "raw"])
def test_schema_is_the_format_and_the_prompt_is_left_alone(
    make: Any, server: ScriptedServer, says: Callable[..., None], prompt: Any
) -> None:
    wanted = schema(type="integer", minimum=1)
    for text in ('{"a": 0}', '{"a": 3}'):
        says({"message": {"content": text}, "response": text, "done": True, "done_reason": "stop"})
    llm = make(structured_output={"format": "json", "schema": wanted})
    (output,) = llm.generate_outputs([prompt])
    assert output["generations"] == ['{"a": 3}']  # the first did not validate: a server may ignore the form
    first = server.requests[0].body
    assert first["format"] == wanted
    assert first.get("messages", first.get("prompt")) == prompt


@pytest.mark.parametrize(
    ("wanted", "keyword"),
    [
        (schema(oneOf=[{"type": "string"}, {"type": "string", "maxLength": 3}]), "oneOf"),
        (schema(allOf=[{"type": "string"}, {"maxLength": 3}]), "allOf"),
        (schema(**{"not": {"type": "string"}}), "not"),
        (schema(type="number", minimum=1), "minimum"),
        (schema(type=["integer", "null"], maximum=1), "maximum"),
        (schema(type="integer", multipleOf=2), "multipleOf"),
        (schema(type="string", pattern="abc"), "pattern"),
        (schema(type="string", pattern="^(?!x)$"), "pattern"),
        (schema(type="string", pattern="^a$", maxLength=3), "maxLength"),
        (schema(type="string", format="email"), "format"),
        (schema(type="array", items={"type": "string"}, uniqueItems=True), "uniqueItems"),
        (schema(anyOf=[{"type": "string"}], minLength=1), "minLength"),
        ({**schema(**{"$ref": "#/$defs/x"}), "$defs": {"x": {"type": "number", "maximum": 1}}}, "maximum"),
        ({"type": "object", "properties": {}, "required": ["b"]}, "required"),
        ({"type": "array", "items": {"type": "string", "format": "uri"}}, "format"),
        ({"type": "object", "additionalProperties": {"type": "number", "minimum": 1}}, "minimum"),
    ],
)
def test_schema_that_the_grammar_does_not_hold_is_refused(wanted: dict[str, Any], keyword: str) -> None:
    with pytest.raises(UnsupportedError, match=f"'{keyword}'"):
        OllamaLLM(model="m", structured_output={"format": "json", "schema": wanted})


@pytest.mark.parametrize(
    "wanted",
    [
        schema(type="string", pattern="^[a-z]+$", title="A", description="a"),
        schema(type="string", format="date-time"),
        schema(type=["string", "null"], minLength=1),
        schema(type="array", items={"enum": ["a", 1, None]}, minItems=1, maxItems=3),
        {**schema(**{"$ref": "#/$defs/x"}), "$defs": {"x": {"anyOf": [{"type": "null"}, {"const": 1}]}}},
        {"type": "object"},
    ],
)
def test_schema_that_the_grammar_holds_is_sent_as_it_is(wanted: dict[str, Any]) -> None:
    assert OllamaLLM.form_of({"format": "json", "schema": wanted}).fields == {"format": wanted}


TREE: Any = {
    "$ref": "#/$defs/node",
    "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
}


@pytest.mark.parametrize(
    ("wanted", "written"),
    [
        (schema(oneOf=[{"type": "string"}, {"type": "null"}]), schema(anyOf=[{"type": "string"}, {"type": "null"}])),
        (schema(allOf=[{"type": "integer", "minimum": 1}], title="A"), schema(type="integer", minimum=1, title="A")),
        (TREE, TREE),
    ],
)  # fmt: skip
def test_schema_is_written_as_one_that_the_grammar_holds(wanted: Any, written: Any) -> None:
    assert OllamaLLM.form_of({"format": "json", "schema": wanted}).fields == {"format": written}


@pytest.mark.parametrize(("form", "given"), [("regex", "a+"), ("choice", ["a", "b"])])
def test_regex_and_choice_are_refused(form: str, given: Any) -> None:
    with pytest.raises(UnsupportedError, match=form):
        OllamaLLM(model="m", structured_output={"format": form, "schema": given})


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("", "http://127.0.0.1:11434"),
        (' "localhost:1234" ', "http://localhost:1234"),
        ("'0.0.0.0'", "http://127.0.0.1:11434"),
        ("http://0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("[::]:11434", "http://[::1]:11434"),
        ("::1", "http://[::1]:11434"),
        ("ollama.com", "https://ollama.com:443"),
        ("https://ollama.com/", "https://ollama.com:443"),
        ("HTTPS://host", "HTTPS://host:443"),
        ("host:0", "http://host:11434"),
        ("http://host:11434/api", "http://host:11434"),
        ("http://host:11434/v1/", "http://host:11434"),
        ("https://gate.example/ollama/api/chat", "https://gate.example:443/ollama"),
        ("http://u:p@host:1/x?y=z", "http://u:p@host:1/x?y=z"),
    ],
)
def test_address_is_taken_in_every_form(given: str, address: str) -> None:
    assert address_of(given) == address


@pytest.mark.parametrize("given", ["host:port", "http://ho st", "host:99999", "ftp://host"])
def test_address_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(ConfigurationError, match="not an address"):
        OllamaLLM(model="m", base_url=given).load()


def test_environment_says_where_and_with_which_key(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", server.origin.removeprefix("http://"))
    monkeypatch.setenv("OLLAMA_API_KEY", "key-of-the-cloud")
    with OllamaLLM(model="m") as llm:
        llm.generate_outputs([CHAT])
    assert server.requests[-1].headers["authorization"] == "Bearer key-of-the-cloud"


def test_no_key_is_needed(make: Any, server: ScriptedServer) -> None:
    sent(make(), server)
    assert "authorization" not in server.requests[-1].headers


def test_default_address_is_this_machine() -> None:
    assert OllamaLLM(model="m").api_url == "http://127.0.0.1:11434/"


def test_models_are_those_that_the_server_has(says: Callable[..., None], server: ScriptedServer) -> None:
    says({"models": [{"name": "a:latest", "model": "a:latest", "size": 1}, {"name": "b"}, {"model": ""}]})
    assert OllamaLLM(model="m", base_url=server.origin).list_models() == [{"name": "a:latest"}, {"name": "b"}]
    assert server.requests[-1].path == "/api/tags"
