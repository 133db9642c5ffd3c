"""What strict mode takes: schemas narrowed to it, and those that it cannot hold an answer to."""

from __future__ import annotations

import copy
from typing import Any, Literal

import pytest
from jsonschema import Draft202012Validator
from pydantic import BaseModel, Field

from stillhouse import UnsupportedError
from stillhouse_openai import AzureOpenAILLM, ClientvLLM, OpenAILLM
from stillhouse_openai.schemas import strict

TEXT = {"type": "string"}


def narrowed(**schema: Any) -> dict[str, Any]:
    before = copy.deepcopy(schema)
    result = strict(schema, "X")
    assert schema == before, "the schema that was given was changed"
    return result


def test_every_object_has_its_properties_and_no_others() -> None:
    inner = {"type": "object", "properties": {"b": TEXT, "c": TEXT}, "required": ["b"]}
    result = narrowed(
        type="object",
        properties={
            "one": inner,
            "many": {"type": "array", "items": inner, "minItems": 1},
            "either": {"anyOf": [inner, {"type": "null"}]},
        },
    )
    exact = {**inner, "required": ["b", "c"], "additionalProperties": False}
    assert result == {
        "type": "object",
        "properties": {
            "one": exact,
            "many": {"type": "array", "items": exact, "minItems": 1},
            "either": {"anyOf": [exact, {"type": "null"}]},
        },
        "required": ["one", "many", "either"],
        "additionalProperties": False,
    }


class Leaf(BaseModel):
    kind: Literal["leaf"]
    weight: float = Field(default=1.0, ge=0, description="in grams")


class Tree(BaseModel):
    """A tree."""

    name: str | None = None
    shade: Literal["light", 3] = "light"
    first: Leaf = Field(description="the first leaf")
    leaves: list[Leaf] = []
    trees: list[Tree] = []


def test_strict_schema_of_a_recursive_model() -> None:
    given = Tree.model_json_schema()
    result = strict(given, "X")
    assert "$ref" not in result, "the root must be an object itself"
    assert result["required"] == ["name", "shade", "first", "leaves", "trees"]
    assert result["$defs"]["Leaf"]["required"] == ["kind", "weight"]
    assert result["properties"]["trees"]["items"] == {"$ref": "#/$defs/Tree"}
    # A reference stands alone in strict mode; what stood beside it is kept.
    assert result["properties"]["first"]["description"] == "the first leaf"
    assert result["properties"]["first"]["properties"].keys() == {"kind", "weight"}
    assert result["properties"]["shade"]["type"] == ["integer", "string"]
    assert "default" not in str(result)
    leaf = {"kind": "leaf", "weight": 2}
    answer = {"name": None, "shade": 3, "first": leaf, "leaves": [leaf], "trees": []}
    for schema in (result, given):
        assert Draft202012Validator(schema).is_valid({**answer, "trees": [answer]})
    assert Draft202012Validator(given).is_valid({"first": leaf})
    assert not Draft202012Validator(result).is_valid({"first": leaf})


def test_references_of_every_kind_are_followed() -> None:
    text = {"type": "string"}
    result = narrowed(
        type="object",
        properties={
            "a": {"$ref": "#/$defs/A"}, "b": {"$ref": "#/definitions/A"}, "c": {"$ref": "#/$defs/A%20B~1C"},
            "d": {"$ref": "#/properties/e/anyOf/0"}, "e": {"anyOf": [text, {"$ref": "#"}]},
            "f": {"type": "object", "properties": {"x": {"$ref": "#/properties/f/$defs/X"}}, "$defs": {"X": text}},
        },
        **{"$defs": {"A": text, "A B/C": {"enum": [1]}}, "definitions": {"A": {"type": "null"}}},
    )  # fmt: skip
    assert "definitions" not in result
    valid = Draft202012Validator(result).is_valid
    answer: dict[str, Any] = {"a": "", "b": None, "c": 1, "d": "", "e": "", "f": {"x": ""}}
    assert valid(answer)
    assert valid({**answer, "e": answer})
    for name, odd in (("a", None), ("b", ""), ("c", 2), ("d", 1), ("e", 1), ("f", {"x": 1})):
        assert not valid({**answer, name: odd}), name


