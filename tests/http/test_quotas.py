"""What is left of a quota, from headers or from values of any type."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.http.transport.quotas import X_RATELIMIT, left_of, quota_left, seconds_until


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
