"""Google's own SDK: its types take our requests, and it reads the same in the answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stillhouse.testing import Reply
from stillhouse_google import GeminiLLM, VertexAILLM

genai: Any = pytest.importorskip("google.genai", reason="google-genai is not installed")

CHAT: Any = [{"role": "user", "content": "hello"}]
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
SIGNED = {**CALL, "id": "b", "extra_content": {"google": {"thought_signature": "c2ln"}}}
LONG: Any = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Look."},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
            {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        ],
    },
    {"role": "assistant", "content": "Well.", "tool_calls": [CALL, SIGNED]},
    {"role": "tool", "tool_call_id": "a", "content": "1"},
    {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "x"}]},
]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "object", "properties": {"a": {"const": "b"}}, "required": ["a"]}
ARGUMENTS: dict[str, Any] = {
    "max_new_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 7, "stop": "end", "seed": 3,
    "frequency_penalty": 0.1, "presence_penalty": 0.2, "logprobs": True, "top_logprobs": 4,
    "media_resolution": "low", "labels": {"team": "a"}, "service_tier": "flex", "reasoning_effort": "low",
    "thinking": {"includeThoughts": True}, "tools": [TOOL],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
}  # fmt: skip


def body_of(llm: Any, **arguments: Any) -> dict[str, Any]:
    form = {"format": "json", "schema": SCHEMA}
    request = llm.request_of((LONG, form), 1, arguments)
    return json.loads(json.dumps(request.body))  # type: ignore[no-any-return]


@pytest.mark.parametrize("cls", [GeminiLLM, VertexAILLM])
def test_sdk_takes_every_field_of_our_requests(cls: Any) -> None:
    """Its types forbid what they do not know."""
    fields = {"project": "p"} if cls is VertexAILLM else {}
    body = body_of(cls(model="gemini-3-flash", **fields), **ARGUMENTS)
    contents = [genai.types.Content.model_validate(item) for item in body["contents"]]
    assert contents[1].parts[2].function_call.args == {"x": 1}
    assert contents[1].parts[2].thought_signature == b"sig"
    assert contents[2].parts[1].function_response.name == "f"
    beside = {"systemInstruction", "tools", "toolConfig", "safetySettings", "labels", "serviceTier"}
    assert body.keys() == {"contents", "generationConfig", *beside}
    top = {key: body[key] for key in beside}
    config = genai.types.GenerateContentConfig.model_validate({**body["generationConfig"], **top})
    assert config.max_output_tokens == 9
    assert config.thinking_config.thinking_level == genai.types.ThinkingLevel.LOW
    assert config.response_json_schema["properties"]["a"] == {"enum": ["b"], "type": "string"}
    assert config.tool_config.function_calling_config.allowed_function_names == ["f"]
    assert config.service_tier == genai.types.ServiceTier.FLEX
    assert config.media_resolution == genai.types.MediaResolution.MEDIA_RESOLUTION_LOW


ANSWER: dict[str, Any] = {
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [
                    {"text": "hm ", "thought": True},
                    {"text": "An"},
                    {"text": "swer", "thoughtSignature": "c2ln"},
                    {"functionCall": {"id": "c", "name": "f", "args": {"x": [1, None]}}},
                ],
            },
            "finishReason": "STOP",
            "index": 0,
            "logprobsResult": {
                "chosenCandidates": [{"token": "An", "tokenId": 4, "logProbability": -0.25}],
                "topCandidates": [{"candidates": [{"token": "An", "tokenId": 4, "logProbability": -0.25}]}],
            },
        }
    ],
    "usageMetadata": {
        "promptTokenCount": 10,
        "cachedContentTokenCount": 4,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 7,
        "totalTokenCount": 20,
    },
    "modelVersion": "gemini-3-flash",
    "responseId": "r1",
}


def test_sdk_reads_the_same_in_an_answer(read: Any) -> None:
    theirs = genai.types.GenerateContentResponse.model_validate(ANSWER)
    ours = read(ANSWER)
    parts = theirs.candidates[0].content.parts
    assert ours["generations"] == [theirs.text]
    assert ours["reasoning"] == ["".join(part.text for part in parts if part.thought)]
    (call,) = theirs.function_calls
    function = ours["tool_calls"][0][0]["function"]
    assert (ours["tool_calls"][0][0]["id"], function["name"]) == (call.id, call.name)
    assert json.loads(function["arguments"]) == call.args
    usage = theirs.usage_metadata
    assert ours["statistics"] == {
        "input_tokens": [usage.prompt_token_count],
        "output_tokens": [usage.total_token_count - usage.prompt_token_count],
        "cached_tokens": [usage.cached_content_token_count],
        "reasoning_tokens": [usage.thoughts_token_count],
    }
    (chosen,) = theirs.candidates[0].logprobs_result.chosen_candidates
    assert ours["logprobs"] == [[[{"token": chosen.token, "logprob": chosen.log_probability}]]]


def test_every_finish_reason_of_the_sdk_is_one_and_no_failure_is_a_stop() -> None:
    llm = GeminiLLM(model="m")
    for reason in genai.types.FinishReason:
        given = {"candidates": [{"finishReason": reason.value, "content": {"parts": [{"text": "x"}]}}]}
        output: Any = llm.output_of(given, None)  # type: ignore[arg-type]
        assert (output["finish_reasons"] == ["stop"]) == (reason.value == "STOP")
        assert output["stop_reasons"] == [reason.value]


@pytest.mark.parametrize(
    "fields",
    [
        {"location": "global"},
        {"location": "us"},
        {"location": "eu"},
        {"location": "europe-west4"},
        {"location": "us-central1", "model": "anthropic/claude-x@2025"},
        {"location": "us-central1", "model": "publishers/meta/models/llama"},
    ],
)
def test_addresses_on_vertex_ai_are_the_sdks(fields: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    credentials: Any = pytest.importorskip("google.oauth2.credentials")
    given = {"model": "gemini-3-flash", "project": "p-1", **fields}
    client = genai.Client(
        vertexai=True,
        project="p-1",
        location=given["location"],
        credentials=credentials.Credentials("t"),
    )
    seen: list[str] = []

    def request(http_method: str, path: str, body: Any, http_options: Any = None) -> Any:
        seen.append(client._api_client._build_request(http_method, path, body, http_options).url)
        raise InterruptedError

    monkeypatch.setattr(client._api_client, "request", request)
    with pytest.raises(InterruptedError):
        client.models.generate_content(model=given["model"], contents="x")
    llm: Any = VertexAILLM(**given, access_token="t")
    with llm:
        url = llm.url_of(llm._base, llm.request_of(CHAT, 1, {}).path)
    assert str(url) == seen[0]


def test_address_of_the_gemini_api_is_the_sdks(server: Any) -> None:
    """Asked at the same address, both send the same to the same path, with the key in the same header."""
    options = {"base_url": server.origin, "api_version": "v1beta"}
    client = genai.Client(api_key="key-1", http_options=options)
    theirs = client.models.generate_content(model="gemini-3-flash", contents="hello")
    with GeminiLLM(model="gemini-3-flash", base_url=server.origin, api_key="key-1") as llm:
        (ours,) = llm.generate_outputs([CHAT])
    first, second = server.requests
    assert ours["generations"] == [theirs.text] == ["fine"]
    assert first.path == second.path
    assert first.body["contents"] == second.body["contents"]
    assert first.headers["x-goog-api-key"] == second.headers["x-goog-api-key"] == "key-1"


def test_sdk_raises_where_we_fail(server: Any, make: Any) -> None:
    server.always = Reply(
        400, {"error": {"code": 400, "message": "no such thing", "status": "INVALID_ARGUMENT"}}
    )
    client = genai.Client(api_key="key-1", http_options={"base_url": server.origin})
    with pytest.raises(genai.errors.ClientError, match="no such thing"):
        client.models.generate_content(model="m", contents="hello")
    with pytest.raises(Exception, match="no such thing"):
        make().generate_outputs([CHAT])
