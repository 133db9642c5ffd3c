"""Checking that a backend honours every keyword of a JSON schema."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from stillhouse.errors import UnsupportedError

__all__ = ["check_schema", "subschemas"]

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


def check_schema(schema: dict[str, Any], supported: Collection[str], llm: str) -> None:
    """Reject a JSON schema with a keyword that a backend would not honour exactly.

    Keywords that only describe (`title`, `default`, …) are always allowed.

    Args:
        schema: the JSON schema.
        supported: the keywords that the backend honours.
        llm: who refuses, for the message.

    Raises:
        UnsupportedError: it names the keyword and where it stands.
    """
    for path, inner in subschemas(schema):
        for keyword in inner:
            if keyword not in supported and keyword not in _NOT_ASKING:
                raise UnsupportedError(
                    f"{llm} cannot honour the keyword {keyword!r} at {path} of the JSON schema",
                    hint="remove the keyword, and check its meaning in the answers yourself",
                )


def subschemas(schema: Any, path: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Return a JSON schema and every schema in it, its definitions included, each with where it stands.

    It is for a backend whose provider honours a keyword in some places only.
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
