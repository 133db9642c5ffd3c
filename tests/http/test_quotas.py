"""What is left of a quota, from headers or from values of any type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse import FormattedInput, GenerateOutput, prepare_output
from stillhouse.http import HTTPLLM, QuotaLeft, Request
from stillhouse.http.transport.quotas import X_RATELIMIT, left_of, quota_left, seconds_until

from .conftest import Reply, ScriptedServer

CHAT: Any = [{"role": "user", "content": "hello"}]


class TellingLLM(HTTPLLM):
    """Its API says in every answer what is left."""

    api_key_required = False

    async def agenerate(self, input: FormattedInput, num_generations: int = 1) -> GenerateOutput:
        return await self.complete(input, num_generations, {})

    def request_of(
        self, input: FormattedInput, num_generations: int, arguments: Mapping[str, Any]
    ) -> Request:
        return Request("generate", {"input": input})

    def output_of(self, answer: Any, request: Request) -> GenerateOutput:
        return prepare_output([answer["text"]])

    def quotas_in(self, answer: Any, headers: Mapping[str, str]) -> Mapping[str, QuotaLeft | None]:
        told = answer["limits"]
        return {
            "requests": quota_left(told["left"], told["of"], told.get("reset")),
            "tokens per day": quota_left(told.get("tokens"), 1000, 60),
        }


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"limits": {"left": 3, "of": "10", "reset": "6s"}}, [("requests", (3.0, 10.0, 6.0), False)]),
        (
            {"limits": {"left": 3, "of": 10, "tokens": 5}},
            [("requests", (3.0, 10.0, 60.0), False), ("tokens per day", (5.0, 1000.0, 60.0), True)],
        ),
        ({"limits": {"left": "NaN", "of": 10}}, []),
        ({"limits": {"left": None, "of": []}}, []),
        ({"limits": {}}, []),
        ({"limits": "none"}, []),
        ({"limits": None}, []),
        ({}, []),
    ],
)
def test_quota_told_in_an_answer_is_reported_and_an_odd_one_is_not(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], expected: Any
) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(
        "stillhouse.http.transport.limits.Limits.update_quota",
        lambda self, name, *quota, is_tokens: reported.append((name, quota, is_tokens)),
    )
    server.script = [Reply(body=orjson.dumps({"text": "fine", **answer})), Reply(503)]
    with TellingLLM(model="m", base_url=server.url) as llm:
        (output,) = llm.generate_outputs([CHAT])
    assert output["generations"] == ["fine"]
    assert reported == expected


@pytest.mark.parametrize("quota", [(1.0, 2.0), (float("nan"), 2.0, 3.0), (1.0, float("inf"), 3.0), 5, "x"])
def test_quota_that_is_none_holds_nothing_back(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, quota: Any
) -> None:
    monkeypatch.setattr(TellingLLM, "quotas_in", lambda self, answer, headers: {"requests": quota})
    with TellingLLM(model="m", base_url=server.url) as llm:
        assert len(llm.generate_outputs([CHAT] * 3)) == 3


def test_quota_that_does_not_say_when_it_is_full_again_is_one_of_a_minute() -> None:
    headers = {"x-ratelimit-remaining-requests": "1", "x-ratelimit-limit-requests": "9"}
    assert left_of(headers, X_RATELIMIT[0]) == (1.0, 9.0, 60.0)
    assert left_of({**headers, "x-ratelimit-reset-requests": ""}, X_RATELIMIT[0]) == (1.0, 9.0, 60.0)
    assert left_of({**headers, "x-ratelimit-reset-requests": "3s"}, X_RATELIMIT[0]) == (1.0, 9.0, 3.0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((5, 10), (5.0, 10.0, 60.0)),
        ((5, 10, 7), (5.0, 10.0, 7.0)),
        (("5", "10", "1m2s"), (5.0, 10.0, 62.0)),
        ((-5, 10.5, 7.5), (0.0, 10.5, 7.5)),
        ((5, None, 7), None),
        ((None, 10, 7), None),
        ((True, 10, 7), None),
        ((float("nan"), 10, 7), None),
        ((5, float("inf"), 7), None),
        ((10**400, 10, 7), None),
        ((5, 10, "soon"), None),
        ((5, 10, {}), None),
        (([5], {"a": 1}, 7), None),
    ],
)
def test_quota_is_read_from_values_of_any_type(values: tuple[Any, ...], expected: Any) -> None:
    assert quota_left(*values) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1704067230", 30.0),
        ("1704067230000", 30.0),
        ("1704067190.5", -9.5),
        ("9999-99-99", None),
        ("inf", None),
        ("nan", None),
        ("1" * 5000, None),
        ("1" * 5000 + "s", None),
    ],
)
def test_reset_is_a_time_where_the_number_is_one(text: str, seconds: float | None) -> None:
    assert seconds_until(text, now=1704067200.0) == seconds


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.lists(st.none())
)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(VALUES, VALUES, VALUES)
def test_any_values_are_a_quota_or_none(remaining: Any, limit: Any, reset: Any) -> None:
    found = quota_left(remaining, limit, reset)
    assert found is None or (found[0] >= 0 and all(abs(number) < 1e309 for number in found))
