"""From a structured output to the API's response format."""

from __future__ import annotations

from typing import Any

from stillhouse import StructuredOutput, UnsupportedError
from stillhouse.structured import check_schema

__all__ = ["KEYWORDS", "response_format_of", "strict"]

KEYWORDS = frozenset(
    {
        "$ref", "additionalProperties", "anyOf", "const", "enum", "exclusiveMaximum", "exclusiveMinimum",
        "format", "items", "maxItems", "maximum", "minItems", "minimum", "multipleOf", "pattern",
        "properties", "required", "type",
    }
)  # fmt: skip
"""The keywords that strict mode keeps to; see
https://platform.openai.com/docs/guides/structured-outputs#supported-schemas."""


def response_format_of(structured_output: StructuredOutput | Any | None, llm: str) -> dict[str, Any] | None:
    """The response format for a structured output, or `None` for none.

    Raises:
        UnsupportedError: the API cannot hold an answer to it exactly; it says which keyword.
    """
    if structured_output is None:
        return None
    if structured_output["format"] != "json":
        raise UnsupportedError(
            f"{llm} has no structured output of the format {structured_output['format']}",
            hint="ask for JSON, with an enum for a choice or a pattern for a regex",
        )
    schema = structured_output["schema"]
    check_schema(schema, KEYWORDS, llm)
    name = "".join(item if item.isalnum() else "_" for item in str(schema.get("title") or "answer"))[:64]
    return {
        "type": "json_schema",
        "json_schema": {"name": name, "schema": strict(schema, llm), "strict": True},
    }


def strict(schema: Any, llm: str, path: str = "#") -> Any:
    """A schema as strict mode takes it: no object has other properties than those named, all required.

    It is narrower than the one given, so that every answer also validates against that.

    Raises:
        UnsupportedError: an object takes properties that are not named, which strict mode cannot give.
    """
    if isinstance(schema, list):
        return [strict(item, llm, f"{path}/{position}") for position, item in enumerate(schema)]
    if not isinstance(schema, dict):
        return schema
    narrow: dict[str, Any] = {}
    for key, value in schema.items():
        here = f"{path}/{key}"
        if key in ("properties", "$defs", "definitions"):
            narrow[key] = {name: strict(item, llm, f"{here}/{name}") for name, item in value.items()}
        elif key in ("enum", "const", "required", "default", "examples"):
            narrow[key] = value
        else:
            narrow[key] = strict(value, llm, here)
    if "properties" in schema or schema.get("type") == "object":
        if schema.get("additionalProperties") not in (None, False):
            raise UnsupportedError(
                f"{llm} cannot honour additionalProperties at {path} of the JSON schema",
                hint="name the properties, or use a list of pairs",
            )
        narrow["additionalProperties"] = False
        narrow["required"] = list(schema.get("properties", ()))
    return narrow
