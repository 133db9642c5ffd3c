"""From a structured output to the API's `responseJsonSchema`.

The API takes any JSON schema, and keeps to a part of it: other keywords are ignored without an error. They
are refused here, or rewritten where another keyword says exactly the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stillhouse import StructuredOutput, UnsupportedError
from stillhouse.structured import check_schema

__all__ = ["KEYWORDS", "generation_config_of", "kept"]

KEYWORDS = frozenset(
    {
        "$ref", "additionalProperties", "allOf", "anyOf", "const", "enum", "exclusiveMaximum",
        "exclusiveMinimum", "format", "items", "maxItems", "maximum", "minItems", "minimum", "oneOf",
        "prefixItems", "properties", "required", "type",
    }
)  # fmt: skip
"""The keywords that the API keeps to, and those that can be rewritten to them in a part of their uses; see
https://ai.google.dev/api/generate-content#FIELDS.response_json_schema."""

FORMATS = frozenset({"date", "date-time", "time"})
"""The formats that the API keeps to; see
https://ai.google.dev/gemini-api/docs/structured-output#json_schema_support."""

_DESCRIBING = ("title", "description")
_AS_THEY_ARE = ("type", "required", "minItems", "maxItems", "minimum", "maximum")


def generation_config_of(structured_output: StructuredOutput, llm: str) -> dict[str, Any]:
    """Return the fields of `generationConfig` for a structured output.

    Raises:
        UnsupportedError: the API cannot hold an answer to it exactly; it says which keyword.
    """
    if structured_output["format"] != "json":
        raise UnsupportedError(
            f"{llm} has no structured output of the format {structured_output['format']}",
            hint='ask for JSON; a choice is {"type": "string", "enum": […]}, whose answer is in quotes',
        )
    schema = structured_output["schema"]
    check_schema(schema, KEYWORDS, llm)
    return {"responseMimeType": "application/json", "responseJsonSchema": kept(schema, llm)}


def kept(schema: dict[str, Any], llm: str) -> dict[str, Any]:
    """Return a schema in which the API keeps to every keyword, and which means the same.

    Raises:
        UnsupportedError: there is none.
    """
    return _Rewriting(schema, llm).run()


