"""Whether an answer has the form that was asked for.

The API holds the model to it, but an answer that is cut off has another form, and a server that only
speaks the API may not hold the model to anything.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from stillhouse import GenerateOutput, GenerationError

__all__ = ["check_conformity", "violation"]

_TYPES: dict[str, type | tuple[type, ...]] = {
    "array": list,
    "boolean": bool,
    "null": type(None),
    "object": dict,
    "string": str,
}


def check_conformity(output: GenerateOutput, schema: dict[str, Any]) -> None:
    """Refuse an output whose generation does not validate.

    What the provider refused to answer, and an answer that only calls tools, are left as they are.

    Args:
        output: an output with one generation.
        schema: a schema as `narrowed` makes it.

    Raises:
        GenerationError: of the kind `truncated` if the answer is cut off, else of the kind `schema`;
            its `outputs` has the output.
    """
    reason, text = output["finish_reasons"][0], output["generations"][0]
    if reason == "content_filter" or (text is None and reason == "tool_calls"):
        return
    if reason in ("length", "pause_turn"):
        raise GenerationError(
            "the answer is cut off, so that it is no whole JSON value",
            kind="truncated",
            hint="raise max_new_tokens, or ask for a shorter answer",
            outputs=[output],
        )
    try:
        problem = violation(orjson.loads(text or ""), schema)
    except orjson.JSONDecodeError as error:
        problem = f"it is not valid JSON: {error}" if text else "it is empty"
    if problem:
        raise GenerationError(
            f"the answer does not validate against the JSON schema: {problem}",
            kind="schema",
            hint="try again, or choose a model that has structured output",
            outputs=[output],
        )


def violation(value: Any, schema: dict[str, Any]) -> str:
    """What is wrong with a value, and where, or an empty string.

    It knows the keywords that `narrowed` lets through. A `format` describes, as in the standard.
    """
    return _violation(value, schema, schema.get("$defs", {}), "#")


def _violation(value: Any, schema: dict[str, Any], definitions: dict[str, Any], path: str) -> str:
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
        return _violation(value, schema, definitions, path)
    expected = schema.get("type")
    if expected is not None:
        names = expected if isinstance(expected, list) else [expected]
        if not any(_has_type(value, name) for name in names):
            return f"{path} is not of the type {' or '.join(names)}"
    if "const" in schema and not _equal(value, schema["const"]):
        return f"{path} is not {schema['const']!r}"
    if "enum" in schema and not any(_equal(value, item) for item in schema["enum"]):
        return f"{path} is none of {schema['enum']}"
    branches = schema.get("anyOf")
    if branches is not None and all(_violation(value, item, definitions, path) for item in branches):
        return f"{path} fits none of the branches of anyOf"
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        return f"{path} does not match {schema['pattern']!r}"
    if isinstance(value, list):
        return _list_violation(value, schema, definitions, path)
    if isinstance(value, dict):
        return _object_violation(value, schema, definitions, path)
    return ""


def _list_violation(value: list[Any], schema: dict[str, Any], definitions: dict[str, Any], path: str) -> str:
    if len(value) < schema.get("minItems", 0):
        return f"{path} has fewer than {schema['minItems']} items"
    if "items" in schema:
        for position, item in enumerate(value):
            problem = _violation(item, schema["items"], definitions, f"{path}/{position}")
            if problem:
                return problem
    return ""


def _object_violation(
    value: dict[str, Any], schema: dict[str, Any], definitions: dict[str, Any], path: str
) -> str:
    for name in schema.get("required", ()):
        if name not in value:
            return f"{path} lacks {name!r}"
    properties = schema.get("properties", {})
    for name, item in value.items():
        if name in properties:
            problem = _violation(item, properties[name], definitions, f"{path}/{name}")
            if problem:
                return problem
        elif schema.get("additionalProperties") is False:
            return f"{path} has {name!r}, which is no property"
    return ""


def _has_type(value: Any, name: str) -> bool:
    if name in ("integer", "number"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return name == "number" or float(value).is_integer()
    return isinstance(value, _TYPES.get(name, ()))


def _equal(value: Any, other: Any) -> bool:
    """As in JSON, where true is not 1."""
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)
