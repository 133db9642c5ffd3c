"""Structured output: the keywords that the API keeps to are sent, and no others."""

from __future__ import annotations

import copy
import json
import re
from enum import Enum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from stillhouse import GenerationError, UnsupportedError
from stillhouse.testing import Reply
from stillhouse_google import GeminiLLM
from stillhouse_google.schemas import generation_config_of, kept

CHAT: Any = [{"role": "user", "content": "Name a river in Peru."}]
OBJECT: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def answer(*parts: Any, reason: str | None = "STOP", **fields: Any) -> dict[str, Any]:
    """An answer with these parts; a string is a text."""
    made = [{"text": part} if isinstance(part, str) else part for part in parts]
    return {
        "candidates": [{"content": {"parts": made, "role": "model"}, "finishReason": reason, "index": 0}],
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 3, "totalTokenCount": 8},
        "responseId": "r1",
        **fields,
    }


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Part(BaseModel):
    colour: Colour
    kind: Literal["part"] = "part"
    count: int = Field(gt=0, le=9, description="How many.")
    parts: list[Part] | None = None


class Whole(BaseModel):
    first: Part
    others: list[Part] = Field(max_length=3)
    note: str | None
    extra: dict[str, int]


def test_nested_model_of_pydantic_is_sent_with_its_definitions(sent: Any) -> None:
    given = Whole.model_json_schema()
    config = sent((CHAT, {"format": "json", "schema": given}), max_new_tokens=5)["generationConfig"]
    assert config.pop("responseMimeType") == "application/json"
    schema = config.pop("responseJsonSchema")
    assert config == {"maxOutputTokens": 5}
    part = schema["$defs"]["Part"]["properties"]
    assert part["colour"] == {"$ref": "#/$defs/Colour"}
    assert part["kind"] == {"title": "Kind", "enum": ["part"], "type": "string"}
    assert part["count"] == {
        "title": "Count", "description": "How many.", "minimum": 1, "maximum": 9, "type": "integer"
    }  # fmt: skip
    assert schema["properties"]["others"]["items"] == {"$ref": "#/$defs/Part"}
    assert schema["properties"]["extra"]["additionalProperties"] == {"type": "integer"}
    assert list(schema["properties"]) == ["first", "others", "note", "extra"]


@pytest.fixture
def sent(server: Any, make: Any) -> Any:
    def body(input: Any, **arguments: Any) -> Any:
        part = {"colour": "red", "kind": "part", "count": 1}
        text = json.dumps({"first": part, "others": [], "note": None, "extra": {}})
        server.script = [Reply(body=answer(text))]
        make().generate_outputs([input], **arguments)
        return server.requests[-1].body

    return body


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (OBJECT, OBJECT),
        ({"const": "a"}, {"enum": ["a"], "type": "string"}),
        ({"const": 3}, {"enum": [3], "type": "integer"}),
        ({"enum": [1, 2.5]}, {"enum": [1, 2.5], "type": "number"}),
        ({"const": None}, {"type": "null"}),
        ({"type": "integer", "exclusiveMaximum": 5, "maximum": 9}, {"type": "integer", "maximum": 4}),
        ({"type": "integer", "minimum": 3, "exclusiveMinimum": 0}, {"type": "integer", "minimum": 3}),
        (
            {"type": "string", "default": "x", "examples": ["y"], "title": "T"},
            {"type": "string", "title": "T"},
        ),
        (
            {"oneOf": [{"type": "string"}, {"type": "null"}]},
            {"anyOf": [{"type": "string"}, {"type": "null"}]},
        ),
        (
            {"type": "array", "prefixItems": [OBJECT], "minItems": 1},
            {"type": "array", "prefixItems": [OBJECT], "minItems": 1},
        ),
        (
            {"$ref": "#/definitions/a", "description": "d", "definitions": {"a": OBJECT, "unused": {}}},
            {"$ref": "#/$defs/a", "$defs": {"a": OBJECT}},
        ),
        ({"allOf": [OBJECT], "title": "T"}, {**OBJECT, "title": "T"}),
        ({"type": "string", "format": "date-time"}, {"type": "string", "format": "date-time"}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"]}),
        (
            {"type": "object", "additionalProperties": False},
            {"type": "object", "additionalProperties": False},
        ),
    ],
)
def test_schema_keeps_its_meaning(given: Any, made: Any) -> None:
    before = copy.deepcopy(given)
    assert kept(given, "G") == made
    assert given == before


