"""Whether an answer has the form that was asked for."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from stillhouse import ConfigurationError, GenerationError, normalize_structured_output
from stillhouse.structured.answers import AnswerForm, answer_problem, value_problem


def form(**structured_output: Any) -> AnswerForm:
    normal = normalize_structured_output(structured_output)
    assert normal is not None
    return AnswerForm(normal["format"], answer_problem(normal))


OBJECT = {
    "type": "object",
    "properties": {"a": {"type": "integer", "maximum": 9}, "day": {"format": "date"}},
    "required": ["a"],
}


@pytest.mark.parametrize(
    ("given", "text", "problem"),
    [
        ({"schema": OBJECT}, '{"a": 1, "day": "2020-02-29"}', ""),
        ({"schema": OBJECT}, ' {"a": 1.0}\n', ""),
        ({"schema": OBJECT}, '{"a": 10}', "10 is greater than the maximum of 9 at $.a"),
        ({"schema": OBJECT}, '{"a": 10, "day": "2021-02-29"}', "'2021-02-29' is not a 'date' at $.day"),
        ({"schema": OBJECT}, '{"a": true}', "True is not of type 'integer' at $.a"),
        ({"schema": OBJECT}, "Sure!", "not JSON"),
        ({"schema": {"type": "number"}}, "NaN", "NaN is no JSON value"),
        ({"schema": {"type": "number", "multipleOf": 0.1}}, "0.3", ""),
        ({"schema": {"type": "number", "multipleOf": 0.1}}, "0.35", "0.35 is not a multiple of 0.1"),
        ({"schema": {"$ref": "https://example.com/a.json"}}, "1", "cannot be applied"),
        ({"schema": "a+", "format": "regex"}, "aa", ""),
        ({"schema": "a+", "format": "regex"}, "aab", "does not match"),
        ({"schema": ["a", "b"]}, "b", ""),
        ({"schema": ["a", "b"]}, "ab", "not one of the choices"),
    ],
)
def test_problem_describes_why_an_answer_is_invalid(given: dict[str, Any], text: str, problem: str) -> None:
    found = form(**given).problem(text)
    assert problem in found
    assert bool(found) == bool(problem)


@pytest.mark.parametrize(
    ("text", "reason", "kind"),
    [
        ('{"a": 1}', "stop", None),
        ('{"a": 1}', "length", None),
        ('{"a": ', "length", "truncated"),
        ('{"a": ', "stop", "schema"),
        (None, "length", "truncated"),
        (None, "stop", "schema"),
        (None, "tool_calls", None),
        (None, "content_filter", None),
        (None, "refusal", None),
    ],
)
def test_check_accepts_an_answer_or_raises_an_error_of_its_kind(
    text: str | None, reason: str, kind: str | None
) -> None:
    checked = form(schema=OBJECT)
    if kind is None:
        checked.check(text, reason)
        return
    with pytest.raises(GenerationError) as caught:
        checked.check(text, reason)
    assert caught.value.kind == kind
    assert caught.value.hint


def test_a_problem_is_short_however_long_the_answer_is() -> None:
    problem = value_problem({"type": "array", "items": {"type": "string", "maxLength": 2}})
    found = problem(["x" * 10_000] * 1_000)
    assert 0 < len(found) < 1_200


def test_a_schema_that_is_not_valid() -> None:
    with pytest.raises(ConfigurationError, match="not valid at #/properties/a/maximum"):
        value_problem({"properties": {"a": {"maximum": "9"}}})


def test_missing_jsonschema_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema.validators", None)
    with pytest.raises(ConfigurationError) as caught:
        value_problem({"type": "string"})
    assert caught.value.hint == 'stillhouse install "stillhouse[schema]"'
    assert form(schema=["a"]).problem("a") == ""
