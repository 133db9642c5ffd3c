"""What people reported of other tools with this API, and its errors: what is sent, and what is right for it."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse import GenerationError

from .conftest import answer

CHAT: Any = [{"role": "user", "content": "hello"}]
CALL = {
    "id": "weather_x1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city":"Oslo"}'},
}
TRIAL = (
    "You are using a Trial key, which is limited to {} API calls / {}. You can continue to use the Trial key"
)


def test_plan_is_apart_from_the_text_and_goes_back_as_a_plan(make: Any, script: Any) -> None:
    called = answer(None, "TOOL_CALL", tool_plan="I will look", tool_calls=[CALL])
    del called["message"]["content"]
    script.reply(called)
    script.reply(answer("21 degrees"))
    llm = make()
    (output,) = llm.generate_outputs([CHAT])
    assert (output["generations"], output["finish_reasons"]) == ([None], ["tool_calls"])
    assert (output["tool_plan"], output["tool_calls"]) == (["I will look"], [[CALL]])
    turn = {"role": "assistant", "tool_calls": output["tool_calls"][0], "tool_plan": output["tool_plan"][0]}
    llm.generate_outputs([[*CHAT, turn, {"role": "tool", "tool_call_id": "weather_x1", "content": "21"}]])
    assert script.requests[1].body["messages"][1] == {
        "role": "assistant", "tool_plan": "I will look", "tool_calls": [CALL],
    }  # fmt: skip


@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": ""}, {"content": "I will look"}])
def test_turn_with_calls_has_no_content(make: Any, script: Any, content: Any) -> None:
    script.reply(answer())
    turn = {"role": "assistant", "tool_calls": [CALL], **content}
    make().generate_outputs([[*CHAT, turn, {"role": "tool", "tool_call_id": "weather_x1", "content": "21"}]])
    sent = script.requests[0].body["messages"][1]
    assert "content" not in sent
    assert sent.get("tool_plan") == (content.get("content") or None)


@pytest.mark.parametrize(
    "billed", [{"input_tokens": 5, "output_tokens": 10}, {"input_tokens": 5.0}, None, "x"]
)
def test_counts_are_whole_and_those_that_are_billed_are_apart(make: Any, script: Any, billed: Any) -> None:
    usage = {"tokens": {"input_tokens": 15.0, "output_tokens": 10.0}, "billed_units": billed}
    script.reply({**answer(), "usage": usage})
    (output,) = make().generate_outputs([CHAT])
    statistics = output["statistics"]
    assert (statistics["input_tokens"], statistics["output_tokens"]) == ([15], [10])
    assert all(type(count) is int for counts in statistics.values() for count in counts)
    assert statistics.get("billed_input_tokens") == ([5] if isinstance(billed, dict) else None)


@pytest.mark.parametrize(
    ("status", "body", "kind", "stops", "said"),
    [
        (401, {"id": "r", "message": "invalid api token"}, "authentication", True, "check the API key"),
        (402, {"message": "payment required"}, "rate_limit", True, "billing"),
        (
            404,
            {"message": "model 'command-z' not found, make sure the correct model ID was used"},
            "invalid_request", True, "check the model's name",
        ),
        (
            422,
            {"message": "unknown field: parameter 'strict' is not a valid field. For proper usage, see the docs"},
            "invalid_request", False, "parameter 'strict'",
        ),
        (
            422,
            {"id": "r", "message": "No valid response generated.", "error_type": "NO_VALID_RESPONSE_GENERATED"},
            "invalid_request", False, "No valid response generated",
        ),
        (
            400,
            {"message": "too many tokens: total number of tokens in the prompt cannot exceed 4081"},
            "context_length", False, "shorten the prompt",
        ),
        (498, {"message": "blocked by usage policy"}, "content_filter", False, "change the prompt"),
        (429, {"message": TRIAL.format(1000, "month")}, "rate_limit", True, "1000 API calls"),
        (400, {"data": "odd"}, "invalid_request", False, "status 400"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("at_once")
def test_errors_that_are_not_retried(
    make: Any, script: Any, status: int, body: Any, kind: str, stops: bool, said: str
) -> None:
    script.reply(body, status, headers={"x-debug-trace-id": "trace-7"})
    script.reply(answer())  # one that is retried ends at once, and not as an error
    with pytest.raises(GenerationError, match=said) as caught:
        make().generate_outputs([CHAT])
    assert (caught.value.kind, caught.value.stops_run, caught.value.attempts) == (kind, stops, 1)
    assert caught.value.request_id == "trace-7"
    assert [asked.path for asked in script.requests].count("/v2/chat") == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (429, {"message": TRIAL.format(20, "minute")}),
        (429, {"message": "Please wait and try again later"}),
        (499, {"message": "request cancelled"}),
        (500, {"message": "internal server error"}),
        (503, {"message": "service unavailable"}),
        (504, b"upstream request timeout"),
        (200, answer("half", "ERROR")),
        (200, answer(None, "TIMEOUT")),
        (200, {"message": "internal server error, please try again later", "status": "error"}),
    ],
)
@pytest.mark.usefixtures("at_once")
def test_errors_that_are_retried(make: Any, script: Any, status: int, body: Any) -> None:
    script.reply(body, status)
    script.reply(answer())
    (output,) = make().generate_outputs([CHAT])
    assert (output["generations"], len(script.requests)) == (["fine"], 2)
