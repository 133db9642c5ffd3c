"""What a guide says to an engine, and what it holds an answer to."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

import pydantic
import pytest

from stillhouse import ConfigurationError, GenerationError, UnsupportedError
from stillhouse.local import Guide, guide_for


def json_guide(**schema: Any) -> Guide:
    return guide_for({"format": "json", "schema": schema})


def kind_of(guide: Guide, text: str, finish_reason: str = "stop") -> str:
    try:
        guide.check(text, finish_reason)
    except GenerationError as error:
        return error.kind if error.hint else "without a hint"
    return ""


def test_a_json_schema_keeps_its_order_and_its_own_dict() -> None:
    schema = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "integer"}}}
    before = json.dumps(schema)
    guide = guide_for({"format": "json", "schema": schema})
    assert json.dumps(schema) == before
    body = json.loads(guide.body.removeprefix("%json "))
    assert list(body["properties"]) == ["b", "a"]
    assert body["x-guidance"] == {"whitespace_flexible": False}


def test_whitespace_pattern_is_passed_to_the_grammar() -> None:
    guide = guide_for({"format": "json", "schema": {"type": "object"}, "whitespace_pattern": " ?"})
    assert json.loads(guide.body.removeprefix("%json "))["x-guidance"] == {"whitespace_pattern": " ?"}


def test_equal_structured_outputs_share_a_guide() -> None:
    class Person(pydantic.BaseModel):
        name: str

    by_class = guide_for({"format": "json", "schema": Person})
    assert by_class is guide_for({"schema": json.dumps(Person.model_json_schema())})
    assert by_class is not guide_for({"format": "json", "schema": {"type": "object"}})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "uniqueItems": True},
        {"type": "object", "properties": {"a": {"not": {"type": "string"}}}},
        {"type": "string", "nullable": True},
        {"type": "string", "x-unknown": 1},
        {"$defs": {"a": {"contains": {"type": "string"}}}, "$ref": "#/$defs/a"},
        {"type": "string", "x-guidance": {"lenient": True}},
    ],
    ids=["uniqueItems", "not", "nullable", "x-unknown", "contains", "x-guidance"],
)
def test_a_keyword_that_is_not_enforced_is_named(schema: dict[str, Any], request: Any) -> None:
    keyword = request.node.callspec.id
    with pytest.raises(UnsupportedError, match=f"'{keyword}'"):
        guide_for({"format": "json", "schema": schema})


def test_a_schema_that_is_not_valid_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not valid at #/properties/a/minimum"):
        json_guide(properties={"a": {"minimum": "1"}})


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('{"n":1}', ""),
        ('{"n":1', "schema"),
        ("", "schema"),
        ('{"n":"1"}', "schema"),
        ('{"n":1,"m":2}', "schema"),
        ('{"n":10}', "schema"),
    ],
)
def test_json_answers_are_held_to_the_schema(text: str, kind: str) -> None:
    guide = json_guide(
        type="object",
        properties={"n": {"type": "integer", "maximum": 9}},
        required=["n"],
        additionalProperties=False,
    )
    assert kind_of(guide, text) == kind
    assert kind_of(guide, text, "length") == (kind and "truncated")


def test_multiple_of_is_checked_in_decimal_arithmetic() -> None:
    guide = json_guide(type="number", multipleOf=0.1)
    assert [kind_of(guide, text) for text in ("0.3", "7", "0.35")] == ["", "", "schema"]


def test_a_reference_to_another_document_is_not_fetched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        guide = guide_for({"schema": {"$ref": f"http://127.0.0.1:{server.getsockname()[1]}/s.json"}})
        assert kind_of(guide, "1") == "schema"
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize(
    ("pattern", "body"),
    [
        (r"a/b", r"/a\/b/"),
        (r"a\/b", r"/a\/b/"),
        (r"a\\/b", r"/a\\\/b/"),
        ("a\nb\\\nc", r"/a\nb\nc/"),
        (r"\d[\d.]\\d\D", r"/[0-9][0-9.]\\d\D/"),
    ],
)
def test_a_pattern_is_written_for_the_grammar(pattern: str, body: str) -> None:
    assert guide_for({"format": "regex", "schema": pattern}).body == body


def test_a_whole_answer_matches_the_pattern() -> None:
    guide = guide_for({"format": "regex", "schema": re.compile("ab+")})
    assert [kind_of(guide, text) for text in ("abb", "abc", "xab")] == ["", "schema", "schema"]
    assert kind_of(guide, "a", "length") == "truncated"


def test_an_answer_is_one_of_the_choices() -> None:
    guide = guide_for({"format": "choice", "schema": ["yes", 'a "b"\n/😀']})
    assert guide.grammar.endswith('start: "yes" | "a \\"b\\"\\n/\\ud83d\\ude00"')
    assert [kind_of(guide, text) for text in ("yes", 'a "b"\n/😀', "ye")] == ["", "", "schema"]
