"""Answers and errors of the providers with anything in any place, and servers that fail on purpose."""

from __future__ import annotations

import copy
import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse import GenerationError
from stillhouse.errors import ERROR_KINDS
from stillhouse.outputs import check_output
from stillhouse_openai import CompatibleLLM, DeepSeekLLM, OpenRouterLLM
from stillhouse_openai.providers import XAILLM, DashScopeLLM, MiniMaxLLM, PerplexityLLM, ZaiLLM

CHAT: Any = [{"role": "user", "content": "What is the weather in Paris?"}]

ANSWER: dict[str, Any] = {
    "id": "gen-1", "object": "chat.completion", "created": 1, "model": "m", "provider": "Together",
    "base_resp": {"status_code": 0, "status_msg": ""},
    "citations": ["https://e.x"], "search_results": [{"title": "t", "url": "https://e.x"}],
    "choices": [
        {
            "index": 0, "finish_reason": "tool_calls", "native_finish_reason": "tool_use",
            "message": {
                "role": "assistant", "content": "<think>hm</think>text", "refusal": None, "reasoning": "hm",
                "reasoning_details": [{"type": "reasoning.text", "text": "hm", "signature": "c2ln"}],
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            "logprobs": {"content": [{"token": "a", "logprob": -0.1, "top_logprobs": []}]},
        }
    ],
    "usage": {
        "prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 10, "cost": 0.001,
        "prompt_cache_hit_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 2},
    },
}  # fmt: skip
REFUSAL: dict[str, Any] = {
    "error": {
        "code": 403, "type": "x", "message": "no",
        "metadata": {"reasons": ["violence"], "error_type": "refusal", "limit_source": "x", "raw": "{}"},
    },
    "user_id": "u",
}  # fmt: skip

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-1, 2**63), st.floats(), st.text(max_size=5),
    st.sampled_from(("error", "1026", 1026, 429, "429", 1e400, {"code": 429}, {"a": {"b": [1]}})),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=2)), max_size=2),
    st.just({}), st.just([{}]), st.just([[None]]),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path, *(found for key in keys for found in places(value[key], (*path, key)))]


def changed(value: Any, place: tuple[Any, ...], odd: Any, is_left_out: bool) -> Any:
    made = copy.deepcopy(value)
    if not place:
        return odd
    holder = made
    for key in place[:-1]:
        holder = holder[key]
    if is_left_out:
        del holder[place[-1]]
    else:
        holder[place[-1]] = odd
    return made


LLMS: list[CompatibleLLM] = [
    cls(model="m", api_key="key", reasoning_tag="think")
    for cls in (OpenRouterLLM, DeepSeekLLM, MiniMaxLLM, PerplexityLLM, DashScopeLLM, XAILLM, ZaiLLM)
]


@settings(derandomize=True, max_examples=200, deadline=None)
@given(place=st.sampled_from(places(ANSWER)), odd=ODD, is_left_out=st.booleans())
def test_anything_anywhere_in_an_answer_ends_no_more_than_its_row(
    place: tuple[Any, ...], odd: Any, is_left_out: bool
) -> None:
    answer = changed(ANSWER, place, odd, is_left_out)
    for llm in LLMS:
        failure = llm.failure_in(answer, {})
        if failure is not None:
            assert failure.kind in ERROR_KINDS
            continue
        try:
            output = llm.output_of(answer, llm.request_of(CHAT, 1, {}))
        except GenerationError:
            continue
        checked = check_output(output, None, "LLM")
        cost = checked["statistics"].get("cost", [0.0])
        assert all(type(item) is float and item >= 0 for item in cost)
        json.dumps(checked["statistics"])


@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    place=st.sampled_from(places(REFUSAL)), odd=ODD, is_left_out=st.booleans(),
    status=st.sampled_from((400, 401, 402, 403, 404, 422, 429, 500, 502)),
)  # fmt: skip
def test_anything_anywhere_in_an_error_is_an_error(
    place: tuple[Any, ...], odd: Any, is_left_out: bool, status: int
) -> None:
    try:
        body = orjson.dumps(changed(REFUSAL, place, odd, is_left_out))
    except TypeError:  # it is no JSON
        return
    for llm in LLMS:
        failure = llm.classify(status, {}, body)
        assert failure.kind in ERROR_KINDS
        assert not (failure.kind == "content_filter" and (failure.retried or failure.stops_run))


# Servers that fail on purpose

SPOKEN = {
    "openrouter": (OpenRouterLLM, "openai"), "deepseek": (DeepSeekLLM, "openai"), "xai": (XAILLM, "xai"),
    "perplexity": (PerplexityLLM, "perplexity"),
}  # fmt: skip


def at(llmock: Any, name: str, **fields: Any) -> Any:
    cls, path = SPOKEN[name]
    fields = {
        "model": "m",
        "base_url": llmock.base_url(path),
        "api_key": "key",
        "retry_timeout": 30,
        **fields,
    }
    return cls(**fields)


@pytest.mark.parametrize(("name", "status"), [("openrouter", 503), *((name, 429) for name in SPOKEN)])
def test_a_burst_of_errors_is_survived(
    llmock: Any, name: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse.offline.failures.INITIAL_BACKOFF_SECONDS", 0.06)
    monkeypatch.setattr("stillhouse.offline.failures.random.random", lambda: 1.0)
    llmock.fail(status, times=2, provider=SPOKEN[name][1], retry_after=0.2 if status == 429 else None)
    with at(llmock, name, max_concurrency=1) as llm:
        outputs = llm.generate_outputs([CHAT] * 3)
    assert all(output["generations"][0] for output in outputs)
    assert [record.status for record in llmock.requests] == [status, status, 200, 200, 200]
    llmock.assert_resilient(strict=True)


@pytest.mark.parametrize("name", SPOKEN)
@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request"), (401, "authentication"), (404, "invalid_request")]
)
def test_a_permanent_error_is_not_tried_again(llmock: Any, name: str, status: int, kind: str) -> None:
    llmock.fail(status, times=None, provider=SPOKEN[name][1])
    with at(llmock, name) as llm, pytest.raises(GenerationError) as caught:
        llm.generate_outputs([CHAT])
    assert (caught.value.kind, caught.value.attempts) == (kind, 1)


def test_another_server_that_speaks_openrouter_s_api(aimock: Any) -> None:
    aimock.reply("weather in Paris", "It is fine.", usage={"prompt_tokens": 9, "completion_tokens": 4})
    aimock.fail_once(502)
    with OpenRouterLLM(model="a/b", base_url=aimock.url, api_key="key-0001-test") as llm:
        (output,) = llm.generate_outputs([CHAT], max_new_tokens=5)
    assert (output["generations"], output["finish_reasons"]) == (["It is fine."], ["stop"])
    assert {request["path"] for request in aimock.requests()} == {"/api/v1/chat/completions"}
