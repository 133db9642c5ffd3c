"""Schemas as providers take them: a provider says what it keeps to, and the rest is one mechanism."""

from __future__ import annotations

import copy
import itertools
from typing import Any, ClassVar

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse import ConfigurationError, UnsupportedError
from stillhouse.structured import SchemaRewriter, closed_schema
from stillhouse.structured.answers import answer_problem

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
        ({"items": False}, "items", "#"),
        ({"properties": {"a": {"items": [{"type": "string"}]}}}, "items", "#/properties/a"),
        ({"properties": {"a": {"required": True}}}, "required", "#/properties/a"),
        ({"properties": 3}, "properties", "#"),
        ({"properties": {"a": {"type": [{"type": "string"}]}}}, "type", "#/properties/a"),
        ({"prefixItems": 3}, "prefixItems", "#"),
        ({"anyOf": {"type": "string"}}, "anyOf", "#"),
        ({"format": ["date"]}, "format", "#"),
        ({"$ref": 3}, "$ref", "#"),
        ({"$ref": "#/$defs/A", "$defs": ["A"]}, "$ref", "#"),
        ({"oneOf": [{"type": "object", "properties": 3}, {"type": "object"}]}, "oneOf", "#"),
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


def test_schema_that_is_no_object_is_refused_with_its_place() -> None:
    for schema, path in [
        ({"properties": {"a": True}}, "#/properties/a"),
        ({"anyOf": [{"type": "string"}, False]}, "#/anyOf/1"),
        ({"$ref": "#/$defs/A", "$defs": {"A": True}}, "#/$defs/A"),
        ({"anyOf": [["a" * 1000]]}, "#/anyOf/0"),
    ]:
        with pytest.raises(UnsupportedError) as caught:
            Plain(schema, "MyLLM").run()
        assert f"MyLLM cannot honour the JSON schema at {path}: " in str(caught.value)
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("a/b", "#/$defs/a~1b"),
        ("a~b", "#/$defs/a~0b"),
        ("~1", "#/$defs/~01"),
        ("a b", "#/$defs/a%20b"),
        ("100%", "#/$defs/100%25"),
        ("Page[Item]", "#/$defs/Page[Item]"),
        ("Brücke", "#/$defs/Br%C3%BCcke"),
    ],
)
def test_references_are_read_as_json_pointers_and_written_without_escapes(name: str, reference: str) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": reference}, "b": {"$ref": f"#/$defs/{name.translate(ESCAPES)}"}},
        "$defs": {name: {"type": "string"}, "other": {"type": "null"}},
    }
    made = Plain(schema, "MyLLM").run()
    assert len(made["$defs"]) == 1, "both references are to one definition"
    (sent,) = made["$defs"]
    assert {item["$ref"] for item in made["properties"].values()} == {f"#/$defs/{sent}"}
    assert not set(sent) & set("/~% []")
    for validated in (schema, made):
        assert jsonschema.Draft202012Validator(validated).is_valid({"a": "x", "b": "x"})
        assert not jsonschema.Draft202012Validator(validated).is_valid({"a": None})


ESCAPES = {ord("~"): "~0", ord("/"): "~1", ord("%"): "%25", ord(" "): "%20"}


def test_definitions_of_two_groups_and_names_that_become_one_stay_apart() -> None:
    schema = {
        "type": "array",
        "prefixItems": [{"$ref": f"#/{place}"} for place in ("$defs/a b", "$defs/a_b", "definitions/a_b")],
        "$defs": {"a b": {"type": "string"}, "a_b": {"type": "null"}},
        "definitions": {"a_b": {"type": "integer"}},
    }
    made = Plain(schema, "MyLLM").run()
    assert list(made["$defs"].values()) == [{"type": "string"}, {"type": "null"}, {"type": "integer"}]
    jsonschema.validate(["x", None, 1], made)


def test_recursion_is_the_providers_to_allow() -> None:
    assert Recursive(TREE, "MyLLM").run() == TREE


