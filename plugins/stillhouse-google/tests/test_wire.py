"""What is sent for parameters, messages, tools and images, and what is read of the answers."""

from __future__ import annotations

import mimetypes
import os
from typing import Any

import pytest

from stillhouse import ConfigurationError, GenerationError, UnsupportedError
from stillhouse.testing import Reply
from stillhouse_google import GeminiLLM

KEY = "AIzaSy-4f1c8e5d2b7a9360"
CHAT: Any = [{"role": "user", "content": "Name a river in Peru."}]
PNG = "data:image/jpg;base64,aGk="
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        "strict": True,
    },
}


def answer(*parts: Any, reason: str | None = "STOP", **fields: Any) -> dict[str, Any]:
    """An answer with these parts; a string is a text."""
    made = [{"text": part} if isinstance(part, str) else part for part in parts]
    return {
        "candidates": [{"content": {"parts": made, "role": "model"}, "finishReason": reason, "index": 0}],
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 3, "totalTokenCount": 8},
        "responseId": "r1",
        **fields,
    }


def call(id: str, name: str = "weather", arguments: Any = '{"city":"Oslo"}', **more: Any) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def test_parameters_go_where_the_api_has_them(sent: Any) -> None:
    body = sent(
        max_new_tokens=9,
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        stop="end",
        seed=3,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        top_logprobs=4,
        media_resolution="low",
        safety_settings=[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
        labels={"team": "a"},
        cached_content="c1",
        service_tier="flex",
        thinking={"includeThoughts": True},
        reasoning_effort="low",
        extra_body={"generationConfig": {"speechConfig": {}, "topK": 8}, "store": False},
    )
    assert body == {
        "contents": [{"role": "user", "parts": [{"text": "Name a river in Peru."}]}],
        "generationConfig": {
            "maxOutputTokens": 9,
            "temperature": 0.5,
            "topP": 0.9,
            "topK": 8,
            "stopSequences": ["end"],
            "seed": 3,
            "frequencyPenalty": 0.1,
            "presencePenalty": 0.2,
            "responseLogprobs": True,
            "logprobs": 4,
            "mediaResolution": "MEDIA_RESOLUTION_LOW",
            "thinkingConfig": {"includeThoughts": True, "thinkingLevel": "LOW"},
            "speechConfig": {},
        },
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
        "labels": {"team": "a"},
        "cachedContent": "cachedContents/c1",
        "serviceTier": "flex",
        "store": False,
    }


@pytest.mark.parametrize(
    ("model", "effort", "config"),
    [
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-flash-lite", "max", {"thinkingBudget": 24576}),
        ("models/gemini-2.5-pro", "max", {"thinkingBudget": 32768}),
        ("gemini-3-flash-preview", "minimal", {"thinkingLevel": "MINIMAL"}),
        ("gemini-3.1-pro-preview", "high", {"thinkingLevel": "HIGH"}),
        ("gemini-4-flash", "medium", {"thinkingLevel": "MEDIUM"}),
    ],
)
def test_reasoning_effort_is_a_budget_or_a_level(sent: Any, model: str, effort: str, config: Any) -> None:
    assert sent(model=model, reasoning_effort=effort)["generationConfig"]["thinkingConfig"] == config


@pytest.mark.parametrize(
    ("model", "effort", "takes"),
    [
        ("gemini-2.5-pro", "none", "minimal, low, medium, high, max"),
        ("gemini-3-pro", "minimal", "low, medium, high"),
        ("gemini-3-flash", "max", "minimal, low, medium, high"),
        ("gemini-2.0-flash", "low", "thinking="),
        ("gemma-3-27b-it", "low", "thinking="),
    ],
)
def test_effort_that_a_model_lacks_is_refused_before_anything_is_sent(
    make: Any, server: Any, model: str, effort: str, takes: str
) -> None:
    llm = make(model=model)
    with pytest.raises((UnsupportedError, GenerationError), match="reasoning_effort") as caught:
        llm.generate_outputs([CHAT], reasoning_effort=effort)
    assert takes in caught.value.hint
    assert server.requests == []


def test_system_messages_become_one_instruction_with_a_role(sent: Any) -> None:
    body = sent(
        [{"role": "system", "content": "Be brief."}, *CHAT, {"role": "developer", "content": "Rhyme."}]
    )
    assert body["systemInstruction"] == {"role": "system", "parts": [{"text": "Be brief.\n\nRhyme."}]}
    assert [content["role"] for content in body["contents"]] == ["user"]


def test_empty_messages_and_parts_are_not_sent(sent: Any, make: Any) -> None:
    chat = [
        {"role": "system", "content": ""},
        {"role": "user", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": ""}, {"type": "text", "text": "a"}]},
        {"role": "assistant", "content": None},
        {"role": "user", "content": "b"},
    ]
    body = sent(chat)
    assert body == {
        "contents": [{"role": "user", "parts": [{"text": "a"}]}, {"role": "user", "parts": [{"text": "b"}]}]
    }
    with pytest.raises((ConfigurationError, GenerationError), match="nothing for the model"):
        make().generate_outputs([chat[:2]])


def test_images_and_parts_in_the_apis_own_form(sent: Any) -> None:
    own = {"fileData": {"fileUri": "https://h/files/1", "mimeType": "application/pdf"}}
    content = [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": PNG}},
        {"type": "image_url", "image_url": "https://example.org/a.webp?x=1"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a"}},
        {"type": "image_url", "image_url": {"url": "gs://bucket/a.png"}},
        own,
    ]
    assert sent([{"role": "user", "content": content}])["contents"][0]["parts"] == [
        {"text": "Look:"},
        {"inlineData": {"mimeType": "image/jpeg", "data": "aGk="}},
        {"fileData": {"fileUri": "https://example.org/a.webp?x=1", "mimeType": "image/webp"}},
        {"fileData": {"fileUri": "https://example.org/a"}},
        {"fileData": {"fileUri": "gs://bucket/a.png", "mimeType": "image/png"}},
        own,
    ]


@pytest.mark.parametrize(
    "part", [{"type": "refusal", "refusal": "x"}, {"type": "image_url", "image_url": "x"}]
)
def test_part_that_the_api_does_not_have_is_refused(make: Any, server: Any, part: Any) -> None:
    with pytest.raises((ConfigurationError, GenerationError)):
        make().generate_outputs([[{"role": "user", "content": [part]}]])
    assert server.requests == []


def test_tool_turn_has_calls_in_one_content_and_results_in_their_order(sent: Any) -> None:
    """The results stand in one content, in the order of the calls, with the functions' names."""
    chat = [
        *CHAT,
        {"role": "assistant", "content": "Let me see."},
        {"role": "assistant", "content": "", "tool_calls": [call("a"), call("b", "time", {"zone": "CET"})]},
        {"role": "tool", "tool_call_id": "b", "content": "[1, 2]"},
        {"role": "tool", "tool_call_id": "a", "content": '{"degrees": 3}'},
        {"role": "user", "content": "And tomorrow?"},
        {"role": "assistant", "tool_calls": [call("a", "forecast", None)]},
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "rain"}]},
    ]
    assert sent(chat, tools=[WEATHER])["contents"][1:] == [
        {
            "role": "model",
            "parts": [
                {"text": "Let me see."},
                {"functionCall": {"id": "a", "name": "weather", "args": {"city": "Oslo"}}},
                {"functionCall": {"id": "b", "name": "time", "args": {"zone": "CET"}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "a", "name": "weather", "response": {"degrees": 3}}},
                {"functionResponse": {"id": "b", "name": "time", "response": {"output": [1, 2]}}},
            ],
        },
        {"role": "user", "parts": [{"text": "And tomorrow?"}]},
        {"role": "model", "parts": [{"functionCall": {"id": "a", "name": "forecast", "args": {}}}]},
        {
            "role": "user",
            "parts": [{"functionResponse": {"id": "a", "name": "forecast", "response": {"output": "rain"}}}],
        },
    ]


