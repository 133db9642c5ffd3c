"""From a structured output to the API's `responseJsonSchema`.

The API takes any JSON schema, and keeps to a part of it: other keywords are ignored without an error. They
are refused here, or rewritten where another keyword says exactly the same.
"""

from __future__ import annotations

from typing import Any, ClassVar

from stillhouse import StructuredOutput
from stillhouse.structured import SchemaRewriter, json_schema_of

__all__ = ["generation_config_of", "kept"]


def generation_config_of(structured_output: StructuredOutput, llm: str) -> dict[str, Any]:
    """Return the fields of `generationConfig` for a structured output.

    Raises:
        UnsupportedError: the API cannot hold an answer to it exactly; it says which keyword.
    """
    hint = 'ask for JSON; a choice is {"type": "string", "enum": […]}, whose answer is in quotes'
    schema = json_schema_of(structured_output, llm, hint)
    return {"responseMimeType": "application/json", "responseJsonSchema": kept(schema, llm)}


def kept(schema: dict[str, Any], llm: str) -> dict[str, Any]:
    """Return a schema in which the API keeps to every keyword, and which means the same.

    Raises:
        UnsupportedError: there is none.
    """
    return _Rewriting(schema, llm).run()


class _Rewriting(SchemaRewriter):
    """See https://ai.google.dev/api/generate-content#FIELDS.response_json_schema and
    https://ai.google.dev/gemini-api/docs/structured-output#json_schema_support."""

    keywords: ClassVar[frozenset[str]] = frozenset(
        {
            "$ref", "additionalProperties", "allOf", "anyOf", "const", "enum", "exclusiveMaximum",
            "exclusiveMinimum", "format", "items", "maxItems", "maximum", "minItems", "minimum", "oneOf",
            "prefixItems", "properties", "required", "type",
        }
    )  # fmt: skip
    formats: ClassVar[frozenset[str]] = frozenset({"date", "date-time", "time"})

    def __init__(self, schema: dict[str, Any], llm: str) -> None:
        super().__init__(schema, llm)
        self._options = 0  # how many properties that may be left out lead to where we are

    def keyword(self, key: str, schema: dict[str, Any], made: dict[str, Any], path: str) -> None:
        if key == "properties":
            made[key] = self._properties(schema, f"{path}/{key}")
        elif key in ("enum", "const"):
            self._enum(key, schema, made, path)
        elif key in ("exclusiveMinimum", "exclusiveMaximum"):
            self._exclusive(key, schema, made, path)
        elif key not in made or key == "anyOf":  # a bound, or a type, may be written already
            super().keyword(key, schema, made, path)

    def is_bound(self) -> bool:
        return not self._options

    def recursion(self, reference: str, path: str) -> None:
        raise self.refusal(
            "$ref",
            path,
            "it leads back to itself, and through required properties alone",
            "make one of the properties on the way one that may be left out",
        )

    def _properties(self, schema: dict[str, Any], here: str) -> dict[str, Any]:
        required, made = frozenset(schema.get("required", ())), {}
        for name, item in schema["properties"].items():
            optional = int(name not in required)
            self._options += optional
            made[name] = self.schema(item, f"{here}/{name}")
            self._options -= optional
        return made

    def _enum(self, key: str, schema: dict[str, Any], made: dict[str, Any], path: str) -> None:
        """The API knows an `enum` of texts or of numbers; a constant is one with one item."""
        values = [schema[key]] if key == "const" else schema[key]
        if key == "const" and schema[key] is None:
            made["type"] = "null"
            return
        if not values:
            raise self.refusal(key, path, "it is empty", "name the values")
        if not (all(isinstance(item, str) for item in values) or all(map(_is_number, values))):
            raise self.refusal(
                key, path, "it has something else than texts, or than numbers", "use anyOf, or a type"
            )
        if "enum" in made:
            raise self.refusal(key, path, "enum stands beside it", "keep one of them")
        made["enum"] = values
        if "type" not in schema:
            is_text, is_whole = isinstance(values[0], str), all(isinstance(item, int) for item in values)
            made["type"] = "string" if is_text else "integer" if is_whole else "number"

    def _exclusive(self, key: str, schema: dict[str, Any], made: dict[str, Any], path: str) -> None:
        """Rewrite a bound that is not included itself, which has a neighbour among the whole numbers."""
        value, name = schema[key], "minimum" if key == "exclusiveMinimum" else "maximum"
        if schema.get("type") != "integer" or value % 1 != 0:
            raise self.refusal(key, path, "only whole numbers have such a bound", f"use {name}")
        bound = int(value) + (1 if name == "minimum" else -1)
        given = schema.get(name, bound)
        made[name] = max(bound, given) if name == "minimum" else min(bound, given)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
