"""JSON schemas as strict mode takes them.

Strict mode takes a part of JSON Schema, and that in one way: an object has the properties that are
named, all of them, and no others. A schema is rewritten to a narrower one in that form, so that
every answer also validates against the schema that was given, or it is refused.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar
from urllib.parse import unquote

from stillhouse import UnsupportedError
from stillhouse.structured import SchemaRewriter

__all__ = ["FORMATS", "KEYWORDS", "check_object", "response_format", "strict"]

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
_DEFINITIONS = ("$defs", "definitions")
_ANNOTATIONS = ("title", "description", "default", "examples")

_MAX_INLINED = 1000
"""How many references may be replaced by what they lead to, only to keep a description."""


def strict(schema: dict[str, Any], llm: str, keywords: Collection[str] = KEYWORDS) -> dict[str, Any]:
    """A schema as strict mode takes it, narrower than the one given.

    Args:
        schema: the schema; it is left alone.
        llm: the name of the LLM, for the message.
        keywords: the keywords that the provider keeps to.

    Raises:
        UnsupportedError: the API cannot hold an answer to it exactly; it says what, and where.
    """
    return _Strict(schema, llm, keywords).run()


def response_format(schema: dict[str, Any], llm: str, keywords: Collection[str] = KEYWORDS) -> dict[str, Any]:
    """Return the fields of a request that hold its answer to a schema; arguments and errors as `strict`."""
    title = str(schema.get("title") or "answer")
    name = "".join(item if item.isascii() and item.isalnum() else "_" for item in title)[:64]
    wanted = {"name": name, "schema": strict(schema, llm, keywords), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": wanted}}


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


class _Strict(SchemaRewriter):
    keywords: ClassVar[frozenset[str]] = KEYWORDS
    formats: ClassVar[frozenset[str]] = FORMATS

    def __init__(self, schema: dict[str, Any], llm: str, keywords: Collection[str]) -> None:
        super().__init__(schema, llm)
        self.keywords = frozenset(keywords)  # type: ignore[misc]  # those of a provider
        self._given = schema
        self._inlined: list[str] = []  # the references whose targets are being written in their place
        self._count = 0  # of those that were

    def schema(self, schema: Any, path: str) -> dict[str, Any]:
        if path == "#":
            return self._root_object(schema)
        if not isinstance(schema, dict) or "$ref" not in schema:
            return super().schema(schema, path)
        reference = schema["$ref"]
        is_alone = all(key in ("$ref", "title", "default", "examples") for key in schema)
        target = self._target(reference, path)
        if reference == "#" and is_alone:
            return {"$ref": "#"}
        if reference.count("/") == 2 and reference.split("/")[1] in _DEFINITIONS:
            is_described = all(key == "$ref" or key in _ANNOTATIONS for key in schema)
            is_too_much = reference in self._inlined or self._count >= _MAX_INLINED
            if is_alone or (is_described and is_too_much):
                return super().schema({"$ref": reference}, path)
        if reference in self._inlined:
            raise self.refusal(
                "$ref", path, "it leads back to itself", "move it to $defs, and refer to it alone"
            )
        # A reference stands alone in strict mode, and leads to a definition.
        self._count += 1
        self._inlined.append(reference)
        made = self.schema(self._merged(schema, target, path), path)
        self._inlined.pop()
        return made

    def keyword(self, key: str, schema: dict[str, Any], made: dict[str, Any], path: str) -> None:
        if key == "additionalProperties" and isinstance(schema[key], dict):
            raise self._other_properties(path)
        super().keyword(key, schema, made, path)

    def finish(self, schema: dict[str, Any], made: dict[str, Any], path: str) -> None:
        self._type(made, path)
        if "object" in _types(made):
            self._object(made, path)

    def recursion(self, reference: str, path: str) -> None:
        """Let it be: strict mode has it."""

    def _root_object(self, root: dict[str, Any]) -> dict[str, Any]:
        """The root must be an object, also where it refers to one, as pydantic writes a recursive model."""
        seen: set[str] = set()
        while "$ref" in root:
            if root["$ref"] in seen:
                raise self.refusal("$ref", "#", "it leads to itself", "correct the reference")
            seen.add(root["$ref"])
            root = self._merged(root, self._target(root["$ref"], "#"), "#")
        if "object" not in _types(root):
            raise self.refusal(
                "type", "#", "the answer must be an object", "put the schema into a property of an object"
            )
        return {**super().schema(root, "#"), "type": "object"}

    def _merged(self, schema: dict[str, Any], target: dict[str, Any], path: str) -> dict[str, Any]:
        """What a reference leads to, with the keywords that stand beside it."""
        beside = {key: item for key, item in schema.items() if key not in ("$ref", *_DEFINITIONS)}
        for key in beside.keys() & target.keys():
            if beside[key] != target[key] and key not in _ANNOTATIONS:
                raise self.refusal(key, path, "it also stands where $ref leads", "write it in one place")
        return {**{key: item for key, item in target.items() if key not in _DEFINITIONS}, **beside}

    def _target(self, reference: Any, path: str) -> dict[str, Any]:
        """What a reference leads to, which is a JSON pointer into the schema."""
        start, *steps = str(reference).split("/")
        found: Any = self._given if start == "#" else None
        for step in steps:
            name = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list):
                found = found[int(name)] if name.isdecimal() and int(name) < len(found) else None
            else:
                found = found.get(name) if isinstance(found, dict) else None
        if not isinstance(found, dict):
            raise self.refusal("$ref", path, f"{reference!r} leads nowhere", "correct the reference")
        return found

    def _type(self, made: dict[str, Any], path: str) -> None:
        """Every schema says a type; that of fixed values is theirs."""
        if any(key in made for key in _TELLING):
            return
        if "properties" in made:
            made["type"] = "object"
            return
        values = made.get("enum", [made["const"]] if "const" in made else [])
        types = sorted({_TYPES.get(type(value), "") for value in values})
        if not types or "" in types:
            raise UnsupportedError(
                f"{self._llm} cannot honour a schema that accepts any value, at {path}",
                hint="add a type, such as string",
            )
        made["type"] = types[0] if len(types) == 1 else types

    def _object(self, made: dict[str, Any], path: str) -> None:
        properties = made.get("properties")
        if made.get("additionalProperties"):
            raise self._other_properties(path)
        if properties is None:
            raise self.refusal(
                "type", path, "an object without properties is always empty", "name the properties"
            )
        for name in made.get("required", ()):
            if name not in properties:
                raise self.refusal(
                    "required", path, f"{name!r} is not among the properties", "add the property"
                )
        made["additionalProperties"] = False
        made["required"] = list(properties)

    def _other_properties(self, path: str) -> UnsupportedError:
        return self.refusal(
            "additionalProperties",
            path,
            "an answer has the properties that are named and no others",
            "name the properties, or use a list of pairs",
        )
