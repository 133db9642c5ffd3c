"""Which forms a TGI server holds an answer to."""

from __future__ import annotations

from typing import Any, ClassVar

from stillhouse import StructuredOutput
from stillhouse.structured import SchemaRewriter, json_schema_of

__all__ = ["grammar_of"]


def grammar_of(structured_output: StructuredOutput, llm: str) -> dict[str, Any]:
    """The grammar of a structured output: `{"type": …, "value": …}`.

    Raises:
        UnsupportedError: the server would not hold an answer to it; it says which keyword, and where.
    """
    if structured_output["format"] == "regex":
        return {"type": "regex", "value": structured_output["schema"]}
    hint = "ask for a regex, such as (yes|no), or for JSON with an enum"
    return {"type": "json", "value": _Expression(json_schema_of(structured_output, llm, hint), llm).run()}


class _Expression(SchemaRewriter):
    """The server makes a regular expression, which cannot have itself in it; see
    https://huggingface.co/docs/text-generation-inference/conceptual/guidance."""

    keywords: ClassVar[frozenset[str]] = frozenset(
        {
            "$ref", "additionalProperties", "allOf", "anyOf", "const", "enum", "format", "items", "maxItems",
            "maxLength", "minItems", "minLength", "oneOf", "pattern", "properties", "required", "type",
        }
    )  # fmt: skip
    formats: ClassVar[frozenset[str]] = frozenset({"date", "date-time", "time", "uuid"})
    # Of one of these and another keyword beside it, one is left out.
    alone: ClassVar[tuple[str, ...]] = ("anyOf", "const", "enum")

    def keyword(self, key: str, schema: dict[str, Any], made: dict[str, Any], path: str) -> None:
        if key == "pattern" and schema.keys() & {"maxLength", "minLength"}:
            raise self.refusal(key, path, "a length stands beside it", "write it into the pattern")
        super().keyword(key, schema, made, path)