class Guarded(Plain):
    """Lets a recursion be that leads through a list."""

    def __init__(self, schema: dict[str, Any], llm: str) -> None:
        super().__init__(schema, llm)
        self._lists = 0

    def keyword(self, key: str, schema: dict[str, Any], made: dict[str, Any], path: str) -> None:
        self._lists += key == "items"
        super().keyword(key, schema, made, path)
        self._lists -= key == "items"

    def is_bound(self) -> bool:
        return not self._lists


def test_recursion_is_found_whichever_way_it_is_come_upon_first() -> None:
    direct, listed = {"$ref": "#/$defs/B"}, {"type": "array", "items": {"$ref": "#/$defs/B"}}
    for first, second in [(direct, listed), (listed, direct)]:
        schema = {
            "$ref": "#/$defs/A",
            "$defs": {
                "A": {"type": "object", "properties": {"first": first, "second": second}},
                "B": {"type": "object", "properties": {"back": {"$ref": "#/$defs/A"}}},
            },
        }
        with pytest.raises(UnsupportedError, match="leads back to itself"):
            Guarded(schema, "MyLLM").run()
        schema["$defs"]["A"]["properties"] = {"first": listed, "second": listed}
        assert Guarded(schema, "MyLLM").run() == schema


def test_definition_that_many_refer_to_is_no_recursion() -> None:
    leaf = {"$ref": "#/$defs/Leaf"}
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/Pair"}, "b": leaf, "c": {"$ref": "#/$defs/Pair"}},
        "$defs": {
            "Pair": {"type": "object", "properties": {"a": leaf, "b": leaf}},
            "Leaf": {"type": "string"},
        },
    }
    assert Plain(schema, "MyLLM").run() == schema


def test_long_chain_of_definitions_is_written() -> None:
    names = [f"d{number}" for number in range(3000)]
    schema = {
        "$ref": "#/$defs/d0",
        "$defs": {
            name: {"type": "object", "properties": {"next": {"$ref": f"#/$defs/{after}"}}}
            for name, after in itertools.pairwise(names)
        }
        | {names[-1]: {"type": "string"}},
    }
    assert Plain(schema, "MyLLM").run() == schema


def test_schema_that_is_nested_too_deeply_is_refused() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(2000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(UnsupportedError, match="nested too deeply"):
        Plain(schema, "MyLLM").run()
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        answer_problem({"format": "json", "schema": schema})


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


@pytest.mark.parametrize(
    ("branches", "are_disjoint"),
    [
        ([{"const": "a"}, {"enum": ["b", "c"]}], True),
        ([{"const": "a"}, {"enum": ["b", "a"]}], False),
        ([{"const": "a"}, {"const": 1}], False),
        ([{"const": "a"}, {"type": "string"}], False),
        ([["a", "b"], ["c"]], True),
        ([["a", "b"], ["b"]], False),
    ],
)
def test_one_of_is_told_apart_by_constants_and_by_enums(branches: list[Any], are_disjoint: bool) -> None:
    schemas = [
        {"type": "object", "properties": {"kind": {"enum": branch}}, "required": ["kind"]}
        if isinstance(branch, list)
        else branch
        for branch in branches
    ]
    if are_disjoint:
        assert len(closed_schema({"oneOf": schemas}, "MyLLM")["anyOf"]) == 2
    else:
        with pytest.raises(UnsupportedError, match="more than one branch may hold"):
            closed_schema({"oneOf": schemas}, "MyLLM")


@pytest.mark.parametrize(
    "beside",
    [
        {"type": "object"},
        {"type": ["object", "null"]},
        {"properties": {"a": {"type": "string"}}},
        {"required": ["b"]},
        {"additionalProperties": False},
    ],
)
def test_branches_beside_keywords_of_an_object_are_refused_where_objects_are_closed(beside: Any) -> None:
    branch = {"type": "object", "properties": {"b": {"type": "string"}}, "required": ["b"]}
    with pytest.raises(UnsupportedError, match="'anyOf' at #/items of") as caught:
        closed_schema({"type": "array", "items": {"anyOf": [branch], **beside}}, "MyLLM")
    assert "branches" in caught.value.hint


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
