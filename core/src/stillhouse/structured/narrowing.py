"""`closed_schema`: a JSON schema as Claude's constrained decoding takes it, with every object closed."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from stillhouse.structured.rewriting import SchemaRewriter

__all__ = ["closed_schema"]

_UNSUPPORTED_PATTERN = re.compile(r"\(\?[=!<]|\\[1-9bB]|\(\?P=")
"""Lookaround, references back and word boundaries, which need more than a finite automaton."""


def closed_schema(schema: dict[str, Any], llm: str) -> dict[str, Any]:
    """Return a JSON schema in which objects allow no properties other than the named ones.

    It is equally narrow or narrower, so that every answer also validates against the given schema. Claude's
    constrained decoding requires this, through whichever API the model is used.

    Args:
        schema: the JSON schema; it is not changed.
        llm: the name of the LLM, for the message.

    Raises:
        UnsupportedError: a keyword or its value is not enforced; the message names it and its place.
    """
    return _Closing(schema, llm).run()


class _Closing(SchemaRewriter):
    """See https://platform.claude.com/docs/en/build-with-claude/structured-outputs#json-schema-limitations."""

    keywords: ClassVar[frozenset[str]] = frozenset(
        {
            "$ref", "additionalProperties", "allOf", "anyOf", "const", "enum", "format", "items", "minItems",
            "oneOf", "pattern", "properties", "required", "type",
        }
    )  # fmt: skip
    formats: ClassVar[frozenset[str]] = frozenset(
        {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"}
    )

    def keyword(self, key: str, schema: dict[str, Any], made: dict[str, Any], path: str) -> None:
        value = schema[key]
        if key == "enum" and not all(_is_primitive(item) for item in value):
            raise self.refusal(key, path, "it has objects or lists", "use anyOf")
        if key == "const" and not _is_primitive(value):
            raise self.refusal(key, path, "it is an object or a list", "describe it with properties or items")
        if key == "minItems" and value not in (0, 1):
            raise self.refusal(key, path, f"it is {value}, and only 0 and 1 are kept to", "check it yourself")
        if key == "pattern" and _UNSUPPORTED_PATTERN.search(value):
            raise self.refusal(
                key, path, "it has a lookaround, a reference back or a word boundary", "write it without"
            )
        if key != "additionalProperties":
            super().keyword(key, schema, made, path)

    def finish(self, schema: dict[str, Any], made: dict[str, Any], path: str) -> None:
        if not made.keys() & {"anyOf", "const", "enum", "type", "properties"}:
            raise self.refusal("type", path, "it is missing, and anything would do", "name a type")
        types = schema.get("type")
        names = schema.keys() & {"additionalProperties", "properties", "required"}
        if not names and "object" not in (types if isinstance(types, list) else [types]):
            return
        if schema.get("additionalProperties") not in (None, False):
            raise self.refusal(
                "additionalProperties", path, "it is not false", "name the properties, or use a list of pairs"
            )
        if "anyOf" in made:  # an object that is closed on its own takes nothing that a branch names
            raise self.refusal(
                "oneOf" if "oneOf" in schema else "anyOf",
                path,
                "keywords of objects stand beside it",
                "move them into its branches",
            )
        unnamed = [name for name in schema.get("required", ()) if name not in schema.get("properties", ())]
        if unnamed:
            raise self.refusal("required", path, f"{unnamed[0]!r} is no property", "add it to properties")
        made.setdefault("type", "object")
        made["additionalProperties"] = False


def _is_primitive(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)
