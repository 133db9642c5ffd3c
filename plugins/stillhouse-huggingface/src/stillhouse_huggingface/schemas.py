"""Which forms a TGI server holds an answer to."""

from __future__ import annotations

from typing import Any

from stillhouse import StructuredOutput, UnsupportedError
from stillhouse.structured import check_schema, subschemas

__all__ = ["FORMATS", "KEYWORDS", "grammar_of"]

KEYWORDS = frozenset(
    {
        "$ref", "additionalProperties", "anyOf", "const", "enum", "format", "items", "maxItems", "maxLength",
        "minItems", "minLength", "pattern", "properties", "required", "type",
    }
)  # fmt: skip
"""The keywords that it makes a part of its regular expression of; see
https://huggingface.co/docs/text-generation-inference/conceptual/guidance."""

FORMATS = frozenset({"date", "date-time", "time", "uuid"})

_LENGTHS = ("maxLength", "minLength")


def grammar_of(structured_output: StructuredOutput, llm: str) -> dict[str, Any]:
    """The grammar of a structured output: `{"type": …, "value": …}`.

    Raises:
        UnsupportedError: the server would not hold an answer to it; it says which keyword, and where.
    """
    kind, schema = structured_output["format"], structured_output["schema"]
    if kind == "regex":
        return {"type": "regex", "value": schema}
    if kind != "json":
        raise UnsupportedError(
            f"{llm} has no structured output of the format {kind}",
            hint="ask for a regex, such as (yes|no), or for JSON with an enum",
        )
    check_schema(schema, KEYWORDS, llm)
    for path, inner in subschemas(schema):
        why = ""
        if "format" in inner and inner["format"] not in FORMATS:
            key, why, hint = "format", f"{inner['format']!r} is none that is kept to", "use a pattern"
        elif "pattern" in inner and any(name in inner for name in _LENGTHS):
            key, why, hint = "pattern", "a length stands beside it", "write it into the pattern"
        if why:
            raise UnsupportedError(
                f"{llm} cannot honour the keyword {key!r} at {path} of the JSON schema: {why}", hint=hint
            )
    return {"type": "json", "value": schema}
