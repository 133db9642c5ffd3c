"""Structured output: the one shape, and refusing what cannot be honoured."""

from __future__ import annotations

import copy
import enum
import json
import re
from typing import Any, ClassVar, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from stillhouse import (
    ConfigurationError,
    StructuredOutputMixin,
    UnsupportedError,
    normalize_structured_output,
)
from stillhouse.structured import capability_of, check_schema
from stillhouse.typing import CAPABILITIES, Capability

from ..support import ScriptedLLM


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    name: str = Field(min_length=2, description="What it is called.")
    parts: list[Part] = []


class Answer(BaseModel):
    colour: Colour
    size: Literal["s", 5]
    count: int = Field(ge=1, le=9)
    root: Part


def test_a_pydantic_class_keeps_its_enums_constraints_and_references() -> None:
    normal = normalize_structured_output({"format": "json", "schema": Answer})
    assert normal is not None
    schema = normal["schema"]
    assert schema == Answer.model_json_schema()
    assert schema["$defs"]["Colour"]["enum"] == ["red", "blue"]
    assert schema["properties"]["count"]["maximum"] == 9
    assert schema["$defs"]["Part"]["properties"]["parts"]["items"] == {"$ref": "#/$defs/Part"}
    json.dumps(normal)


@pytest.mark.parametrize(
    ("given", "format", "schema"),
    [
        ({"format": "json", "schema": '{"type": "object"}'}, "json", {"type": "object"}),
        ({"schema": {"type": "object"}}, "json", {"type": "object"}),
        ({"schema": '{"type": "object"}'}, "json", {"type": "object"}),
        ({"schema": Part}, "json", Part.model_json_schema()),
        ({"format": "regex", "schema": "a+"}, "regex", "a+"),
        ({"format": "regex", "schema": re.compile("a+")}, "regex", "a+"),
        ({"schema": re.compile("a+")}, "regex", "a+"),
        ({"schema": re.compile("(?i)a+")}, "regex", "(?i)a+"),
        ({"schema": re.compile("a.", re.IGNORECASE | re.DOTALL)}, "regex", "(?is:a.)"),
        ({"schema": re.compile("a # b", re.VERBOSE)}, "regex", "(?x:a # b\n)"),
        ({"schema": "a+"}, "regex", "a+"),
        ({"format": "choice", "schema": ("a", "b")}, "choice", ["a", "b"]),
        ({"schema": ["a", "b"]}, "choice", ["a", "b"]),
    ],
)
def test_structured_output_in_any_form_is_normalized(given: Any, format: str, schema: Any) -> None:
    before = copy.copy(given)
    normal = normalize_structured_output(given)
    assert normal == {"format": format, "schema": schema}
    assert given == before
    assert normalize_structured_output(normal) == normal
    needed = {"json": "json_schema", "regex": "regex", "choice": "choice"}[format]
    assert capability_of(given) == needed