@pytest.mark.parametrize(
    ("content", "response"),
    [
        ("3 degrees", {"output": "3 degrees"}),
        ("", {"output": ""}),
        (None, {"output": ""}),
        ("null", {"output": "null"}),
        ("[]", {"output": []}),
        ("{not json", {"output": "{not json"}),
        ('{"a": null}', {"a": None}),
        ("7", {"output": "7"}),
    ],
)
def test_result_of_a_tool_is_always_an_object(sent: Any, content: Any, response: Any) -> None:
    chat = [
        *CHAT,
        {"role": "assistant", "tool_calls": [call("a")]},
        {"role": "tool", "tool_call_id": "a", "content": content},
    ]
    (part,) = sent(chat)["contents"][-1]["parts"]
    assert part["functionResponse"]["response"] == response


def test_image_in_a_result_and_a_result_without_its_call(sent: Any, make: Any) -> None:
    result = {"role": "tool", "tool_call_id": "a", "content": [{"type": "image_url", "image_url": PNG}]}
    chat = [*CHAT, {"role": "assistant", "tool_calls": [call("a")]}, result]
    (part,) = sent(chat)["contents"][-1]["parts"]
    assert part["functionResponse"]["parts"] == [{"inlineData": {"mimeType": "image/jpeg", "data": "aGk="}}]
    with pytest.raises((ConfigurationError, GenerationError), match="no such call"):
        make().generate_outputs([[*CHAT, result]])


