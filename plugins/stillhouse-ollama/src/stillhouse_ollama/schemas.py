"""Which JSON schemas the API holds an answer to.

It makes a grammar of the schema. What the grammar has no rule for is left out without a word, or stands for
nothing beside something else; such a schema is refused.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from stillhouse import StructuredOutput
from stillhouse.structured import SchemaRewriter, json_schema_of

__all__ = ["format_of"]

_BOUNDS = ("maximum", "minimum", "exclusiveMaximum", "exclusiveMinimum")
_UNSUPPORTED_PATTERN = re.compile(r"\(\?[=!<P]|\\[1-9bBAZ]")


def format_of(structured_output: StructuredOutput, llm: str) -> dict[str, Any]:
    """The `format` for a structured output.

    Raises:
        UnsupportedError: the grammar would not hold an answer to it; it says which keyword, and where.
    """
    return _Grammar(json_schema_of(structured_output, llm), llm).run()


class _Grammar(SchemaRewriter):
    """See https://github.com/ggml-org/llama.cpp/tree/master/grammars#json-schemas--gbnf."""

    keywords: ClassVar[frozenset[str]] = frozenset(
        {
            "$ref", "additionalProperties", "allOf", "anyOf", "const", "enum", "exclusiveMaximum",
            "exclusiveMinimum", "format", "items", "maxItems", "maxLength", "maximum", "minItems",
            "minLength", "minimum", "oneOf", "pattern", "properties", "required", "type",
        }
    )  # fmt: skip
    formats: ClassVar[frozenset[str]] = frozenset({"date", "date-time", "time", "uuid"})
    # Beside one of these, every other keyword but the type is left out.
    alone: ClassVar[tuple[str, ...]] = ("anyOf", "const", "enum")

    def keyword(self, key: str, schema: dict[str, Any], made: dict[str, Any], path: str) -> None:
        value = schema[key]
        if key in _BOUNDS and schema.get("type") not in ("integer", ["integer"]):
            why, hint = "it holds for integers only", "use the type integer, or check it yourself"
            raise self.refusal(key, path, why, hint)
        if key == "pattern":
            if not (value.startswith("^") and value.endswith("$")):
                why, hint = "it must be of the whole text", "begin it with ^ and end it with $"
                raise self.refusal(key, path, why, hint)
            if _UNSUPPORTED_PATTERN.search(value):
                why = "it has a lookaround, a reference back or a word boundary"
                raise self.refusal(key, path, why, "write it without")
        if key in ("format", "maxLength", "minLength") and "pattern" in schema:
            raise self.refusal(key, path, "pattern stands beside it", "write it into the pattern")
        super().keyword(key, schema, made, path)

    def finish(self, schema: dict[str, Any], made: dict[str, Any], path: str) -> None:
        super().finish(schema, made, path)
        unnamed = [name for name in schema.get("required", ()) if name not in schema.get("properties", ())]
        if unnamed:
            raise self.refusal("required", path, f"{unnamed[0]!r} is no property", "add it to properties")

    def recursion(self, reference: str, path: str) -> None:
        """A rule of a grammar may have itself in it."""
