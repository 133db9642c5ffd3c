"""Why a value does not fit its type, in plain words, as the command line and Python say it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from stillhouse._settings.problems import problem_of
from stillhouse._settings.values import ValueType


@pytest.mark.parametrize(
    ("annotation", "text", "problem"),
    [
        (int | None, "abc", "must be a whole number"),
        (int, "1.5", "must be a whole number"),
        (Annotated[int, Field(ge=1)] | None, "0", "must be 1 or more"),
        (Annotated[float, Field(gt=0)], "0", "must be more than 0"),
        (Annotated[float, Field(le=2)], "3", "must be 2 or less"),
        (Annotated[float, Field(lt=2)], "2", "must be less than 2"),
        (float, "x", "must be a number"),
        (bool, "perhaps", "must be true or false"),
        (Literal["low", "high"], "mid", "must be 'low' or 'high'"),
        (list[int], "5", "must be a list"),
        (dict[str, int], "5", "must be an object"),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_is_explained(annotation: Any, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r"^must be") as caught:
        ValueType(annotation).of_text(text)
    assert str(caught.value) == problem


def test_other_problems_keep_their_words() -> None:
    assert problem_of({"type": "value_error", "msg": "Value error, no such place"}) == "no such place"
    assert (
        problem_of({"type": "greater_than", "msg": "Input is too small", "ctx": {}}) == "Input is too small"
    )
