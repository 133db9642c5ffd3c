"""Structured output: the one shape that it is asked for in, schemas, and the check of answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillhouse._lazy import lazy_names

if TYPE_CHECKING:
    from stillhouse.structured.answers import AnswerForm as AnswerForm
    from stillhouse.structured.answers import answer_problem as answer_problem
    from stillhouse.structured.answers import value_problem as value_problem
    from stillhouse.structured.field import StructuredOutputField as StructuredOutputField
    from stillhouse.structured.field import StructuredOutputMixin as StructuredOutputMixin
    from stillhouse.structured.narrowing import closed_schema as closed_schema
    from stillhouse.structured.rewriting import SchemaRewriter as SchemaRewriter
    from stillhouse.structured.schema import check_schema as check_schema
    from stillhouse.structured.schema import json_schema_of as json_schema_of
    from stillhouse.structured.schema import subschemas as subschemas
    from stillhouse.structured.shape import capability_of as capability_of
    from stillhouse.structured.shape import normalize_structured_output as normalize_structured_output

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "answers": ["AnswerForm", "answer_problem", "value_problem"],
        "field": ["StructuredOutputField", "StructuredOutputMixin"],
        "narrowing": ["closed_schema"],
        "rewriting": ["SchemaRewriter"],
        "schema": ["check_schema", "json_schema_of", "subschemas"],
        "shape": ["capability_of", "normalize_structured_output"],
    },
)