def test_normalizing_keeps_none_and_other_keys() -> None:
    assert normalize_structured_output(None) is None
    given = {"schema": {}, "mode": "tools", "max_retries": 2, "whitespace_pattern": " ?"}
    assert normalize_structured_output(given) == {"format": "json", **given}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("json", "of type str"),
        ([], "of type list"),
        ({}, "no schema"),
        ({"format": "json"}, "no schema"),
        ({"format": "jsn", "schema": {}}, "unknown format 'jsn'"),
        ({"format": ["json"], "schema": {}}, "unknown format"),
        ({"schema": {}, "fromat": "json"}, "unknown key 'fromat'"),
        ({"schema": {}, 5: "json"}, "unknown key 5"),
        ({"format": "json", "schema": "{"}, "not valid JSON"),
        ({"format": "json", "schema": "[1]"}, "not list"),
        ({"format": "json", "schema": 5}, "not int"),
        ({"format": "json", "schema": int}, "not type"),
        ({"format": "regex", "schema": "("}, "not valid"),
        ({"format": "regex", "schema": 5}, "not int"),
        ({"format": "choice", "schema": []}, "at least one string"),
        ({"format": "choice", "schema": [1]}, "at least one string"),
        ({"format": "choice", "schema": "ab"}, "at least one string"),
    ],
)
def test_invalid_structured_output_error_shows_the_valid_form(given: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as caught:
        normalize_structured_output(given)
    assert caught.value.hint


def test_unknown_structured_output_key_suggests_near_matches() -> None:
    with pytest.raises(ConfigurationError) as caught:
        normalize_structured_output({"schema": {}, "fromat": "json"})
    assert "'format'" in caught.value.hint


class StructuredLLM(StructuredOutputMixin, ScriptedLLM):
    capabilities: ClassVar[frozenset[Capability]] = CAPABILITIES


def test_structured_output_field_is_normalized_on_assignment() -> None:
    llm = StructuredLLM(structured_output={"schema": Part})
    assert llm.structured_output == {"format": "json", "schema": Part.model_json_schema()}
    llm.structured_output = {"schema": "a+"}
    assert llm.structured_output == {"format": "regex", "schema": "a+"}
    llm.structured_output = None
    assert llm.structured_output is None
    with pytest.raises(ValidationError, match="unknown format"):
        llm.structured_output = {"format": "jsn", "schema": {}}
    assert StructuredLLM().structured_output is None


SCHEMA = {
    "title": "T",
    "type": "object",
    "properties": {
        "pattern": {"type": "string", "description": "a property, not a keyword"},
        "list": {"type": "array", "items": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Part"}]}},
    },
    "additionalProperties": False,
    "$defs": {
        "Part": {"type": "string", "maxLength": 5, "default": {"format": "x"}, "examples": [{"not": 1}]}
    },
}
KEYWORDS = {"type", "properties", "items", "anyOf", "$ref", "additionalProperties", "maxLength"}


def test_a_schema_of_supported_keywords_passes() -> None:
    check_schema(SCHEMA, KEYWORDS, "AnyLLM")


@pytest.mark.parametrize(
    ("keyword", "path"),
    [
        ("maxLength", "#/$defs/Part"),
        ("$ref", "#/properties/list/items/anyOf/1"),
        ("items", "#/properties/list"),
        ("additionalProperties", "#"),
    ],
)
def test_a_schema_that_cannot_be_honoured_is_refused_with_the_keyword(keyword: str, path: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        check_schema(SCHEMA, KEYWORDS - {keyword}, "AnyLLM")
    assert "AnyLLM" in caught.value.message
    assert f"{keyword!r} at {path} " in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [{"minimum": 1}]},
        {"not": {"minimum": 1}},
        {"prefixItems": [{"minimum": 1}]},
        {"items": [{"minimum": 1}]},
        {"patternProperties": {"a": {"minimum": 1}}},
        {"additionalProperties": {"minimum": 1}},
        {"if": {"minimum": 1}},
        {"definitions": {"A": {"minimum": 1}}},
        {"propertyNames": {"minimum": 1}},
    ],
)
def test_unsupported_keyword_is_found_in_every_subschema(schema: Any) -> None:
    with pytest.raises(UnsupportedError, match="'minimum'"):
        check_schema(schema, set(schema), "AnyLLM")


def test_nothing_of_one_inputs_form_is_left_for_the_next() -> None:
    seen: list[Any] = []

    class SeeingLLM(StructuredLLM):
        async def agenerate(self, input: Any, num_generations: int = 1) -> Any:
            seen.append((input, self.structured_output))
            return {"generations": ["x"], "statistics": {}}

    chat = [{"role": "user", "content": "x"}]
    inputs: list[Any] = [(chat, {"schema": {"type": "object"}}), chat, (chat, None), (chat, {"schema": "a+"})]
    with SeeingLLM(max_concurrency=1) as llm:
        for _ in range(2):
            seen.clear()
            llm.generate_outputs(inputs)
            assert seen == [(input, None) for input in inputs]
    assert llm.structured_output is None
