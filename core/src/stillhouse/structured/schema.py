"""Checking that a backend honours every keyword of a JSON schema."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from stillhouse.errors import UnsupportedError

__all__ = ["check_schema"]

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
    for path, keyword in _keywords(schema, "#"):
        if keyword not in supported:
            raise UnsupportedError(
                f"{llm} cannot honour the keyword {keyword!r} at {path} of the JSON schema",
                hint="remove the keyword, and check its meaning in the answers yourself",
            )


def _keywords(schema: Any, path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        if key not in _ANNOTATIONS and key not in ("$defs", "definitions"):
            yield path, key
        here = f"{path}/{key}"
        if key in _SCHEMA or (key == "items" and isinstance(value, dict)):
            yield from _keywords(value, here)
        elif key in _SCHEMA_LIST or (key == "items" and isinstance(value, list)):
            for position, item in enumerate(value):
                yield from _keywords(item, f"{here}/{position}")
        elif key in _SCHEMA_DICT and isinstance(value, dict):
            for name, item in value.items():
                yield from _keywords(item, f"{here}/{name}")
