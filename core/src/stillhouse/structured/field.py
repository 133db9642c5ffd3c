"""The field `structured_output` of a backend: normalised when it is set."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from stillhouse.structured.shape import normalize_structured_output

__all__ = ["StructuredOutputField", "StructuredOutputMixin"]

StructuredOutputField = Annotated[dict[str, Any] | None, BeforeValidator(normalize_structured_output)]
"""The type of the field `structured_output`: normalised when it is set."""


class StructuredOutputMixin(BaseModel):
    """The field `structured_output`, for backends that support it."""

    structured_output: StructuredOutputField = Field(
        default=None,
        description="The form of every answer: a dict with format and schema.",
    )
