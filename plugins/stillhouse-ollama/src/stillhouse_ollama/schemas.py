"""Which JSON schemas the API holds an answer to.

It makes a grammar of the schema. What the grammar has no rule for is left out without a word, or stands for
nothing beside something else; such a schema is refused.
"""

from __future__ import annotations

import re
from typing import Any

from stillhouse import StructuredOutput, UnsupportedError
from stillhouse.structured import check_schema, subschemas

__all__ = ["FORMATS", "KEYWORDS", "format_of"]

KEYWORDS = frozenset(
    {
        "$ref", "additionalProperties", "anyOf", "const", "enum", "exclusiveMaximum", "exclusiveMinimum",
        "format", "items", "maxItems", "maxLength", "maximum", "minItems", "minLength", "minimum", "pattern",
        "properties", "required", "type",
    }
)  # fmt: skip
"""The keywords that the grammar has rules for, some of them in part; see
https://github.com/ggml-org/llama.cpp/tree/master/grammars#json-schemas--gbnf."""

FORMATS = frozenset({"date", "date-time", "time", "uuid"})

_BOUNDS = ("maximum", "minimum", "exclusiveMaximum", "exclusiveMinimum")
_ALONE = ("$ref", "anyOf", "const", "enum")
"""Beside one of these, every other keyword but the type is left out."""

_UNSUPPORTED_PATTERN = re.compile(r"\(\?[=!<P]|\\[1-9bBAZ]")


def format_of(structured_output: StructuredOutput, llm: str) -> dict[str, Any]:
    """The `format` for a structured output.

    Raises:
        UnsupportedError: the grammar would not hold an answer to it; it says which keyword, and where.
    """
    if structured_output["format"] != "json":
        raise UnsupportedError(
            f"{llm} has no structured output of the format {structured_output['format']}",
            hint="ask for JSON: an object with a property that has an enum for choices, or a pattern",
        )
    schema: dict[str, Any] = structured_output["schema"]
    check_schema(schema, KEYWORDS, llm)
    for path, inner in subschemas(schema):
        for key, why, hint in _problems(inner):
            raise UnsupportedError(
                f"{llm} cannot honour the keyword {key!r} at {path} of the JSON schema: {why}", hint=hint
            )
    return schema


def _problems(schema: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What the grammar leaves out of a schema: the keyword, why, and what to do."""
    asked = schema.keys() & KEYWORDS
    found = []
    for key in _ALONE:
        beside = sorted(asked - {key, "type"})
        if key in asked and beside:
            found.append((beside[0], f"{key} stands beside it", "write it in one place"))
    types = schema.get("type")
    for key in _BOUNDS:
        if key in asked and types not in ("integer", ["integer"]):
            found.append((key, "it holds for integers only", "use the type integer, or check it yourself"))
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        if not (pattern.startswith("^") and pattern.endswith("$")):
            found.append(("pattern", "it must be of the whole text", "begin it with ^ and end it with $"))
        if _UNSUPPORTED_PATTERN.search(pattern):
            why = "it has a lookaround, a reference back or a word boundary"
            found.append(("pattern", why, "write it without"))
        for key in ("format", "maxLength", "minLength"):
            if key in asked:
                found.append((key, "pattern stands beside it", "write it into the pattern"))
    if "format" in asked and schema["format"] not in FORMATS:
        found.append(("format", f"{schema['format']!r} is none that is kept to", "use a pattern"))
    unnamed = [name for name in schema.get("required") or () if name not in (schema.get("properties") or ())]
    if unnamed:
        found.append(("required", f"{unnamed[0]!r} is no property", "add it to properties"))
    return found
