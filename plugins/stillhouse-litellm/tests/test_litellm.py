"""Requests, answers, failures, and what must stay as it was."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import litellm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse import ConfigurationError, GenerationError, UnsupportedError
from stillhouse.outputs import check_output
from stillhouse.testing import Reply, ScriptedServer
from stillhouse_litellm import LiteLLM
from stillhouse_litellm.answers import litellm_output
from stillhouse_litellm.failures import failure_of_exception

KEY = "sk-0123456789abcdef0123"
CHAT: Any = [{"role": "user", "content": "Name a river."}]
Make = Callable[..., LiteLLM]


def answer(text: str | None = "fine", finish: Any = "stop", **message: Any) -> dict[str, Any]:
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text, **message},
    }
    usage: Any = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }


def failed(llm: LiteLLM, *inputs: Any, **arguments: Any) -> GenerationError:
    with pytest.raises(GenerationError) as raised:
        llm.generate_outputs(list(inputs) or [CHAT], **arguments)
    return raised.value


# Requests


def test_parameters_are_sent_under_the_providers_names(make: Make, server: ScriptedServer) -> None:
    with make(default_headers={"x-team": "river"}) as llm:
        llm.generate_outputs(
            [CHAT], num_generations=2, max_new_tokens=9, temperature=0.5, top_p=0.9, stop=["x"], seed=4,
            logprobs=True, top_logprobs=2, extra_body={"top_k": 7}, reasoning_effort=None,
        )  # fmt: skip
    first, second = server.requests  # one generation came, and the other is asked for again
    assert first.body == {
        "model": "m", "messages": CHAT, "n": 2, "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stop": ["x"],
        "seed": 4, "logprobs": True, "top_logprobs": 2, "top_k": 7,
    }  # fmt: skip
    assert (second.body["seed"], "n" in second.body) == (5, False)
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert first.headers["x-team"] == "river"


def test_one_generation_a_request_where_the_provider_makes_one(server: ScriptedServer) -> None:
    message = {
        "id": "m", "type": "message", "role": "assistant", "model": "c", "stop_reason": "end_turn",
        "content": [{"type": "thinking", "thinking": "Hm.", "signature": "s"}, {"type": "text", "text": "Ucayali"}],
        "usage": {
            "input_tokens": 5, "output_tokens": 3, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 2,
        },
    }  # fmt: skip
    server.always = Reply(body=message)
    llm = LiteLLM(model="anthropic/claude-sonnet-4-5", base_url=server.origin, api_key=KEY)
    with llm:
        (output,) = llm.generate_outputs([CHAT], num_generations=2, max_new_tokens=20)
        with pytest.raises(UnsupportedError, match="does not support the parameter seed"):
            llm.generate_outputs([CHAT], seed=1)
    assert len(server.requests) == 2
    assert output["generations"] == ["Ucayali"] * 2
    assert output["reasoning"] == ["Hm."] * 2
    assert output["statistics"]["input_tokens"] == [11, 11]
    assert output["statistics"]["cached_tokens"] == [4, 4]
    assert output["statistics"]["cache_creation_tokens"] == [2, 2]
    assert output["thinking_blocks"][0][0]["signature"] == "s"  # type: ignore[typeddict-item]


def test_a_form_is_demanded_checked_and_asked_for_again(make: Make, server: ScriptedServer) -> None:
    form = {"format": "json", "schema": {"type": "object", "properties": {"river": {"type": "string"}}}}
    server.script = [Reply(body=answer("no")), Reply(body=answer('{"river": "Ucayali"}'))]
    with make(structured_output=form) as llm:
        (output,) = llm.generate_outputs([CHAT])
    assert json.loads(output["generations"][0] or "") == {"river": "Ucayali"}
    assert output["statistics"]["input_tokens"] == [10]
    wanted = server.requests[0].body["response_format"]["json_schema"]
    assert (wanted["strict"], wanted["schema"]["additionalProperties"]) == (True, False)
    assert server.requests[1].body["messages"][-2]["content"] == "no"


def test_what_cannot_be_asked_for_is_refused_before_anything_is_sent(
    make: Make, server: ScriptedServer
) -> None:
    with make() as llm:
        for arguments in ({"extra_body": {"num_retries": 3}}, {"extra_body": {"drop_params": True}}):
            with pytest.raises(ConfigurationError, match="extra_body cannot set"):
                llm.generate_outputs([CHAT], **arguments)
        with pytest.raises(UnsupportedError, match="regex"):
            llm.generate_outputs([(CHAT, {"format": "regex", "schema": "a"})])
        with pytest.raises(UnsupportedError):
            llm.generate_outputs(
                [(CHAT, {"format": "json", "schema": {"type": "object", "minProperties": 1}})]
            )
    with pytest.raises(ConfigurationError, match="does not know the provider of the model 'nobodys-model'"):
        LiteLLM(model="nobodys-model").load()
    assert server.requests == []


# Answers


@pytest.mark.parametrize(
    ("finish", "told"),
    [
        ("stop", "stop"), ("length", "length"), ("end_turn", "stop"), ("max_tokens", "length"),
        ("MALFORMED_FUNCTION_CALL", "malformed_function_call"), ("FINISH_REASON_FROM_2027", "finish_reason_from_2027"),
        ("refusal", "refusal"), ("SAFETY", "content_filter"),
    ],
)  # fmt: skip
def test_finish_reasons_hide_no_failure(make: Make, server: ScriptedServer, finish: str, told: str) -> None:
    server.always = Reply(body=answer(None, finish))
    with make() as llm:
        (output,) = llm.generate_outputs([CHAT])
    assert output["generations"] == [None]
    assert output["finish_reasons"] == [told]


def test_an_answer_that_says_it_failed_is_tried_again(make: Make, server: ScriptedServer) -> None:
    server.script = [
        Reply(body=answer("half", "error")),
        Reply(body={"error": {"message": "busy", "code": 529}}),
    ]
    with make() as llm:
        (output,) = llm.generate_outputs([CHAT])
    assert output["generations"] == ["fine"]
    assert len(server.requests) == 3


def test_unknown_counts_are_left_out(make: Make, server: ScriptedServer) -> None:
    server.always = Reply(body={**answer(), "usage": None})
    with make() as llm:
        (output,) = llm.generate_outputs([CHAT])
    assert output["statistics"] == {}


@pytest.mark.parametrize("body", [b"hello", {"id": "1"}, [1], {"id": "1", "choices": []}])
def test_an_answer_that_cannot_be_read_is_paid_for_once(
    make: Make, server: ScriptedServer, body: Any
) -> None:
    server.always = Reply(body=body)
    with make() as llm:
        error = failed(llm)
    assert (error.kind, len(server.requests), error.stops_run) == ("server", 1, False)


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
WHOLE = answer(
    "fine", reasoning_content="hm", tool_calls=[{"id": "1", "function": {"name": "f", "arguments": "{}"}}]
)
WHOLE["choices"][0]["provider_specific_fields"] = {"native_finish_reason": "stop"}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


@settings(max_examples=300, derandomize=True, deadline=None)
@given(place=st.sampled_from([place for place in places(WHOLE) if place]), value=ODD)
def test_no_type_in_an_answer_ends_more_than_its_row(place: tuple[Any, ...], value: Any) -> None:
    mutated = copy.deepcopy(WHOLE)
    inner: Any = mutated
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with contextlib.suppress(GenerationError):
        check_output(litellm_output(mutated), None, "LiteLLM")


# Failures


def refused(status: int, message: str, **more: Any) -> Reply:
    return Reply(
        status, {"error": {"message": message, "type": None, "param": None, "code": str(status), **more}}
    )


@pytest.mark.parametrize(
    ("reply", "kind", "attempts", "stops"),
    [
        (refused(400, "no"), "invalid_request", 1, False),
        (refused(401, "Incorrect API key provided"), "authentication", 1, True),
        (refused(402, "Insufficient Balance"), "rate_limit", 1, True),
        (refused(403, "no entry"), "authentication", 1, True),
        (refused(404, "The model `m` does not exist"), "invalid_request", 1, True),
        (refused(400, "This model's maximum context length is 10 tokens"), "context_length", 1, False),
        (
            refused(400, "litellm.BadRequestError: litellm.ContextWindowExceededError: prompt is too long"),
            "context_length", 1, False,
        ),
        (refused(400, "litellm.BadRequestError: ExceededBudget: over budget"), "rate_limit", 1, True),
        (refused(400, "flagged", code="content_policy_violation"), "content_filter", 1, False),
        (refused(429, "no quota", code="insufficient_quota"), "rate_limit", 1, True),
        (refused(422, "no"), "invalid_request", 1, False),
        (refused(501, "no"), "server", 2, False),
        (Reply(502, b"<html><body>Bad Gateway</body></html>", {"content-type": "text/html"}), "server", 2, False),
        (Reply(fault="drop"), "connection", 2, False),
        (Reply(fault="truncate"), "connection", 2, False),
        (Reply(body=b""), "server", 2, False),
    ],
)  # fmt: skip
def test_errors_mean_what_they_mean_without_litellm(
    make: Make, server: ScriptedServer, reply: Reply, kind: str, attempts: int, stops: bool
) -> None:
    server.script = [reply]
    with make() as llm:
        if attempts > 1:
            assert llm.generate_outputs([CHAT])[0]["generations"] == ["fine"]
            llm.retry_timeout = 0.0
        else:
            error = failed(llm)
            assert (error.kind, error.stops_run) == (kind, stops), error
            assert "litellm." not in error.message.lower() or "litellm." in str(reply.body)
    assert len(server.requests) == attempts
    if attempts > 1:
        server.reset()
        server.script = [reply]
        with make(retry_timeout=0) as llm:
            assert failed(llm).kind == kind


def test_retry_after_is_obeyed_by_all(make: Make, server: ScriptedServer) -> None:
    server.script = [Reply(429, {"error": {"message": "slow down"}}, {"retry-after": "1"})]
    with make(max_concurrency=1) as llm:
        llm.generate_outputs([CHAT, CHAT])
    first, second, _ = server.requests
    assert second.at - first.at >= 0.95


@pytest.mark.parametrize(
    ("model", "kind", "hint"),
    [
        ("openai/m", "authentication", "set the API key"),
        ("azure/m", "authentication", "set the API key"),
        ("gemini/m", "authentication", "set the API key"),
        ("fireworks_ai/m", "authentication", "set the API key"),
        ("snowflake/m", "authentication", "set the API key"),
        ("azure_ai/m", "invalid_request", "such as base_url"),
    ],
)
def test_a_key_or_an_address_that_nobody_set_stops_the_run(
    monkeypatch: pytest.MonkeyPatch, model: str, kind: str, hint: str
) -> None:
    for name in list(os.environ):
        if name.startswith(("AZURE_", "GEMINI_", "GOOGLE_", "FIREWORKS_", "SNOWFLAKE_")):
            monkeypatch.delenv(name)
    with LiteLLM(model=model) as llm:
        error = failed(llm)
    assert (error.kind, error.stops_run, error.attempts) == (kind, True, 1)
    assert hint in (error.hint or "")


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Unable to locate credentials", "authentication"),
        ("The api_key client option must be set either by passing api_key to the client", "authentication"),
        ("X_API_KEY is required. Set it in the environment.", "authentication"),
        ("Your default credentials were not found.", "authentication"),
        ("No module named 'google'", "invalid_request"),
        ("Missing required parameters: oci_user, oci_region", "invalid_request"),
    ],
)
def test_what_is_missing_here_stops_the_run_whatever_its_class(message: str, kind: str) -> None:
    for cls in (litellm.BadRequestError, litellm.APIConnectionError, litellm.InternalServerError):
        failure = failure_of_exception(cls(message=message, model="m", llm_provider="p"))
        assert (failure.kind, failure.stops_run, failure.retried) == (kind, True, False)


@pytest.mark.parametrize(
    "message", ["The token is missing a quote.", "max_tokens is required to be positive"]
)
def test_words_about_tokens_are_not_about_keys(message: str) -> None:
    error = litellm.BadRequestError(message=message, model="m", llm_provider="p")
    assert not failure_of_exception(error).stops_run


@pytest.mark.parametrize("status", [429, 500])
@pytest.mark.parametrize("model", ["openai/m", "azure/m"])
def test_neither_litellm_nor_the_sdk_below_it_retries(
    make: Make, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, model: str, status: int
) -> None:
    monkeypatch.setattr(litellm, "num_retries", 2)  # as a program may set it for its own calls
    server.always = refused(status, "Overloaded.")
    with make(model=model, api_version="2024-10-21", retry_timeout=0) as llm:
        error = failed(llm)
        request = llm._request(CHAT, 1, {}, None)
    assert (error.attempts, len(server.requests)) == (1, 1)
    # Either one is enough for this version of LiteLLM; others take them as two different things.
    assert (request["num_retries"], request["max_retries"]) == (0, 0)


@pytest.mark.parametrize("model", ["openai/m", "groq/m", "anthropic/m", "gemini/m", "cohere_chat/m"])
def test_a_server_that_is_not_there_stops_the_run(make: Make, server: ScriptedServer, model: str) -> None:
    server.close()
    with make(model=model, retry_timeout=0) as llm:
        error = failed(llm)
    assert (error.kind, error.stops_run) == ("connection", True)


@pytest.mark.parametrize("model", ["openai/m", "groq/m"])
def test_a_connection_that_breaks_is_that_of_its_row(make: Make, server: ScriptedServer, model: str) -> None:
    server.always = Reply(fault="drop")
    with make(model=model, retry_timeout=0) as llm:
        error = failed(llm)
    assert (error.kind, error.stops_run) == ("connection", False)


def test_a_stalled_answer_is_a_timeout_and_the_call_ends(make: Make, server: ScriptedServer) -> None:
    server.script = [Reply(fault="stall")]
    with make(timeout=0.3) as llm:
        assert llm.generate_outputs([CHAT])[0]["generations"] == ["fine"]
        assert server.hung_up.wait(10)


def test_an_unsupported_parameter_that_only_litellm_finds_stops_the_run() -> None:
    error = litellm.UnsupportedParamsError(
        message="p does not support parameters: ['seed'], for model=m. To drop these, set `litellm.drop_params=True`",
        model="m", llm_provider="p",
    )  # fmt: skip
    failure = failure_of_exception(error)
    assert (failure.kind, failure.stops_run, failure.retried) == ("invalid_request", True, False)
    assert failure.message.startswith("p does not support parameters")
    assert "drop_params" not in failure.message


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 502, 503])
@pytest.mark.parametrize("where", ["field", "environment"])
def test_a_key_is_in_no_error(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, status: int, where: str, capfd: Any
) -> None:
    text = (
        f"<html>Authorization: Bearer {KEY}</html>"
        if status >= 502
        else json.dumps({"error": {"message": KEY}})
    )
    server.always = Reply(status, text.encode(), {"content-type": "text/html"})
    if where == "environment":
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
    llm = LiteLLM(
        model="openai/m",
        base_url=f"{server.origin}/v1",
        api_key=KEY if where == "field" else None,
        retry_timeout=0,
    )
    with llm:
        error = failed(llm)
    assert error.__cause__ is None or isinstance(error.__cause__, GenerationError)
    assert KEY[:12] not in "".join(traceback.format_exception(error)) + repr(llm) + json.dumps(llm.dump())
    assert KEY[:12] not in "".join(capfd.readouterr())


# What stays as it was


def test_nothing_global_changes(make: Make, server: ScriptedServer) -> None:
    def state() -> dict[str, Any]:
        plain = (str, int, float, bool, list, dict, type(None))
        return {
            name: copy.deepcopy(value)
            if isinstance(value, (list, dict)) and "callback" in name
            else repr(value)
            for name, value in vars(litellm).items()
            if isinstance(value, plain) and not name.startswith("__") and name != "model_cost"
        }

    with make() as llm:  # LiteLLM imports parts of itself when they are first used
        llm.generate_outputs([CHAT])
    settings_before, environment_before = state(), dict(os.environ)
    with make() as llm:
        llm.generate_outputs([CHAT], num_generations=2)
        server.always = refused(500, "no")
        llm.retry_timeout = 0.0
    assert {name: value for name, value in state().items() if settings_before.get(name) != value} == {}
    assert dict(os.environ) == environment_before


def test_inputs_and_arguments_are_not_mutated(server: ScriptedServer) -> None:
    call = {"id": "1", "type": "function", "index": 0, "function": {"name": "f", "arguments": "{}"}}
    system = {"role": "system", "content": "Be brief.", "cache_control": {"type": "ephemeral"}}
    chat: Any = [system, *CHAT, {"role": "assistant", "tool_calls": [call]}]
    chat.append({"role": "tool", "tool_call_id": "1", "content": "2"})
    schema = {"type": "object", "properties": {"x": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    before = copy.deepcopy((chat, tools))
    message = {"id": "m", "type": "message", "role": "assistant", "model": "c", "stop_reason": "end_turn"}
    message |= {"content": [{"type": "text", "text": "2"}], "usage": {"input_tokens": 5, "output_tokens": 3}}
    server.always = Reply(body=message)
    with LiteLLM(model="anthropic/claude-sonnet-4-5", base_url=server.origin, api_key=KEY) as llm:
        llm.generate_outputs([chat], tools=tools)
    assert (chat, tools) == before


def test_unloading_closes_its_own_clients_alone(make: Make) -> None:
    first, second = make(), make()
    with second:
        second.generate_outputs([CHAT])
        with first:
            first.generate_outputs([CHAT])
            kept = dict(litellm.in_memory_llm_clients_cache.cache_dict)
        gone = [
            client
            for key, client in kept.items()
            if key not in litellm.in_memory_llm_clients_cache.cache_dict
        ]
        assert gone
        assert all(getattr(client, "is_closed", lambda: True)() for client in gone)
        second.generate_outputs([CHAT])
    with first:
        first.generate_outputs([CHAT])
    assert pickle.loads(pickle.dumps(first)) == first


def test_cancelling_ends_the_request(make: Make, server: ScriptedServer) -> None:
    server.script = [Reply(fault="stall")]

    async def cancelled(llm: LiteLLM) -> None:
        task = asyncio.create_task(llm.agenerate(CHAT))
        while not server.requests:  # noqa: ASYNC110  -- they arrive in threads of the server
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with make(max_concurrency=1) as llm:
        llm.run_on_loop(cancelled(llm))
        assert server.hung_up.wait(10)
        assert llm.generate_outputs([CHAT])[0]["generations"] == ["fine"]
