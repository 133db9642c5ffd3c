"""From a structured output to the API's output format."""

from __future__ import annotations

from typing import Any

from stillhouse import StructuredOutput
from stillhouse.structured import closed_schema, json_schema_of

__all__ = ["output_format_of"]


def output_format_of(structured_output: StructuredOutput, llm: str) -> dict[str, Any]:
    """The `output_config.format` for a structured output.

    Raises:
        UnsupportedError: the API cannot hold an answer to it exactly; it says which keyword.
    """
    hint = "ask for JSON, with an enum for a choice or a pattern for a regex"
    return {"type": "json_schema", "schema": closed_schema(json_schema_of(structured_output, llm, hint), llm)}