@pytest.mark.parametrize(
    ("schema", "keyword", "place"),
    [
        ({"type": "string", "pattern": "a"}, "pattern", "#"),
        (
            {"type": "object", "properties": {"a": {"type": "string", "minLength": 1}}},
            "minLength",
            "properties/a",
        ),
        ({"type": "string", "maxLength": 1}, "maxLength", "#"),
        ({"type": "number", "multipleOf": 2}, "multipleOf", "#"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems", "#"),
        ({"type": "number", "exclusiveMinimum": 0}, "exclusiveMinimum", "#"),
        ({"type": "string", "format": "email"}, "format", "#"),
        ({"const": True}, "const", "#"),
        ({"enum": ["a", None]}, "enum", "#"),
        ({"allOf": [OBJECT, OBJECT]}, "allOf", "#"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf", "#"),
        ({"$defs": {"a": OBJECT}, "$ref": "#/$defs/a", "type": "object"}, "$ref", "#"),
        ({"$ref": "#/$defs/missing"}, "$ref", "#"),
        ({"$ref": "https://example.org/schema"}, "$ref", "#"),
        ({"not": {"type": "string"}}, "not", "#"),
        (
            {
                "$defs": {
                    "a": {"type": "object", "properties": {"b": {"$ref": "#/$defs/a"}}, "required": ["b"]}
                },
                "$ref": "#/$defs/a",
            },
            "$ref",
            "properties/b",
        ),
    ],
)
def test_keyword_that_is_not_kept_to_is_refused_with_its_place(schema: Any, keyword: str, place: str) -> None:
    with pytest.raises(UnsupportedError, match=re.escape(f"honour the keyword {keyword!r}")) as caught:
        GeminiLLM(model="m", structured_output={"format": "json", "schema": schema})
    assert place in str(caught.value)


def test_recursion_that_is_required_is_found_behind_one_that_is_not() -> None:
    back = {"type": "object", "properties": {"q": {"$ref": "#/$defs/A"}}, "required": ["q"]}
    a = {
        "type": "object",
        "properties": {"p": {"$ref": "#/$defs/B"}, "r": {"$ref": "#/$defs/B"}},
        "required": ["r"],
    }
    with pytest.raises(UnsupportedError, match="through required properties alone"):
        kept({"$ref": "#/$defs/A", "$defs": {"A": a, "B": back}}, "G")
    a["required"] = []
    assert kept({"$ref": "#/$defs/A", "$defs": {"A": a, "B": back}}, "G")["$defs"]["A"] == a


def test_constant_null_leaves_no_other_type() -> None:
    for schema in ({"type": ["string", "null"], "const": None}, {"const": None, "type": ["string", "null"]}):
        assert kept(schema, "G") == {"type": "null"}


def test_enum_of_nothing_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="'enum' at #/properties/a of the JSON schema: it is empty"):
        kept({"type": "object", "properties": {"a": {"enum": []}}}, "G")


def test_recursion_through_a_property_that_may_be_left_out_is_sent() -> None:
    assert kept(Part.model_json_schema(), "G")["$ref"] == "#/$defs/Part"


@pytest.mark.parametrize("form", [{"format": "choice", "schema": ["a"]}, {"format": "regex", "schema": "a"}])
def test_other_formats_are_refused_with_what_to_ask_for(form: Any) -> None:
    with pytest.raises(UnsupportedError) as caught:
        GeminiLLM(model="m", structured_output=form)
    assert "enum" in caught.value.hint


def test_answer_that_violates_the_schema_is_asked_for_again(make: Any, server: Any) -> None:
    server.script = [Reply(body=answer('{"a": "x"}')), Reply(body=answer('{"a": 1}'))]
    (output,) = make().generate_outputs([(CHAT, {"format": "json", "schema": OBJECT})])
    assert output["generations"] == ['{"a": 1}']
    assert output["statistics"]["output_tokens"] == [6]
    assert len(server.requests[1].body["contents"]) == 3


def test_tools_beside_a_form_are_refused_where_the_model_refuses_them(make: Any, server: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    form = {"format": "json", "schema": OBJECT}
    for model in ("gemini-2.5-flash", "gemini-2.0-flash", "gemini-1.5-pro"):
        with pytest.raises((UnsupportedError, GenerationError), match="does not support tools together with"):
            make(model=model).generate_outputs([(CHAT, form)], tools=[tool])
    assert server.requests == []
    server.script = [Reply(body=answer({"functionCall": {"name": "f", "args": {}}}))]
    (output,) = make(model="gemini-3-flash").generate_outputs([(CHAT, form)], tools=[tool])
    assert output["finish_reasons"] == ["tool_calls"]
    refusal = {
        "code": 400,
        "message": "Function calling with a response mime type: 'application/json' is unsupported",
        "status": "INVALID_ARGUMENT",
    }
    server.script = [Reply(400, {"error": refusal})]
    with pytest.raises(GenerationError, match="is unsupported") as caught:
        make(model="some-alias").generate_outputs([(CHAT, form)], tools=[tool])
    assert (caught.value.kind, caught.value.attempts) == ("invalid_request", 1)


def test_form_of_another_format_is_named() -> None:
    with pytest.raises(UnsupportedError, match="G has no structured output of the format regex"):
        generation_config_of({"format": "regex", "schema": "a"}, "G")
