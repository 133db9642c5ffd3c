"""An answer that violates its form is asked for again, and everything that was paid for is counted."""

from __future__ import annotations

from typing import Any

import pytest

from stillhouse import ConfigurationError, GenerationError
from stillhouse_openai import ClientvLLM, GroqLLM, OpenAILLM

CHAT: Any = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "maximum": 9}}, "required": ["a"]}
FORM = {"format": "json", "schema": SCHEMA}


def failed(llm: OpenAILLM, **arguments: Any) -> GenerationError:
    ((_, result),) = llm.iter_outputs([CHAT], on_error="yield", **arguments)
    assert isinstance(result, GenerationError)
    return result


def test_retry_after_an_invalid_answer_includes_the_problem(make: Any, server: Any) -> None:
    server.script = [server.chat('{"a": 10}'), server.chat('{"a": 3}')]
    chat = [dict(item) for item in CHAT]
    with make(structured_output=FORM) as llm:
        (output,) = llm.generate_outputs([chat], seed=7)
    first, second = server.bodies
    assert first["messages"] == chat == CHAT
    assert second["messages"][:2] == [*CHAT, {"role": "assistant", "content": '{"a": 10}'}]
    assert second["messages"][2]["role"] == "user"
    assert "10 is greater than the maximum of 9 at $.a" in second["messages"][2]["content"]
    assert [body["seed"] for body in server.bodies] == [7, 8]
    assert second["response_format"] == first["response_format"]
    assert output["generations"] == ['{"a": 3}']
    assert output["statistics"] == {"input_tokens": [10], "output_tokens": [6]}


def test_only_invalid_generations_are_requested_again(make: Any, server: Any) -> None:
    usage = {
        "prompt_tokens": 5, "completion_tokens": 30, "prompt_tokens_details": {"cached_tokens": 4},
    }  # fmt: skip
    server.script = [
        server.chat('{"a": 1}', "no", '{"a": 3}', "never", usage=usage),
        server.chat('{"a": 2}'),
        server.chat('{"a": 4}', finish="other"),
    ]
    with make(structured_output=FORM) as llm:
        (output,) = llm.generate_outputs([CHAT], num_generations=4)
    assert [body.get("n", 1) for body in server.bodies] == [4, 1, 1]
    assert [body["messages"][1:2] for body in server.bodies[1:]] == [
        [{"role": "assistant", "content": "no"}],
        [{"role": "assistant", "content": "never"}],
    ]
    assert output["generations"] == ['{"a": 1}', '{"a": 3}', '{"a": 2}', '{"a": 4}']
    assert output["finish_reasons"] == ["stop", "stop", "stop", "other"]
    assert output["statistics"] == {"input_tokens": [15], "output_tokens": [36], "cached_tokens": [4]}


@pytest.mark.parametrize(("retries", "requests"), [(0, 1), (None, 2), (2, 3)])
def test_exhausted_retries_end_with_an_error_that_includes_the_usage(
    make: Any, server: Any, retries: int | None, requests: int
) -> None:
    server.script = [server.chat("no") for _ in range(5)]
    with make(structured_output={**FORM, "max_retries": retries}) as llm:
        error = failed(llm)
    assert (error.kind, error.attempts, len(server.bodies)) == ("schema", requests, requests)
    (output,) = error.outputs
    assert output is not None
    assert output["generations"] == []
    assert output["statistics"] == {"input_tokens": [5 * requests], "output_tokens": [3 * requests]}


def test_truncated_answer_is_not_requested_again(make: Any, server: Any) -> None:
    server.script = [server.chat('{"a": 1}', '{"a": ', finish="length")]
    with make(structured_output=FORM) as llm:
        error = failed(llm, num_generations=2)
    assert (error.kind, error.attempts, len(server.bodies)) == ("truncated", 1, 1)
    (output,) = error.outputs
    assert output is not None
    assert output["generations"] == ['{"a": 1}']
    assert output["statistics"] == {"input_tokens": [5], "output_tokens": [3]}


def test_failed_retry_keeps_the_valid_generations(make: Any, server: Any) -> None:
    server.script = [server.chat('{"a": 1}', "no"), (400, {"error": {"message": "no"}})]
    with make(structured_output=FORM) as llm:
        error = failed(llm, num_generations=2)
    assert (error.kind, error.attempts) == ("invalid_request", 2)
    (output,) = error.outputs
    assert output is not None
    assert output["generations"] == ['{"a": 1}']


def test_generations_that_are_merged_fail_together_and_lose_no_token(server: Any) -> None:
    server.script = [server.chat("no"), server.chat("no"), server.chat('{"a": 1}'), server.chat('{"a": 2}')]
    with GroqLLM(
        model="m", base_url=f"{server.origin}/v1", api_key="k", structured_output=FORM, max_concurrency=1
    ) as llm:
        ((_, error),) = llm.iter_outputs([CHAT], 3, on_error="yield")
    assert isinstance(error, GenerationError)
    (output,) = error.outputs
    assert output is not None
    assert output["generations"] == ['{"a": 1}', '{"a": 2}']
    assert sum(item or 0 for item in output["statistics"]["output_tokens"]) == 12


def test_raw_prompt_is_retried_with_another_seed(server: Any) -> None:
    server.script = [
        {"choices": [{"index": 0, "text": text, "finish_reason": "stop"}]} for text in ("maybe", "yes")
    ]
    form = {"format": "choice", "schema": ["yes", "no"]}
    with ClientvLLM(model="m", base_url=server.origin, structured_output=form) as llm:
        (output,) = llm.generate_outputs(["Is it?"], seed=1)
    assert output["generations"] == ["yes"]
    assert [body["prompt"] for body in server.bodies] == ["Is it?"] * 2
    assert [body["seed"] for body in server.bodies] == [1, 2]


@pytest.mark.parametrize("retries", [-1, True, "2", 1.5])
def test_invalid_max_retries_is_refused(retries: Any) -> None:
    with pytest.raises(ValueError, match="max_retries"):
        OpenAILLM(model="m", structured_output={**FORM, "max_retries": retries})
    with pytest.raises(ConfigurationError, match="max_retries"):
        OpenAILLM.form_of({**FORM, "max_retries": retries})
