"""JSON schemas as the API holds the model to them; see https://docs.cohere.com/docs/structured-outputs."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from stillhouse.structured import SchemaRewriter

__all__ = ["narrowed"]

_DESCRIPTIONS = ("title", "description")
_OWN = {
    "array": {"items"},
    "object": {"additionalProperties", "properties", "required"},
    "string": {"format", "pattern"},
}
"""The keywords that say something of values of one type only."""

_PYTHON: dict[str, tuple[type, ...]] = {
    "boolean": (bool,),
    "integer": (int, float),
    "null": (type(None),),
    "number": (int, float),
    "string": (str,),
}

_ESCAPED = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]", re.DOTALL)
"""What stands for itself in a pattern: an escaped character, and a class of characters."""

_UNKNOWN_IN_PATTERN = re.compile(r"[\^$]|\(\?<?[=!]|\(\?P=")
_UNKNOWN_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\[1-9AbBzZ]")


def narrowed(schema: dict[str, Any], llm: str) -> dict[str, Any]:
    """A schema as the API takes it: an object at the root, and in every object a property that is required.

    It is as narrow as the one given or narrower, so that every answer also validates against that.

    Raises:
        UnsupportedError: the API would not hold an answer to it; it says what, and where.
    """
    return _Narrowing(_with_root(schema), llm).run()


class _Narrowing(SchemaRewriter):
    keywords: ClassVar[frozenset[str]] = frozenset(
        {
            "$ref", "additionalProperties", "allOf", "anyOf", "const", "enum", "format", "items", "oneOf",
            "pattern", "properties", "required", "type",
        }
    )  # fmt: skip
    formats: ClassVar[frozenset[str]] = frozenset({"date", "date-time", "time", "uuid"})

    def schema(self, schema: Any, path: str) -> dict[str, Any]:
        types = schema.get("type") if isinstance(schema, dict) else None
        if not isinstance(types, list):
            return super().schema(schema, path)
        if len(types) == 1:
            return super().schema({**schema, "type": types[0]}, path)
        described = {key: schema[key] for key in _DESCRIPTIONS if key in schema}
        branches = [self.schema(_of_type(schema, name), path) for name in types]
        return {**described, "anyOf": branches}

    def keyword(self, key: str, schema: dict[str, Any], made: dict[str, Any], path: str) -> None:
        value = schema[key]
        if key in ("const", "enum") and any(
            isinstance(item, (dict, list)) for item in ([value] if key == "const" else value)
        ):
            raise self.refusal(key, path, "it has an object or a list", "describe it by properties or items")
        if key == "pattern" and (
            _UNKNOWN_IN_PATTERN.search(_ESCAPED.sub("", value)) or _UNKNOWN_ESCAPE.search(value)
        ):
            why = "it has ^, $, a lookaround, a word boundary or a reference back"
            raise self.refusal(key, path, why, "write it without")
        if key == "additionalProperties":
            self._others(value, path)
        if key != "required" and not (key in ("items", "additionalProperties") and value in (True, {})):
            super().keyword(key, schema, made, path)

    def _others(self, value: Any, path: str) -> None:
        kept_to = {"const", "enum", "format", "items", "pattern", "type"}
        if isinstance(value, dict) and value.keys() & self.keywords - kept_to:
            raise self.refusal(
                "additionalProperties", path, "it is more than a simple type", "name the properties"
            )

    def finish(self, schema: dict[str, Any], made: dict[str, Any], path: str) -> None:
        if not made.keys() & {"anyOf", "const", "enum", "properties", "type"}:
            raise self.refusal("type", path, "it is missing, and any value would do", "name a type")
        is_object = made.get("type", "object" if "properties" in made else None) == "object"
        if is_object:
            self._object(schema, made, path)
        elif path == "#":
            raise self.refusal(
                "type", path, "the answer must be an object", "put the schema into a property of an object"
            )

    def _object(self, schema: dict[str, Any], made: dict[str, Any], path: str) -> None:
        properties, required = made.get("properties"), list(schema.get("required", ()))
        if not properties:
            raise self.refusal("type", path, "an object needs a required property", "name the properties")
        for name in required:
            if name not in properties:
                raise self.refusal("required", path, f"{name!r} is no property", "add it to properties")
        # What refers to a definition may contain itself, and must be allowed to end.
        simple = [name for name, item in properties.items() if "$ref" not in item]
        made["type"] = "object"
        made["required"] = required or simple or list(properties)

    def recursion(self, reference: str, path: str) -> None:
        if "$ref" in (self.resolved({"$ref": reference}) or {}):  # it says nothing else
            super().recursion(reference, path)


def _with_root(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema whose root is no reference, as pydantic writes one for a model that contains itself."""
    definitions: dict[str, Any] = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    seen: list[Any] = []
    while isinstance(schema, dict) and "$ref" in schema and schema["$ref"] not in seen:
        seen.append(schema["$ref"])
        _, group, name = (*str(schema["$ref"]).split("/"), "", "")[:3]
        found = definitions.get(group, {}).get(name)
        if not isinstance(found, dict):
            return schema  # which says so
        schema = {**found, **definitions}
    return schema


def _of_type(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """What a schema says of values of one of its types."""
    dropped = {*_DESCRIPTIONS, *(key for kind, keys in _OWN.items() if kind != name for key in keys)}
    kept = {key: value for key, value in schema.items() if key not in dropped}
    kept["type"] = name
    if "enum" in kept:
        kept["enum"] = [item for item in kept["enum"] if type(item) in _PYTHON.get(name, ())]
    return kept