def test_signature_of_a_call_comes_back_unchanged(read: Any, sent: Any) -> None:
    """A chat goes on with what the output has: its ids and its signatures are those of the answer."""
    parts: list[Any] = [
        {
            "functionCall": {"id": "fc-1", "name": "weather", "args": {"city": "Oslo"}},
            "thoughtSignature": "c2ln",
        },
        {"functionCall": {"name": "weather", "args": {"city": "Rome"}}},
    ]
    output = read(answer(*parts))
    (calls,) = output["tool_calls"]
    assert output["finish_reasons"] == ["tool_calls"]
    assert [item["id"] for item in calls] == ["fc-1", "r1-1"]
    results = [{"role": "tool", "tool_call_id": item["id"], "content": "x"} for item in calls]
    body = sent([*CHAT, {"role": "assistant", "content": None, "tool_calls": calls}, *results])
    parts[1]["functionCall"]["id"] = "r1-1"
    assert body["contents"][1] == {"role": "model", "parts": parts}
    assert [part["functionResponse"]["id"] for part in body["contents"][2]["parts"]] == ["fc-1", "r1-1"]


def test_tools_in_both_forms(sent: Any) -> None:
    body = sent(tools=[{"googleSearch": {}}, WEATHER, WEATHER])
    declaration = {
        "name": "weather",
        "description": "The weather in a city.",
        "parametersJsonSchema": WEATHER["function"]["parameters"],  # type: ignore[index]
    }
    assert body["tools"] == [{"functionDeclarations": [declaration, declaration]}, {"googleSearch": {}}]
    assert "tools" not in sent(tools=[])


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ("validated", {"mode": "VALIDATED"}),
        ({"type": "function", "function": {"name": "f"}}, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        ({"mode": "VALIDATED"}, {"mode": "VALIDATED"}),
        ({"functionCallingConfig": {"mode": "ANY"}}, {"mode": "ANY"}),
    ],
)
def test_tool_choice(sent: Any, choice: Any, config: Any) -> None:
    assert sent(tools=[WEATHER], tool_choice=choice)["toolConfig"] == {"functionCallingConfig": config}


def test_logprobs_of_the_chosen_and_the_likeliest_tokens(read: Any) -> None:
    given = answer("ab")
    given["candidates"][0]["logprobsResult"] = {
        "chosenCandidates": [{"token": "a", "tokenId": 1, "logProbability": -0.1}, {"token": "b"}, None],
        "topCandidates": [
            {"candidates": [{"token": "a", "logProbability": -0.1}, {"token": "x", "logProbability": -2}]},
            {"candidates": None},
        ],
    }
    (positions,) = read(given)["logprobs"]
    assert positions == [[{"token": "a", "logprob": -0.1}, {"token": "x", "logprob": -2}], [], []]


