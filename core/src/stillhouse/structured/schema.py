"""Checking that a backend honours every keyword of a JSON schema."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from stillhouse.errors import UnsupportedError
from stillhouse.typing import StructuredOutput

__all__ = ["are_texts", "check_schema", "has_right_type", "is_too_deep", "json_schema_of", "subschemas"]

# Where a JSON schema holds further schemas: directly, in a list, or as the values of a dict.
_SCHEMA = {
    "additionalItems", "additionalProperties", "contains", "else", "if", "not", "propertyNames",
    "then", "unevaluatedItems", "unevaluatedProperties",
}  # fmt: skip
_SCHEMA_LIST = {"allOf", "anyOf", "oneOf", "prefixItems"}
_SCHEMA_DICT = {"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"}

# These describe, and ask nothing of a value.
_ANNOTATIONS = {
    "$anchor", "$comment", "$id", "$schema", "$vocabulary", "default", "deprecated", "description",
    "discriminator", "examples", "readOnly", "title", "writeOnly",
}  # fmt: skip
_NOT_ASKING = _ANNOTATIONS | {"$defs", "definitions"}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def are_texts(value: Any) -> bool:
    """Return whether a value is a list of texts."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_IS_RIGHT: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("allOf", "anyOf", "enum", "oneOf", "prefixItems"), _is_list),
    **dict.fromkeys(("$ref", "format", "pattern"), _is_text),
    **dict.fromkeys(
        (
            "exclusiveMaximum", "exclusiveMinimum", "maxItems", "maxLength", "maxProperties", "maximum",
            "minItems", "minLength", "minProperties", "minimum", "multipleOf",
        ),
        _is_number,
    ),
    "properties": lambda value: isinstance(value, dict),
    "required": are_texts,
    "type": lambda value: isinstance(value, str) or are_texts(value),
    "uniqueItems": lambda value: isinstance(value, bool),
}  # fmt: skip


def has_right_type(keyword: str, value: Any) -> bool:
    """Return whether a keyword has a value of the type that JSON Schema 2020-12 gives it.

    An older dialect gives some of them another, or does not know the keyword and takes anything.
    """
    check = _IS_RIGHT.get(keyword)
    return check is None or check(value)


MAX_DEPTH = 500
"""How many levels of objects and lists a JSON schema may have."""


def json_schema_of(
    structured_output: StructuredOutput,
    llm: str,
    hint: str = "ask for JSON: an object with a property that has an enum for choices, or a pattern",
) -> Any:
    """Return the JSON schema of a structured output, for a backend whose API supports no other format.

    Args:
        structured_output: the normalised structured output.
        llm: the name of the LLM, for the message.
        hint: how to request a choice or a pattern instead.

    Raises:
        UnsupportedError: the format is a regex or a choice.
    """
    if structured_output["format"] != "json":
        raise UnsupportedError(
            f"{llm} has no structured output of the format {structured_output['format']}", hint=hint
        )
    return structured_output["schema"]


def check_schema(schema: dict[str, Any], supported: Collection[str], llm: str) -> None:
    """Reject a JSON schema with a keyword that a backend does not enforce exactly.

    Keywords that only describe (`title`, `default`, …) are always allowed.

    Args:
        schema: the JSON schema.
        supported: the keywords that the backend enforces.
        llm: the name of the LLM, for the message.

    Raises:
        UnsupportedError: the message names the keyword and its place.
    """
    for path, inner in subschemas(schema):
        for keyword in inner:
            if keyword not in supported and keyword not in _NOT_ASKING:
                raise UnsupportedError(
                    f"{llm} cannot honour the keyword {keyword!r} at {path} of the JSON schema",
                    hint="remove the keyword, and check its meaning in the answers yourself",
                )


def is_too_deep(schema: Any) -> bool:
    """Return whether a JSON schema has more than `MAX_DEPTH` levels of objects and lists.

    Functions that walk through a schema recurse at each level, and the interpreter's limit may be nearly
    reached already.
    """
    level = [schema] if isinstance(schema, (dict, list)) else []
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for item in level
            for inner in (item.values() if isinstance(item, dict) else item)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def subschemas(schema: Any, path: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Return a JSON schema and every schema in it, definitions included, each with its place.

    Use it for a provider that enforces a keyword only in some places.
    """
    if not isinstance(schema, dict):
        return
    yield path, schema
    for key, value in schema.items():
        here = f"{path}/{key}"
        if key in _SCHEMA or (key == "items" and isinstance(value, dict)):
            yield from subschemas(value, here)
        elif (key in _SCHEMA_LIST or key == "items") and isinstance(value, list):
            for position, item in enumerate(value):
                yield from subschemas(item, f"{here}/{position}")
        elif key in _SCHEMA_DICT and isinstance(value, dict):
            for name, item in value.items():
                yield from subschemas(item, f"{here}/{name}")
