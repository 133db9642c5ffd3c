"""`closed_schema`: a JSON schema as Claude's constrained decoding takes it, with every object closed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from stillhouse.errors import UnsupportedError
from stillhouse.structured.schema import check_schema

__all__ = ["closed_schema"]

KEYWORDS = frozenset(
    {
        "$ref", "additionalProperties", "allOf", "anyOf", "const", "enum", "format", "items", "minItems",
        "oneOf", "pattern", "properties", "required", "type",
    }
)  # fmt: skip
"""The keywords that constrained decoding keeps to, some of them in part; see
https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations."""

FORMATS = frozenset(
    {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"}
)

_UNSUPPORTED_PATTERN = re.compile(r"\(\?[=!<]|\\[1-9bB]|\(\?P=")
"""Lookaround, references back and word boundaries, which need more than a finite automaton."""

_ANNOTATIONS = frozenset({"title", "description"})


def closed_schema(schema: dict[str, Any], llm: str) -> dict[str, Any]:
    """Return a JSON schema in which no object has other properties than those that are named.

    It is as narrow as the one given or narrower, so that every answer also validates against that. Claude's
    constrained decoding takes no other, wherever the model is asked.

    Args:
        schema: the JSON schema; it is left alone.
        llm: the name of the LLM, for the message.

    Raises:
        UnsupportedError: a keyword, or its value, is none that is kept to; it says which, and where.
    """
    check_schema(schema, KEYWORDS, llm)
    return _Narrowing(schema, llm).run()


class _Narrowing:
    def __init__(self, root: dict[str, Any], llm: str) -> None:
        self._root = root
        self._llm = llm
        self._open: list[str] = []  # the references being followed
        self._definitions: dict[str, Any] = {}
        self._references: dict[str, str] = {}  # the definitions' names, and what they were referred to as

    def run(self) -> dict[str, Any]:
        narrow = self._schema(self._root, "#")
        if self._definitions:
            narrow["$defs"] = self._definitions
        return narrow

    def _refuse(self, keyword: str, path: str, why: str, hint: str) -> UnsupportedError:
        return UnsupportedError(
            f"{self._llm} cannot honour the keyword {keyword!r} at {path} of the JSON schema: {why}",
            hint=hint,
        )

    def _schema(self, schema: Any, path: str) -> dict[str, Any]:
        if not isinstance(schema, dict):
            raise self._refuse(
                path.rpartition("/")[2], path.rpartition("/")[0], f"{schema!r} is no object", "name a type"
            )
        asked = schema.keys() & KEYWORDS
        described = {key: schema[key] for key in _ANNOTATIONS & schema.keys()}
        if "$ref" in asked:
            if asked != {"$ref"}:
                raise self._refuse("$ref", path, "others stand beside it", "move them to its definition")
            return {"$ref": self._reference(schema["$ref"], path)}
        if "allOf" in asked:
            return self._all_of(schema, asked, described, path)
        if not asked & {"anyOf", "oneOf", "const", "enum", "type", "properties"}:
            raise self._refuse("type", path, "it is missing, and anything would do", "name a type")
        narrow = dict(described)
        for key in schema:  # in the given order, which is that of the properties in the answer
            if key in asked:
                self._keyword(key, schema, narrow, path)
        if "properties" in asked or "object" in _types(schema):
            self._object(schema, narrow, path)
        return narrow

    def _keyword(self, key: str, schema: dict[str, Any], narrow: dict[str, Any], path: str) -> None:
        value, here = schema[key], f"{path}/{key}"
        if key in ("anyOf", "oneOf"):
            if key == "oneOf" and not _are_disjoint([self._resolved(branch) for branch in value]):
                raise self._refuse(key, path, "more than one branch may hold", "use anyOf")
            if "anyOf" in narrow:
                raise self._refuse(key, path, "anyOf stands beside it", "keep one of them")
            narrow["anyOf"] = [
                self._schema(branch, f"{here}/{position}") for position, branch in enumerate(value)
            ]
        elif key == "properties":
            narrow[key] = {name: self._schema(item, f"{here}/{name}") for name, item in value.items()}
        elif key == "items":
            narrow[key] = self._schema(value, here)
        elif key == "enum" and not all(_is_primitive(item) for item in value):
            raise self._refuse(key, path, "it has objects or lists", "use anyOf")
        elif key == "const" and not _is_primitive(value):
            raise self._refuse(key, path, "it is an object or a list", "describe it with properties or items")
        elif key == "minItems" and value not in (0, 1):
            raise self._refuse(key, path, f"it is {value}, and only 0 and 1 are kept to", "check it yourself")
        elif key == "format" and value not in FORMATS:
            raise self._refuse(key, path, f"{value!r} is none that is kept to", "use a pattern")
        elif key == "pattern" and _UNSUPPORTED_PATTERN.search(value):
            raise self._refuse(
                key, path, "it has a lookaround, a reference back or a word boundary", "write it without"
            )
        elif key != "additionalProperties":
            narrow[key] = value

    def _object(self, schema: dict[str, Any], narrow: dict[str, Any], path: str) -> None:
        if schema.get("additionalProperties") not in (None, False):
            raise self._refuse(
                "additionalProperties", path, "it is not false", "name the properties, or use a list of pairs"
            )
        unnamed = [name for name in schema.get("required", ()) if name not in schema.get("properties", ())]
        if unnamed:
            raise self._refuse("required", path, f"{unnamed[0]!r} is no property", "add it to properties")
        narrow.setdefault("type", "object")
        narrow["additionalProperties"] = False

    def _all_of(
        self, schema: dict[str, Any], asked: set[str], described: dict[str, Any], path: str
    ) -> dict[str, Any]:
        """A list of one is how some libraries write a reference with a description."""
        if asked != {"allOf"} or len(schema["allOf"]) != 1:
            raise self._refuse("allOf", path, "more than one must hold", "merge them into one schema")
        inner = self._schema(schema["allOf"][0], f"{path}/allOf/0")
        return inner if "$ref" in inner else {**inner, **described}

    def _reference(self, reference: Any, path: str) -> str:
        """The reference to the narrowed definition."""
        if reference in self._open:
            raise self._refuse(
                "$ref", path, "it leads back to itself", "spell out as many levels as you need"
            )
        name = _definition_name(reference)
        if name is None:
            raise self._refuse("$ref", path, f"{reference!r} is no definition of the schema", "use $defs")
        if self._references.setdefault(name, reference) != reference:
            raise self._refuse("$ref", path, f"there are two definitions {name!r}", "rename one of them")
        if name not in self._definitions:
            target = self._resolved({"$ref": reference})
            if target is None:
                raise self._refuse("$ref", path, f"{reference!r} is not there", "add it to $defs")
            self._open.append(reference)
            self._definitions[name] = self._schema(target, reference)
            self._open.pop()
        return f"#/$defs/{name}"

    def _resolved(self, schema: Any) -> Any:
        """The definition that a schema refers to, or the schema itself."""
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


def _types(schema: dict[str, Any]) -> list[Any]:
    types = schema.get("type")
    return types if isinstance(types, list) else [types]


def _is_primitive(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


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
    """The properties that an object must have with one value only, and that value."""
    if branch.get("type") != "object":
        return
    for name in branch.get("required", ()):
        item = branch.get("properties", {}).get(name)
        if isinstance(item, dict) and isinstance(item.get("const"), str):
            yield name, item["const"]