def test_a_described_reference_ends_where_it_began() -> None:
    beside = {"$ref": "#/$defs/T", "description": "the next one"}
    both = {"anyOf": [beside, {"type": "null"}]}
    result = narrowed(**beside, **{"$defs": {"T": obj(a=both, b=both)}})
    assert Draft202012Validator(result).is_valid({"a": {"a": None, "b": None}, "b": None})
    levels = {f"L{at}": obj(a={**beside, "$ref": f"#/$defs/L{at + 1}"}, b={**beside, "$ref": f"#/$defs/L{at + 1}"})
              for at in range(40)}  # fmt: skip
    assert len(str(narrowed(**{"$ref": "#/$defs/L0", "$defs": {**levels, "L40": obj(c=TEXT)}}))) < 10**6
    deep: dict[str, Any] = TEXT
    for _ in range(3000):
        deep = {"type": "array", "items": deep}
    with pytest.raises(UnsupportedError, match="nested too deeply"):
        strict(obj(a=deep), "X")


def obj(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


REFUSED = {
    "allOf": (obj(a={"allOf": [TEXT]}), "'allOf' at #/properties/a"),
    "oneOf": (obj(a={"type": "array", "items": {"oneOf": [TEXT]}}), "'oneOf' at #/properties/a/items"),
    "not": (obj(a={"not": TEXT}), "'not' at #/properties/a"),
    "in $defs": ({**obj(a={"$ref": "#/$defs/A"}), "$defs": {"A": {"type": "string", "minLength": 2}}}, "'minLength' at #/$defs/A"),
    "other properties": ({"type": "object", "additionalProperties": TEXT}, "'additionalProperties' at #"),
    "properties unnamed": (obj(a={"type": ["object", "null"]}), "at #/properties/a"),
    "required unnamed": ({**obj(a=TEXT), "required": ["b"]}, "'required' at #"),
    "no object": ({"type": "array", "items": TEXT}, "the answer must be an object"),
    "anyOf at the root": ({"anyOf": [obj(a=TEXT)]}, "the answer must be an object"),
    "anything": (obj(a={}), "any value, at #/properties/a"),
    "true": (obj(a=True), "at #/properties/a"),
    "format": (obj(a={"type": "string", "format": "uri"}), "'format' at #/properties/a of the JSON schema: 'uri'"),
    "no such reference": (obj(a={"$ref": "#/$defs/A"}), "'$ref' at #/properties/a"),
    "elsewhere": (obj(a={"$ref": "https://example.com/a.json"}), "'$ref' at #/properties/a"),
    "circular": ({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}, "it leads to itself"),
}  # fmt: skip


@pytest.mark.parametrize(("schema", "message"), REFUSED.values(), ids=REFUSED)
def test_unsupported_schema_is_refused_on_assignment(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        OpenAILLM(model="m", structured_output={"format": "json", "schema": schema})
    assert message in caught.value.message
    assert caught.value.hint
    llm = OpenAILLM(model="m")
    with pytest.raises(UnsupportedError, match="OpenAILLM"):
        llm.structured_output = {"format": "json", "schema": schema}
    with pytest.raises(UnsupportedError, match="OpenAILLM"):
        llm.check_input(([{"role": "user", "content": "x"}], {"format": "json", "schema": schema}))


def test_other_formats_and_broken_schemas_are_refused() -> None:
    for form in ({"format": "regex", "schema": "a+"}, {"format": "choice", "schema": ["a"]}):
        with pytest.raises(UnsupportedError, match="no structured output of the format"):
            OpenAILLM(model="m", structured_output=form)
        assert ClientvLLM(model="m", structured_output=form).structured_output == form
    with pytest.raises(ValueError, match="not valid at #/properties/a/type"):
        OpenAILLM(model="m", structured_output={"format": "json", "schema": obj(a={"type": "text"})})


def test_supported_schema_keywords_differ_by_provider() -> None:
    pattern = {"format": "json", "schema": obj(a={"type": "string", "pattern": "^a$"})}
    length = {"format": "json", "schema": obj(a={"type": "string", "minLength": 2})}
    OpenAILLM(model="m", structured_output=pattern)
    with pytest.raises(UnsupportedError, match="'pattern' at #/properties/a"):
        AzureOpenAILLM(model="m", structured_output=pattern)
    llm = ClientvLLM(model="m", structured_output=length)
    assert llm._prepare_structured_output(length) == {"structured_outputs": {"json": length["schema"]}}


def test_the_name_of_the_format_is_one_that_the_api_takes() -> None:
    schema = {**obj(a=TEXT), "title": "Größe of a leaf, in mm" + "!" * 80}
    fields = OpenAILLM(model="m")._prepare_structured_output({"format": "json", "schema": schema})
    name = fields["response_format"]["json_schema"]["name"]
    assert name.startswith("Gr__e_of_a_leaf__in_mm_")
    assert len(name) == 64
