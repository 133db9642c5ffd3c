"""Schemas as providers take them: a provider says what it keeps to, and the rest is one mechanism."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse import UnsupportedError
from stillhouse.structured import SchemaRewriter, closed_schema

TREE: dict[str, Any] = {
    "$ref": "#/$defs/Node",
    "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}},
}


class Plain(SchemaRewriter):
    keywords: ClassVar[frozenset[str]] = frozenset(
        {
            "$ref",
            "allOf",
            "anyOf",
            "format",
            "items",
            "oneOf",
            "prefixItems",
            "properties",
            "required",
            "type",
        }
    )
    formats: ClassVar[frozenset[str]] = frozenset({"date"})


class Recursive(Plain):
    def recursion(self, reference: str, path: str) -> None:
        pass


def test_references_lead_to_rewritten_definitions_wherever_they_stood() -> None:
    item = {"title": "Item", "type": "object", "properties": {"a": {"allOf": [{"type": "string"}]}}}
    for group in ("$defs", "definitions"):
        schema = {
            "type": "array",
            "items": {"$ref": f"#/{group}/Item"},
            group: {"Item": item, "Other": {"type": "null"}},
        }
        before = copy.deepcopy(schema)
        made = Plain(schema, "MyLLM").run()
        assert made == {
            "type": "array",
            "items": {"$ref": "#/$defs/Item"},
            "$defs": {"Item": {"title": "Item", "type": "object", "properties": {"a": {"type": "string"}}}},
        }
        assert schema == before


@pytest.mark.parametrize(
    ("schema", "keyword", "path"),
    [
        ({"type": "string", "minLength": 3}, "minLength", "#"),
        ({"properties": {"a": {"pattern": "x"}}}, "pattern", "#/properties/a"),
        ({"properties": {"a": True}}, "a", "#/properties"),
        ({"type": "string", "format": "uuid"}, "format", "#"),
        ({"allOf": [{"type": "string"}, {"type": "object"}]}, "allOf", "#"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf", "#"),
        ({"anyOf": [{"type": "null"}], "oneOf": [{"type": "null"}, {"type": "string"}]}, "oneOf", "#"),
        ({"$ref": "#/$defs/Absent"}, "$ref", "#"),
        ({"$ref": "https://a.test/schema"}, "$ref", "#"),
        ({"$ref": "#/$defs/A", "type": "object", "$defs": {"A": {"type": "object"}}}, "$ref", "#"),
        (TREE, "$ref", "#/$defs/Node/properties/next"),
    ],
)
def test_keyword_that_is_not_kept_to_is_refused_with_its_place(
    schema: dict[str, Any], keyword: str, path: str
) -> None:
    with pytest.raises(UnsupportedError) as caught:
        Plain(schema, "MyLLM").run()
    assert f"MyLLM cannot honour the keyword {keyword!r} at {path} of the JSON schema" in str(caught.value)
    assert caught.value.hint


def test_recursion_is_the_providers_to_allow() -> None:
    assert Recursive(TREE, "MyLLM").run() == TREE


def test_one_of_becomes_any_of_where_its_branches_exclude_each_other() -> None:
    marked = [
        {"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"]}
        for kind in ("a", "b")
    ]
    made = closed_schema({"type": "object", "properties": {"x": {"oneOf": marked}}}, "MyLLM")
    assert [branch["properties"] for branch in made["properties"]["x"]["anyOf"]] == [
        {"kind": {"const": "a"}},
        {"kind": {"const": "b"}},
    ]


LEAVES: Any = st.sampled_from([{"type": "string"}, {"type": "integer"}, {"enum": ["a", 1]}, {"const": None}])
SCHEMAS: Any = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(lambda item: {"type": "array", "items": item}, inner)
        | st.builds(
            lambda items, needed: {"type": "object", "properties": items, "required": sorted(items)[:needed]},
            st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            st.integers(0, 3),
        )
        | st.builds(lambda items: {"anyOf": items}, st.lists(inner, min_size=1, max_size=2))
        | st.builds(lambda item: {"allOf": [item]}, inner)
    ),
    max_leaves=8,
)
VALUES: Any = st.recursive(
    st.none() | st.integers() | st.sampled_from(["a", "b"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=6,
)


@given(SCHEMAS, VALUES)
@settings(derandomize=True, max_examples=300)
def test_what_fits_the_rewritten_schema_fits_the_given_one(schema: dict[str, Any], value: Any) -> None:
    made = closed_schema(schema, "MyLLM")
    if jsonschema.Draft202012Validator(made).is_valid(value):
        jsonschema.validate(value, schema)