def test_counts(read: Any) -> None:
    usage = {
        "promptTokenCount": 10,
        "toolUsePromptTokenCount": 2,
        "cachedContentTokenCount": 4,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 7,
        "totalTokenCount": 22,
    }
    assert read(answer("a", usageMetadata=usage))["statistics"] == {
        "input_tokens": [12],
        "output_tokens": [10],
        "cached_tokens": [4],
        "reasoning_tokens": [7],
    }
    assert read(answer("a", usageMetadata={}))["statistics"] == {}


def test_what_a_search_found_is_kept(read: Any) -> None:
    given = answer("a")
    given["candidates"][0] |= {
        "groundingMetadata": {"webSearchQueries": ["q"]},
        "citationMetadata": {"x": []},
    }
    output = read(given)
    assert output["grounding_metadata"] == [{"webSearchQueries": ["q"]}]
    assert output["citation_metadata"] == [{"x": []}]


@pytest.mark.parametrize(
    ("variables", "key", "path"),
    [
        ({"GEMINI_API_KEY": "a"}, "a", "/v1beta/"),
        ({"GEMINI_API_KEY": "a", "GOOGLE_API_KEY": "b"}, "b", "/v1beta/"),
        ({"GOOGLE_API_KEY": "b", "GOOGLE_GENAI_API_VERSION": "v1"}, "b", "/v1/"),
        ({"GOOGLE_API_KEY": "b", "GOOGLE_GENAI_API_VERSION": "beta"}, "b", "/v1beta/"),
    ],
)
def test_environment_is_read_as_the_sdk_reads_it(
    server: Any, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], key: str, path: str
) -> None:
    for name, value in {"GOOGLE_GEMINI_BASE_URL": f"{server.origin}/gateway/", **variables}.items():
        monkeypatch.setenv(name, value)
    with GeminiLLM(model="models/gemini-3-flash") as llm:
        llm.generate_outputs([CHAT])
    (request,) = server.requests
    assert request.path == f"/gateway{path}models/gemini-3-flash:generateContent"
    assert request.headers["x-goog-api-key"] == key
    assert "authorization" not in request.headers
    assert os.environ.items() >= variables.items()


def test_base_url_may_end_with_the_version_and_a_tuned_model_is_one(server: Any, make: Any) -> None:
    make(base_url=f"{server.origin}/v1alpha", model="tunedModels/a b").generate_outputs([CHAT])
    assert server.requests[0].path == "/v1alpha/tunedModels/a%20b:generateContent"


def test_missing_key_is_told_with_both_variables() -> None:
    with pytest.raises(ConfigurationError) as caught:
        GeminiLLM(model="m").load()
    assert "GOOGLE_API_KEY" in caught.value.hint
    assert "GEMINI_API_KEY" in caught.value.hint


def test_seed_is_raised_for_each_generation(make: Any, server: Any) -> None:
    (output,) = make().generate_outputs([CHAT], num_generations=3, seed=5)
    assert output["generations"] == ["fine"] * 3
    assert sorted(request.body["generationConfig"]["seed"] for request in server.requests) == [5, 6, 7]
    assert not any("candidateCount" in request.body["generationConfig"] for request in server.requests)


def test_unknown_parameter_is_refused_with_near_matches(make: Any) -> None:
    with pytest.raises(Exception, match="safety_setting") as caught:
        make().generate_outputs([CHAT], safety_setting=[])
    assert "safety_settings" in str(caught.value.hint)  # type: ignore[attr-defined]


