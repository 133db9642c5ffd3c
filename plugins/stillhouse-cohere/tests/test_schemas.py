"""The schemas that the API gets, and those that are refused."""

from __future__ import annotations

import copy
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from stillhouse import UnsupportedError
from stillhouse_cohere import CohereLLM
from stillhouse_cohere.schemas import narrowed


def asked(schema: Any) -> dict[str, Any]:
    """The schema that is sent."""
    sent: dict[str, Any] = CohereLLM.form_of({"format": "json", "schema": schema}).fields["response_format"]
    assert set(sent) == {"type", "json_schema"}
    return sent["json_schema"]  # type: ignore[no-any-return]


def of(item: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": item}, "required": ["a"], **more}


class Inner(BaseModel):
    kind: Literal["x", "y"] = "x"
    note: str | None = None


class Outer(BaseModel):
    """A model with everything that the API takes."""

    inner: Inner
    many: list[Inner] = Field(default_factory=list, description="Some of them.")
    code: str = Field(default="", pattern=r"[A-Z]{3}\$[^,^]")


class Node(BaseModel):
    name: str
    next: Node | None = None


class Chain(BaseModel):
    name: str = ""
    next: Node = Node(name="")


def test_every_object_has_a_required_property() -> None:
    sent = asked(Outer)
    assert sent["required"] == ["inner"]
    assert sent["$defs"]["Inner"]["required"] == ["kind", "note"]
    assert sent["properties"]["many"] == {
        "title": "Many", "description": "Some of them.", "type": "array", "items": {"$ref": "#/$defs/Inner"},
    }  # fmt: skip
    assert asked({"type": "object", "properties": {"a": {"type": "string"}}}) == of({"type": "string"})


def test_model_that_contains_itself_may_end() -> None:
    sent = asked(Node)
    assert sent["type"] == "object"
    assert sent["$defs"]["Node"]["required"] == ["name"]
    assert asked(Chain)["required"] == ["name"]


def test_several_types_are_a_choice() -> None:
    given = {"type": ["string", "null", "object"], "pattern": "a+", "description": "d", "enum": ["a", None]}
    given |= {"properties": {"b": {"type": "null"}}}
    sent = asked(of(given))["properties"]["a"]
    assert sent == {
        "description": "d",
        "anyOf": [
            {"type": "string", "pattern": "a+", "enum": ["a"]},
            {"type": "null", "enum": [None]},
            {"type": "object", "properties": {"b": {"type": "null"}}, "required": ["b"], "enum": []},
        ],
    }
    assert asked(of({"type": ["string"]})) == of({"type": "string"})


@pytest.mark.parametrize(
    "item",
    [
        {"type": "array"},
        {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
        {"type": "string", "format": "date-time"},
        {"type": "string", "pattern": r"[A-Z]{3}\^[0-9]{7}(a|b)?\\\\"},
        {"const": "x"},
        {"enum": ["x", 1, None]},
        {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        of({"type": "string"}, additionalProperties=False),
        of({"type": "string"}, additionalProperties={"type": "integer"}),
    ],
)
def test_what_the_api_keeps_to_is_sent_as_it_is(item: Any) -> None:
    before = copy.deepcopy(item)
    assert asked(of(item)) == of(item)
    assert item == before


def test_definitions_have_one_name() -> None:
    given = {**of({"$ref": "#/definitions/x"}), "definitions": {"x": {"type": "string"}}}
    assert asked(given) == {**of({"$ref": "#/$defs/x"}), "$defs": {"x": {"type": "string"}}}


def test_choice_of_one_is_a_choice_of_any() -> None:
    given = {"oneOf": [{"type": "string"}, {"type": "null"}]}
    assert asked(of(given)) == of({"anyOf": given["oneOf"]})


def test_any_items_are_the_default() -> None:
    for items in (True, {}):
        assert asked(of({"type": "array", "items": items})) == of({"type": "array"})


@pytest.mark.parametrize(
    ("schema", "keyword", "place"),
    [
        ({"type": "string"}, "type", "#"),
        ({"type": "array", "items": {"type": "string"}}, "type", "#"),
        ({"type": ["object", "null"], "properties": {"a": {"type": "string"}}}, "type", "#"),
        ({"type": "object"}, "type", "#"),
        (of({"type": "object", "additionalProperties": {"type": "string"}}), "type", "#/properties/a"),
        (of({"type": "integer", "minimum": 1}), "minimum", "#/properties/a"),
        (of({"type": "string", "maxLength": 1}), "maxLength", "#/properties/a"),
        (of({"type": "array", "minItems": 1}), "minItems", "#/properties/a"),
        (of({"type": "array", "uniqueItems": True}), "uniqueItems", "#/properties/a"),
        (of({"allOf": [{"type": "string"}, {"enum": ["a"]}]}), "allOf", "#/properties/a"),
        (of({"oneOf": [{"type": "string"}, {"enum": ["a"]}]}), "oneOf", "#/properties/a"),
        (of({"not": {"type": "string"}}), "not", "#/properties/a"),
        (of({"type": "string", "pattern": "^a"}), "pattern", "#/properties/a"),
        (of({"type": "string", "pattern": "a$"}), "pattern", "#/properties/a"),
        (of({"type": "string", "pattern": r"[\]]\\^"}), "pattern", "#/properties/a"),
        (of({"type": "string", "pattern": "a(?=b)"}), "pattern", "#/properties/a"),
        (of({"type": "string", "pattern": "(?<!a)b"}), "pattern", "#/properties/a"),
        (of({"type": "string", "pattern": r"\bword"}), "pattern", "#/properties/a"),
        (of({"type": "string", "pattern": r"(a)\1"}), "pattern", "#/properties/a"),
        (of({"type": "string", "format": "email"}), "format", "#/properties/a"),
        (of({"const": {"a": 1}}), "const", "#/properties/a"),
        (of({"enum": [[1]]}), "enum", "#/properties/a"),
        (of({}), "type", "#/properties/a"),
        (of({"anyOf": [{"description": "any"}]}), "type", "#/properties/a/anyOf/0"),
        (of({"type": "string"}, additionalProperties=of({"type": "string"})), "additionalProperties", "#"),
        (of({"type": "string"}, required=["a", "b"]), "required", "#"),
        (of({"$ref": "#/$defs/none"}), "$ref", "#/properties/a"),
        (of({"$ref": "#/properties/a"}), "$ref", "#/properties/a"),
        ({**of({"$ref": "#/$defs/x", "type": "string"}), "$defs": {"x": {"type": "string"}}}, "$ref", "#/pro"),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"$ref": "#/$defs/x"}}}, "$ref", "#"),
    ],
)  # fmt: skip
def test_what_the_api_does_not_keep_to_is_refused(schema: Any, keyword: str, place: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        narrowed(schema, "CohereLLM")
    assert f"{keyword!r} at {place}" in str(caught.value)


@pytest.mark.parametrize("format", ["regex", "choice"])
def test_other_formats_are_refused(format: Any) -> None:
    with pytest.raises(UnsupportedError, match=format):
        CohereLLM(
            model="m", structured_output={"format": format, "schema": "a" if format == "regex" else ["a"]}
        )
