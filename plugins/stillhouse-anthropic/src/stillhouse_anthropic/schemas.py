"""From a structured output to the API's output format."""

from __future__ import annotations

from typing import Any

from stillhouse import StructuredOutput, UnsupportedError
from stillhouse.structured import closed_schema

__all__ = ["output_format_of"]


def output_format_of(structured_output: StructuredOutput, llm: str) -> dict[str, Any]:
    """The `output_config.format` for a structured output.

    Raises:
        UnsupportedError: the API cannot hold an answer to it exactly; it says which keyword.
    """
    if structured_output["format"] != "json":
        raise UnsupportedError(
            f"{llm} has no structured output of the format {structured_output['format']}",
            hint="ask for JSON, with an enum for a choice or a pattern for a regex",
        )
    return {"type": "json_schema", "schema": closed_schema(structured_output["schema"], llm)}