def test_models_of_all_pages_that_generate(make: Any, server: Any) -> None:
    llm = make()
    page = {
        "models": [
            {
                "name": "models/gemini-3-flash",
                "inputTokenLimit": 1048576,
                "outputTokenLimit": "65536",
                "supportedGenerationMethods": ["generateContent", "countTokens"],
            },
            {"name": "models/embedding-1", "supportedGenerationMethods": ["embedContent"]},
            {"name": "models/new"},
        ],
        "nextPageToken": "t2",
    }
    assert list(llm.models_in(page)) == [
        {"name": "gemini-3-flash", "context_length": 1048576, "max_new_tokens": 65536},
        {"name": "new"},
    ]
    assert llm.models_page_after(page) == {"pageToken": "t2"}
    assert llm.models_page_after({"models": []}) is None
    server.script = [Reply(body=page), Reply(body={"models": [{"name": "models/last"}]})]
    assert [model["name"] for model in llm.list_models()] == ["gemini-3-flash", "new", "last"]
    assert [request.path for request in server.requests] == ["/v1beta/models", "/v1beta/models?pageToken=t2"]


def test_key_stands_in_no_error_and_no_address(make: Any, server: Any) -> None:
    server.always = Reply(
        400, {"error": {"code": 400, "message": f"bad {KEY}", "status": "INVALID_ARGUMENT"}}
    )
    with pytest.raises(GenerationError) as caught:
        make().generate_outputs([CHAT])
    assert KEY not in str(caught.value)
    assert KEY not in server.requests[0].path


def test_list_with_nothing_in_it_is_left_out_of_a_page(make: Any, server: Any) -> None:
    server.script = [Reply(body={"nextPageToken": "t"}), Reply(body={})]
    assert make().list_models() == []
    server.script = [Reply(body={"data": []})]
    with pytest.raises(GenerationError, match="another shape"):
        make().list_models()


@pytest.mark.parametrize("version", ["1", "v1/../x", "v1 ", "https://a.test/v1"])
def test_version_that_is_none_is_refused_when_it_is_loaded(version: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("GOOGLE_GENAI_API_VERSION", version)
    with pytest.raises(ConfigurationError, match="is not a version of the API"):
        GeminiLLM(model="m", api_key=KEY).load()


def test_level_that_the_model_lacks_stops_the_run(make: Any, server: Any) -> None:
    llm = make()
    for model in ("gemini-3-flash", "gemma-3"):
        llm.model = model
        with pytest.raises(UnsupportedError, match="has no reasoning_effort") as caught:
            list(llm.iter_outputs([CHAT] * 3, on_error="yield", reasoning_effort="none"))
        assert caught.value.hint
    assert server.requests == []


@pytest.mark.parametrize("extra", [{}, {"cache_control": {"type": "ephemeral"}}])
def test_text_with_nothing_in_it_is_left_out_whatever_stands_beside_it(sent: Any, extra: Any) -> None:
    parts = [{"type": "text", "text": "", **extra}, {"type": "text", "text": "x"}]
    assert sent([{"role": "user", "content": parts}])["contents"][0]["parts"] == [{"text": "x"}]


@pytest.mark.parametrize(("ending", "kind"), [("webp", "image/webp"), ("HEIC?a=b", "image/heic")])
def test_type_of_an_image_is_known_on_every_machine(
    sent: Any, ending: str, kind: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr("mimetypes._db", mimetypes.MimeTypes(filenames=()))
    url = f"https://a.test/b.{ending}"
    parts = sent([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}])
    assert parts["contents"][0]["parts"] == [{"fileData": {"fileUri": url, "mimeType": kind}}]


def test_result_whose_id_is_no_text_belongs_to_no_call(make: Any) -> None:
    for id in ([1], {"a": 1}, 1):
        with pytest.raises(ConfigurationError, match="no such call"):
            make().request_of([{"role": "tool", "tool_call_id": id, "content": "x"}], 1, {})


def test_call_and_result_without_ids_are_sent_together(sent: Any) -> None:
    chat = [
        *CHAT,
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a": 1}'}},
        {"role": "function", "name": "f", "content": "r"},
    ]
    assert sent(chat)["contents"][1:] == [
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": 1}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "r"}}}]},
    ]
