"""JSON schemas as strict mode takes them.

Strict mode takes a part of JSON Schema, and that in one way: an object has the properties that are
named, all of them, and no others. A schema is rewritten to a narrower one in that form, so that
every answer also validates against the schema that was given, or it is refused.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from stillhouse import UnsupportedError
from stillhouse.structured import check_schema

__all__ = ["FORMATS", "KEYWORDS", "check_object", "strict"]

KEYWORDS = frozenset(
    {
        "$ref", "additionalProperties", "anyOf", "const", "enum", "exclusiveMaximum", "exclusiveMinimum",
        "format", "items", "maxItems", "maximum", "minItems", "minimum", "multipleOf", "pattern",
        "properties", "required", "type",
    }
)  # fmt: skip
"""The keywords that strict mode keeps to; see
https://platform.openai.com/docs/guides/structured-outputs#supported-schemas."""

FORMATS = frozenset({"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"})
"""The formats that strict mode keeps to; same source."""

_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
_TELLING = ("type", "anyOf", "$ref")


def strict(schema: dict[str, Any], llm: str, keywords: Collection[str] = KEYWORDS) -> dict[str, Any]:
    """A schema as strict mode takes it, narrower than the one given.

    Args:
        schema: the schema; it is left alone.
        llm: the name of the LLM, for the message.
        keywords: the keywords that the provider keeps to.

    Raises:
        UnsupportedError: the API cannot hold an answer to it exactly; it says what, and where.
    """
    check_schema(schema, keywords, llm)
    narrower = _Narrower(schema, llm)
    for name in ("$defs", "definitions"):
        narrower.definitions(schema.get(name), name)
    root: Any = schema
    seen: set[str] = set()
    while "$ref" in root:  # as pydantic writes a model that contains itself; the root must be an object
        if root["$ref"] in seen:
            raise narrower.refusal("$ref", "#", "it leads to itself", "correct the reference")
        seen.add(root["$ref"])
        root = narrower.merged(root, "#")
    if "object" not in _types(root):
        raise narrower.refusal(
            "type", "#", "the answer must be an object", "put the schema into a property of an object"
        )
    narrow = narrower.schema({key: item for key, item in root.items() if key not in _DEFINITIONS}, "#")
    return {**narrow, "type": "object", **narrower.narrowed}


_DEFINITIONS = ("$defs", "definitions")


def check_object(schema: dict[str, Any], llm: str) -> None:
    """Check a schema for an API that gives JSON objects and nothing else.

    Raises:
        UnsupportedError: an answer is something else.
    """
    if "type" in schema and "object" not in _types(schema):
        raise UnsupportedError(
            f"{llm} cannot honour the keyword 'type' at # of the JSON schema: the answer must be an object",
            hint="put the schema into a property of an object",
        )


def _types(schema: dict[str, Any]) -> list[str]:
    given = schema.get("type", "object" if "properties" in schema else [])
    return [given] if isinstance(given, str) else list(given)


class _Narrower:
    def __init__(self, root: dict[str, Any], llm: str) -> None:
        self._root = root
        self._llm = llm
        self.narrowed: dict[str, Any] = {}

    def refusal(self, keyword: str, path: str, why: str, hint: str) -> UnsupportedError:
        return UnsupportedError(
            f"{self._llm} cannot honour the keyword {keyword!r} at {path} of the JSON schema: {why}",
            hint=hint,
        )

    def definitions(self, found: Any, name: str) -> None:
        if isinstance(found, dict):
            self.narrowed[name] = {key: self.schema(item, f"#/{name}/{key}") for key, item in found.items()}

    def merged(self, schema: dict[str, Any], path: str) -> dict[str, Any]:
        """What a reference leads to, with the keywords beside it, which strict mode does not take."""
        beside = {key: item for key, item in schema.items() if key not in ("$ref", *_DEFINITIONS)}
        target = self._resolve(schema["$ref"], path)
        for key in beside.keys() & target.keys():
            if beside[key] != target[key] and key not in ("title", "description", "default", "examples"):
                raise self.refusal(key, path, "it also stands where $ref leads", "write it in one place")
        return {**target, **beside}

    def _resolve(self, reference: Any, path: str) -> dict[str, Any]:
        found: Any = self._root
        steps = str(reference).split("/")
        if steps[0] == "#":
            for step in steps[1:]:
                name = step.replace("~1", "/").replace("~0", "~")
                found = found.get(name) if isinstance(found, dict) else None
            if isinstance(found, dict):
                return {key: item for key, item in found.items() if key not in _DEFINITIONS}
        raise self.refusal("$ref", path, f"{reference!r} leads nowhere", "correct the reference")

    def schema(self, given: Any, path: str) -> dict[str, Any]:
        if not isinstance(given, dict):
            raise UnsupportedError(
                f"{self._llm} cannot honour the schema {given!r} at {path}",
                hint="write it as a dict with a type",
            )
        if "$ref" in given:
            self._resolve(given["$ref"], path)
            if all(key in ("$ref", "title", "default", "examples") for key in given):
                return {"$ref": given["$ref"]}
            given = self.merged(given, path)
            if "$ref" in given:
                return {"$ref": given["$ref"]}
        narrow: dict[str, Any] = {}
        for key, value in given.items():
            here = f"{path}/{key}"
            if key == "properties":
                narrow[key] = {name: self.schema(item, f"{here}/{name}") for name, item in value.items()}
            elif key == "anyOf":
                narrow[key] = [self.schema(item, f"{here}/{place}") for place, item in enumerate(value)]
            elif key == "items":
                narrow[key] = self.schema(value, here)
            elif key == "format" and value not in FORMATS:
                raise self.refusal(key, path, f"{value!r} is not one of its formats", "use a pattern instead")
            elif key in KEYWORDS or key in ("title", "description"):
                narrow[key] = value
        self._type(narrow, path)
        if "object" in _types(narrow):
            self._object(given, narrow, path)
        return narrow

    def _type(self, narrow: dict[str, Any], path: str) -> None:
        """Every schema says a type; that of fixed values is theirs."""
        if any(key in narrow for key in _TELLING):
            return
        if "properties" in narrow:
            narrow["type"] = "object"
            return
        values = narrow.get("enum", [narrow["const"]] if "const" in narrow else [])
        types = sorted({_TYPES.get(type(value), "") for value in values})
        if not types or "" in types:
            raise UnsupportedError(
                f"{self._llm} cannot honour a schema that takes any value, at {path}",
                hint="write its type, such as string",
            )
        narrow["type"] = types[0] if len(types) == 1 else types

    def _object(self, given: dict[str, Any], narrow: dict[str, Any], path: str) -> None:
        properties = narrow.get("properties")
        if given.get("additionalProperties") not in (None, False):
            raise self.refusal(
                "additionalProperties",
                path,
                "an answer has the properties that are named and no others",
                "name the properties, or use a list of pairs",
            )
        if properties is None:
            raise self.refusal(
                "type", path, "an object without properties is always empty", "name the properties"
            )
        for name in given.get("required", ()):
            if name not in properties:
                raise self.refusal(
                    "required", path, f"{name!r} is not among the properties", "add the property"
                )
        narrow["additionalProperties"] = False
        narrow["required"] = list(properties)