class _Rewriting:
    def __init__(self, root: dict[str, Any], llm: str) -> None:
        self._root = root
        self._llm = llm
        self._options = 0  # how many properties that may be left out lead to where we are
        self._open: dict[str, int] = {}  # the references being followed, and how many options led to each
        self._definitions: dict[str, Any] = {}
        self._references: dict[str, str] = {}  # the definitions' names, and what they were referred to as

    def run(self) -> dict[str, Any]:
        made = self._schema(self._root, "#")
        return {**made, "$defs": self._definitions} if self._definitions else made

    def _refuse(self, keyword: str, path: str, why: str, hint: str) -> UnsupportedError:
        return UnsupportedError(
            f"{self._llm} cannot honour the keyword {keyword!r} at {path} of the JSON schema: {why}",
            hint=hint,
        )

    def _schema(self, schema: Any, path: str) -> dict[str, Any]:
        if not isinstance(schema, dict):
            where, _, keyword = path.rpartition("/")
            raise self._refuse(keyword, where, f"{schema!r} is no object", "name a type")
        asked = schema.keys() & KEYWORDS
        described = {key: schema[key] for key in _DESCRIBING if isinstance(schema.get(key), str)}
        if "$ref" in asked:
            if asked != {"$ref"}:
                raise self._refuse("$ref", path, "others stand beside it", "move them to its definition")
            return {"$ref": self._reference(schema["$ref"], path)}
        if "allOf" in asked:  # a list of one is how some libraries write a reference with a description
            if asked != {"allOf"} or len(schema["allOf"]) != 1:
                raise self._refuse("allOf", path, "more than one must hold", "merge them into one schema")
            inner = self._schema(schema["allOf"][0], f"{path}/allOf/0")
            return inner if "$ref" in inner else {**inner, **described}
        made = dict(described)
        for key in schema:  # in the given order, which is that of the properties in the answer
            if key in asked:
                self._keyword(key, schema, made, path)
        return made

    def _keyword(self, key: str, schema: dict[str, Any], made: dict[str, Any], path: str) -> None:
        value, here = schema[key], f"{path}/{key}"
        if key in _AS_THEY_ARE:
            made.setdefault(key, value)
        elif key in ("anyOf", "oneOf"):
            if key == "oneOf" and not _are_disjoint([self._resolved(branch) for branch in value]):
                raise self._refuse(key, path, "more than one branch may hold", "use anyOf")
            if "anyOf" in made:
                raise self._refuse(key, path, "anyOf stands beside it", "keep one of them")
            made["anyOf"] = [self._schema(item, f"{here}/{place}") for place, item in enumerate(value)]
        elif key == "prefixItems":
            made[key] = [self._schema(item, f"{here}/{place}") for place, item in enumerate(value)]
        elif key == "properties":
            made[key] = self._properties(schema, here)
        elif key == "items" or (key == "additionalProperties" and not isinstance(value, bool)):
            made[key] = self._schema(value, here)
        elif key == "additionalProperties":
            made[key] = value
        elif key in ("enum", "const"):
            self._enum(key, schema, made, path)
        elif key == "format":
            if value not in FORMATS:
                raise self._refuse(key, path, f"{value!r} is none that is kept to", "check it yourself")
            made[key] = value
        else:
            self._exclusive(key, schema, made, path)

    def _properties(self, schema: dict[str, Any], here: str) -> dict[str, Any]:
        required, made = schema.get("required", ()), {}
        for name, item in schema["properties"].items():
            optional = int(name not in required)
            self._options += optional
            made[name] = self._schema(item, f"{here}/{name}")
            self._options -= optional
        return made

    def _enum(self, key: str, schema: dict[str, Any], made: dict[str, Any], path: str) -> None:
        """The API knows an `enum` of texts or of numbers; a constant is one with one item."""
        values = [schema[key]] if key == "const" else schema[key]
        if key == "const" and schema[key] is None:
            made.setdefault("type", "null")
            return
        if not (all(isinstance(item, str) for item in values) or all(map(_is_number, values))):
            raise self._refuse(
                key, path, "it has something else than texts, or than numbers", "use anyOf, or a type"
            )
        if "enum" in made:
            raise self._refuse(key, path, "enum stands beside it", "keep one of them")
        made["enum"] = values
        if "type" not in schema:
            is_text, is_whole = isinstance(values[0], str), all(isinstance(item, int) for item in values)
            made["type"] = "string" if is_text else "integer" if is_whole else "number"

    def _exclusive(self, key: str, schema: dict[str, Any], made: dict[str, Any], path: str) -> None:
        """Rewrite a bound that is not included itself, which has a neighbour among the whole numbers."""
        value, name = schema[key], "minimum" if key == "exclusiveMinimum" else "maximum"
        if schema.get("type") != "integer" or not _is_number(value) or value != int(value):
            raise self._refuse(key, path, "only whole numbers have such a bound", f"use {name}")
        bound = int(value) + (1 if name == "minimum" else -1)
        given = schema.get(name, bound)
        made[name] = max(bound, given) if name == "minimum" else min(bound, given)

    def _reference(self, reference: Any, path: str) -> str:
        """Return the reference to the rewritten definition."""
        if reference in self._open:
            if self._options == self._open[reference]:
                raise self._refuse(
                    "$ref", path, "it leads back to itself, and through required properties alone",
                    "make one of the properties on the way one that may be left out",
                )  # fmt: skip
            return f"#/$defs/{_definition_name(reference)}"
        name = _definition_name(reference)
        if name is None:
            raise self._refuse("$ref", path, f"{reference!r} is no definition of the schema", "use $defs")
        if self._references.setdefault(name, reference) != reference:
            raise self._refuse("$ref", path, f"there are two definitions {name!r}", "rename one of them")
        if name not in self._definitions:
            target = self._resolved({"$ref": reference})
            if target is None:
                raise self._refuse("$ref", path, f"{reference!r} is not there", "add it to $defs")
            with self._following(reference):
                self._definitions[name] = self._schema(target, reference)
        return f"#/$defs/{name}"

    @contextmanager
    def _following(self, reference: str) -> Iterator[None]:
        self._open[reference] = self._options
        yield
        del self._open[reference]

    def _resolved(self, schema: Any) -> Any:
        """Return the definition that a schema refers to, or the schema itself."""
        if not isinstance(schema, dict) or "$ref" not in schema:
            return schema
        name = _definition_name(schema["$ref"])
        for group in ("$defs", "definitions"):
            if schema["$ref"] == f"#/{group}/{name}":
                return self._root.get(group, {}).get(name)
        return None


def _definition_name(reference: Any) -> str | None:
    match = re.fullmatch(r"#/(?:\$defs|definitions)/([^/]+)", str(reference))
    return match[1] if match else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_disjoint(branches: list[Any]) -> bool:
    """Return whether no value fits two branches, by their types or by a property that differs."""
    if not all(isinstance(branch, dict) for branch in branches):
        return False
    types = [branch.get("type") for branch in branches]
    if all(isinstance(item, str) for item in types) and len(set(types)) == len(types):
        return not {"integer", "number"} <= set(types)
    marks = [dict(_marks(branch)) for branch in branches]
    shared = set.intersection(*(set(mark) for mark in marks)) if marks else set()
    return any(len({mark[name] for mark in marks}) == len(marks) for name in shared)


def _marks(branch: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the properties that an object must have with one value only, and that value."""
    for name in branch.get("required", ()) if branch.get("type") == "object" else ():
        item = branch.get("properties", {}).get(name)
        if isinstance(item, dict) and isinstance(item.get("const"), str):
            yield name, item["const"]
