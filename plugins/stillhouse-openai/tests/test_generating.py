"""Requests and outputs of `generate_outputs`, with a scripted server."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse import GenerationError, UnsupportedError

CHAT = [{"role": "user", "content": "hello"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 9}}}
FORM = {"format": "json", "schema": SCHEMA}


def test_every_parameter_has_its_name_on_the_wire(make: Any, server: Any) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    with make(generation_kwargs={"temperature": 0.5}) as llm:
        llm.generate_outputs(
            [CHAT], num_generations=1, max_new_tokens=7, top_p=0.9, stop=["x"], seed=3, frequency_penalty=0.1,
            presence_penalty=0.2, top_logprobs=2, logit_bias={"5": 1}, tools=tools, tool_choice="auto",
            response_format={"type": "json_object"}, reasoning_effort="low", extra_body={"store": False, "seed": 4},
        )  # fmt: skip
    assert server.paths == ["/v1/chat/completions"]
    assert server.bodies[0] == {
        "model": "m", "messages": CHAT, "max_completion_tokens": 7, "temperature": 0.5, "top_p": 0.9, "stop": ["x"],
        "seed": 4, "frequency_penalty": 0.1, "presence_penalty": 0.2, "logprobs": True, "top_logprobs": 2,
        "logit_bias": {"5": 1}, "tools": tools, "tool_choice": "auto", "response_format": {"type": "json_object"},
        "reasoning_effort": "low", "store": False,
    }  # fmt: skip


def test_request_body_has_no_unset_parameters(make: Any, server: Any) -> None:
    with make(max_tokens_name="max_tokens") as llm:
        llm.generate_outputs([CHAT])
        llm.generate_outputs([CHAT], max_new_tokens=2)
    assert server.bodies[0] == {"model": "m", "messages": CHAT}
    assert server.bodies[1] == {"model": "m", "messages": CHAT, "max_tokens": 2}


def test_organization_and_project_are_headers(
    make: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-env")
    with make(organization="org-1") as llm:
        llm.generate_outputs([CHAT])
    assert server.headers[0]["openai-organization"] == "org-1"
    assert server.headers[0]["openai-project"] == "proj-env"
    assert server.headers[0]["authorization"] == "Bearer key"


def test_output_has_every_part_of_the_answer(make: Any, server: Any) -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    usage = {
        "prompt_tokens": 50, "completion_tokens": 30, "total_tokens": 80,
        "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 20},
    }  # fmt: skip
    answer = server.chat(
        None, "text", finish="tool_calls", usage=usage, tool_calls=calls, reasoning_content="hm"
    )
    answer["choices"].reverse()  # the index says which is which
    answer["choices"][0]["logprobs"] = {
        "content": [
            {"token": "b", "logprob": -2.0, "top_logprobs": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -2.0}]}
        ]
    }  # fmt: skip
    server.script = [answer]
    with make() as llm:
        output = llm.generate_outputs([CHAT], num_generations=2)[0]
    assert output == {
        "generations": [None, "text"],
        "statistics": {
            "input_tokens": [50],
            "output_tokens": [30],
            "cached_tokens": [0],
            "reasoning_tokens": [20],
        },
        "finish_reasons": ["tool_calls", "tool_calls"],
        "reasoning": ["hm", "hm"],
        "tool_calls": [calls, calls],
        "logprobs": [None, [[{"token": "b", "logprob": -2.0}, {"token": "a", "logprob": -0.5}]]],
    }


def test_refusal_is_a_none_generation_with_its_text(make: Any, server: Any) -> None:
    server.script = [server.chat(None, refusal="I will not"), server.chat("", finish="content_filter")]
    with make() as llm:
        refused, filtered = llm.generate_outputs([CHAT])[0], llm.generate_outputs([CHAT])[0]
    assert (refused["generations"], refused["finish_reasons"], refused["refusals"]) == (
        [None],
        ["refusal"],
        ["I will not"],
    )
    assert (filtered["generations"], filtered["finish_reasons"]) == ([None], ["content_filter"])


def test_only_missing_generations_are_requested_again(make: Any, server: Any) -> None:
    server.script = [server.chat("a", "b"), server.chat("c"), server.chat("d", "e", "f")]
    with make() as llm:
        output = llm.generate_outputs([CHAT], num_generations=5, seed=100)[0]
    assert output["generations"] == ["a", "b", "c", "d", "e"]
    assert [body.get("n") for body in server.bodies] == [5, 3, 2]
    assert [body["seed"] for body in server.bodies] == [100, 102, 103]
    assert output["finish_reasons"] == ["stop"] * 5


def test_failed_request_keeps_the_earlier_generations(make: Any, server: Any) -> None:
    server.script = [server.chat("a"), (400, {"error": {"message": "no more"}})]
    with make() as llm, pytest.raises(GenerationError, match="no more") as caught:
        llm.run_on_loop(llm.agenerate(CHAT, 2))
    assert caught.value.outputs[0]["generations"] == ["a"]


def test_a_raw_prompt_goes_to_completions(make: Any, server: Any) -> None:
    server.script = [
        {
            "choices": [
                {
                    "index": 0, "text": " upon", "finish_reason": "length",
                    "logprobs": {"tokens": [" upon"], "token_logprobs": [-0.1], "top_logprobs": [{" upon": -0.1, " a": -3.0}]},
                }
            ]
        }
    ]  # fmt: skip
    with make() as llm:
        output = llm.generate_outputs(["Once"], max_new_tokens=1, logprobs=True, top_logprobs=2)[0]
        for name, value in {"tools": [], "tool_choice": "auto", "reasoning_effort": "low"}.items():
            with pytest.raises(UnsupportedError, match=f"{name} does not apply to raw prompts"):
                llm.run_on_loop(llm.agenerate("Once", **{name: value}))
    assert server.paths == ["/v1/completions"]
    assert server.bodies == [{"model": "m", "prompt": "Once", "max_tokens": 1, "logprobs": 2}]
    assert output == {
        "generations": [" upon"],
        "statistics": {},
        "finish_reasons": ["length"],
        "logprobs": [[[{"token": " upon", "logprob": -0.1}, {"token": " a", "logprob": -3.0}]]],
    }


def test_valid_structured_answer_is_accepted(make: Any, server: Any) -> None:
    server.script = [server.chat('{"a": 3}'), server.chat('{"b": 3}'), server.chat(None, refusal="no")]
    other = {"format": "json", "schema": {"type": "object", "properties": {"b": {"type": "integer"}}}}
    with make(structured_output=FORM) as llm:
        assert llm.generate_outputs([CHAT])[0]["generations"] == ['{"a": 3}']
        assert llm.generate_outputs([(CHAT, other)])[0]["generations"] == ['{"b": 3}']
        assert llm.generate_outputs([(CHAT, None)])[0]["generations"] == [None]
        with pytest.raises(UnsupportedError, match="raw prompts"):
            llm.generate_outputs(["raw"])
    wanted = [body["response_format"]["json_schema"] for body in server.bodies]
    assert [item["strict"] for item in wanted] == [True] * 3
    assert [list(item["schema"]["properties"]) for item in wanted] == [["a"], ["b"], ["a"]]
    assert wanted[0]["schema"]["additionalProperties"] is False


@pytest.mark.parametrize(
    ("content", "finish", "kind", "message"),
    [
        ('{"a": ', "length", "truncated", "cut off"),
        (None, "length", "truncated", "cut off"),
        ('{"a": ', "stop", "schema", "not JSON"),
        ("Sure! Here it is", "stop", "schema", "not JSON"),
        ('{"a": 10}', "stop", "schema", "10 is greater than the maximum of 9 at $.a"),
        ("[]", "length", "truncated", "cut off"),
    ],
)
def test_invalid_structured_answer_is_an_error(
    make: Any, server: Any, content: str | None, finish: str, kind: str, message: str
) -> None:
    server.script = [server.chat(content, finish=finish)]
    with (
        make(structured_output={**FORM, "max_retries": 0}) as llm,
        pytest.raises(GenerationError) as caught,
    ):
        llm.generate_outputs([CHAT])
    assert caught.value.kind == kind
    assert message in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"choices": []}, "no choices"),
        ([], "no choices"),
        ({"error": {"message": "model is loading"}}, "model is loading"),
        ({"choices": [{"message": "text"}]}, "another shape"),
        ({"choices": [{"message": {"content": 3}}]}, "another shape"),
        ({"choices": [{}]}, "another shape"),
    ],
)
def test_malformed_response_is_an_error(make: Any, server: Any, answer: Any, message: str) -> None:
    server.script = [answer]
    with make(retry_timeout=0) as llm, pytest.raises(GenerationError, match=message) as caught:
        llm.generate_outputs([CHAT])
    assert caught.value.kind == "server"
    assert len(server.bodies) == 1


def test_text_that_is_no_unicode_is_refused_before_it_is_sent(make: Any, server: Any) -> None:
    with make() as llm, pytest.raises(GenerationError, match="cannot be written as JSON") as caught:
        llm.generate_outputs([[{"role": "user", "content": "\ud800"}]])
    assert (caught.value.kind, caught.value.attempts, server.bodies) == ("invalid_request", 0, [])


@pytest.mark.parametrize(
    "garbage", [b"", b'{"choices": [{"mess', (502, b"<html>Bad Gateway</html>"), (429, b"")]
)
def test_unparsable_response_is_retried(
    make: Any, server: Any, garbage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse.http.transport.session.backoff_seconds", lambda attempt: 0.0)
    server.script = [garbage, garbage]
    with make() as llm:
        assert llm.generate_outputs([CHAT])[0]["generations"] == ["fine"]
    assert len(server.bodies) == 3


@pytest.mark.parametrize("reason", [["stop"], {"a": 1}, 5, True, None])
def test_finish_reason_of_another_type_costs_nothing_else(make: Any, server: Any, reason: Any) -> None:
    server.script = [{"choices": [{"message": {"content": "fine"}, "finish_reason": reason}]}]
    with make() as llm:
        (output,) = llm.generate_outputs([CHAT])
    assert output["generations"] == ["fine"]
