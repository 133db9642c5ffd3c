"""Real answers with odd values anywhere in them: a row is done or fails alone, and the types hold."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse import GenerationError
from stillhouse.http import Request
from stillhouse.outputs import check_output
from stillhouse.testing import Reply, ScriptedServer
from stillhouse_google import GeminiLLM

CHAT: Any = [{"role": "user", "content": "hello"}]

ODD: tuple[Any, ...] = (
    *(2**63, 2**53 + 1, 10**40, 1e308, -1, 0, 0.5, float("nan"), True, False, None),
    *("x", "", "3", "9" * 30, "\ud83d", "\x1b[2J", [1], [[]], [None], {}, {"a": {"b": [1]}}, [{}]),
)

TOKEN = {"token": "a", "tokenId": 1, "logProbability": -0.5}
ANSWER: dict[str, Any] = {
    "candidates": [
        {
            "content": {
                "parts": [
                    {"text": "hm", "thought": True},
                    {"text": "text"},
                    {"functionCall": {"id": "c", "name": "f", "args": {"a": 1}}, "thoughtSignature": "c2ln"},
                ],
                "role": "model",
            },
            "finishReason": "STOP",
            "finishMessage": "m",
            "index": 0,
            "groundingMetadata": {"webSearchQueries": ["q"]},
            "logprobsResult": {"chosenCandidates": [TOKEN], "topCandidates": [{"candidates": [TOKEN]}]},
        }
    ],
    "promptFeedback": {"blockReason": "SAFETY"},
    "usageMetadata": {
        "promptTokenCount": 5,
        "cachedContentTokenCount": 1,
        "candidatesTokenCount": 3,
        "thoughtsTokenCount": 2,
        "toolUsePromptTokenCount": 1,
    },
    "responseId": "r",
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


PLACES = list(places(ANSWER))


def changed(changes: list[tuple[tuple[Any, ...], Any, bool]]) -> Any:
    answer = copy.deepcopy(ANSWER)
    for path, value, is_gone in changes:
        holder: Any = answer
        try:
            for key in path[:-1]:
                holder = holder[key]
            if is_gone:
                del holder[path[-1]]
            else:
                holder[path[-1]] = copy.deepcopy(value)
        except (KeyError, IndexError, TypeError):
            continue
    return answer


@pytest.fixture(scope="module")
def api() -> Iterator[tuple[GeminiLLM, ScriptedServer]]:
    server = ScriptedServer(lambda path, body: ANSWER)
    with GeminiLLM(model="m", base_url=server.origin, api_key="k", retry_timeout=0, timeout=20) as llm:
        yield llm, server
    server.close()


@settings(derandomize=True, max_examples=600, deadline=None, database=None)
@given(
    st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(ODD), st.booleans()), min_size=1, max_size=3)
)
def test_odd_value_anywhere_costs_no_more_than_its_row(changes: Any) -> None:
    """Whatever else is raised, the core makes an error of the row of it, as the next test shows."""
    try:
        output = GeminiLLM(model="m").output_of(changed(changes), Request("", None))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, GenerationError) as error:
        check(GenerationError.wrap(error))
    else:
        check(check_output(output, None, "GeminiLLM"))


@pytest.mark.parametrize("odd", [item for item in ODD if item not in (float("nan"),)])
def test_answer_of_another_shape_is_an_error_of_its_row(
    api: tuple[GeminiLLM, ScriptedServer], odd: Any
) -> None:
    llm, server = api
    server.script = [Reply(body=json.dumps(odd).encode())]
    assert isinstance(dict(llm.iter_outputs([CHAT], on_error="yield"))[0], GenerationError)


def check(result: Any) -> None:
    """A result is an error, or an output whose parts are of the contract's types."""
    if isinstance(result, GenerationError):
        assert result.message.isprintable()
        return
    assert all(text is None or isinstance(text, str) for text in result["generations"])
    for reason in result.get("finish_reasons", ()):
        assert reason is None or (isinstance(reason, str) and reason == reason.lower())
    for counts in result["statistics"].values():
        assert all(type(count) is int and 0 <= count <= 2**53 for count in counts)
    assert all(isinstance(item, str) for item in result.get("reasoning", ()) if item is not None)
    for calls in result.get("tool_calls", ()):
        for call in calls or ():
            assert isinstance(call["function"]["arguments"], str)
            assert isinstance(call["id"], str)
