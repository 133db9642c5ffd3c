"""Structured output: the schemas that are sent, and those that are refused."""

from __future__ import annotations

import copy
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, Field

from stillhouse import UnsupportedError, normalize_structured_output
from stillhouse.structured import closed_schema
from stillhouse_anthropic.schemas import output_format_of


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str] = []


class Owner(BaseModel):
    """Somebody."""

    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    mood: Literal["good", "bad"] | None = None
    code: str = Field(default="A1", pattern=r"^[A-Z]\d$", title="Code")
    scores: Annotated[list[float], Field(min_length=1)]


VALUES: list[Any] = [
    {"pet": {"kind": "cat", "lives": 9}, "scores": [1.5, 2]},
    {"pet": {"kind": "dog"}, "mood": "good", "code": "B2", "scores": [0]},
    {"pet": {"kind": "dog", "tricks": ["roll"]}, "mood": None, "scores": [0]},
    {"pet": {"kind": "cat"}, "scores": [1]},
    {"pet": {"kind": "cat", "lives": 9.0}, "scores": [1]},
    {"pet": {"kind": "cat", "lives": 9.5}, "scores": [1]},
    {"pet": {"kind": "cat", "lives": True}, "scores": [1]},
    {"pet": {"kind": "cow"}, "scores": [1]},
    {"pet": {"kind": "dog", "tricks": [1]}, "scores": [1]},
    {"pet": {"kind": "dog"}, "scores": []},
    {"pet": {"kind": "dog"}, "scores": [True]},
    {"pet": {"kind": "dog"}, "scores": "1"},
    {"pet": {"kind": "dog"}},
    {"pet": {"kind": "dog"}, "scores": [1], "mood": "ugly"},
    {"pet": {"kind": "dog"}, "scores": [1], "code": "2B"},
    {"pet": {"kind": "dog"}, "scores": [1], "more": 1},
    [],
    None,
    1,
]


def of_model(model: type[BaseModel]) -> dict[str, Any]:
    form = output_format_of(normalize_structured_output({"format": "json", "schema": model}), "X")
    assert form is not None
    assert form["type"] == "json_schema"
    schema: dict[str, Any] = form["schema"]
    return schema


def test_narrowed_schema_accepts_only_what_the_given_schema_accepts() -> None:
    given = jsonschema.Draft202012Validator(Owner.model_json_schema())
    sent = jsonschema.Draft202012Validator(of_model(Owner))
    for value in VALUES:
        assert given.is_valid(value) or not sent.is_valid(value)
    assert sum(sent.is_valid(value) for value in VALUES) == 4


def test_narrowed_schema_closes_every_object_and_changes_nothing_else() -> None:
    schema = Owner.model_json_schema()
    before = copy.deepcopy(schema)
    sent = closed_schema(schema, "X")
    assert schema == before
    for item in (sent, *sent["$defs"].values()):
        assert item["additionalProperties"] is False
    assert "oneOf" not in str(sent)
    assert sent["required"] == before["required"]
    assert list(sent["properties"]) == list(before["properties"])


@pytest.mark.parametrize(
    ("keyword", "schema"),
    [
        ("minimum", {"type": "integer", "minimum": 1}),
        ("maxLength", {"type": "string", "maxLength": 3}),
        ("minItems", {"type": "array", "items": {"type": "string"}, "minItems": 2}),
        ("maxItems", {"type": "array", "items": {"type": "string"}, "maxItems": 2}),
        ("items", {"type": "array", "items": [{"type": "string"}]}),
        ("additionalProperties", {"type": "object", "additionalProperties": {"type": "string"}}),
        ("additionalProperties", {"type": ["object", "null"], "additionalProperties": True}),
        ("required", {"type": "object", "properties": {}, "required": ["a"]}),
        ("pattern", {"type": "string", "pattern": "(?=a)b"}),
        ("pattern", {"type": "string", "pattern": r"(a)\1"}),
        ("format", {"type": "string", "format": "regex"}),
        ("enum", {"enum": [{"a": 1}]}),
        ("const", {"const": [1]}),
        ("type", {"description": "anything"}),
        ("oneOf", {"oneOf": [{"type": "number"}, {"type": "integer"}]}),
        ("allOf", {"allOf": [{"type": "object"}, {"type": "object"}]}),
        ("not", {"not": {"type": "string"}, "type": "string"}),
        ("$ref", {"$ref": "https://host/schema"}),
        ("$ref", {"$ref": "#/$defs/Gone"}),
        ("$ref", {"$ref": "#/$defs/A", "$defs": {"A": {"type": "array", "items": {"$ref": "#/$defs/A"}}}}),
    ],
)
def test_unsupported_schema_keyword_is_named_in_the_error(keyword: str, schema: dict[str, Any]) -> None:
    nested = {"type": "object", "properties": {"deep": {k: v for k, v in schema.items() if k != "$defs"}}}
    nested["$defs"] = schema.get("$defs", {})
    with pytest.raises(UnsupportedError) as caught:
        output_format_of({"format": "json", "schema": nested}, "X")
    assert f"keyword {keyword!r}" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("form", ["regex", "choice"])
def test_structured_output_formats_other_than_json_are_refused(form: Any) -> None:
    with pytest.raises(UnsupportedError, match=form):
        output_format_of({"format": form, "schema": "a"}, "X")


def test_schema_reference_with_a_description_is_kept() -> None:
    """As older pydantic writes a field of a model with a description."""
    schema = {
        "type": "object",
        "properties": {"a": {"allOf": [{"$ref": "#/definitions/A"}], "description": "d"}},
        "definitions": {"A": {"type": "object", "properties": {"x": {"type": "null"}}}},
    }
    sent = closed_schema(schema, "X")
    assert sent["properties"]["a"] == {"$ref": "#/$defs/A"}
    assert sent["$defs"]["A"]["additionalProperties"] is False
