"""`ValueType`: values of a declared type, from texts and from what other files hold."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from stillhouse._settings.describe import type_name
from stillhouse._settings.problems import problem_of

__all__ = ["ValueType"]


class ValueType:
    """A declared type.

    Args:
        annotation: the annotation of a field or of a generation parameter.

    Attributes:
        name: the type, for people.
    """

    def __init__(self, annotation: Any) -> None:
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(
                annotation, config=ConfigDict(arbitrary_types_allowed=True, hide_input_in_errors=True)
            )
        except PydanticUserError:  # the annotation is a model with its own settings
            self._adapter = TypeAdapter(annotation)
        self.name = type_name(annotation)

    def of_text(self, text: str) -> Any:
        """Convert a text: unchanged where a text is valid, else as JSON.

        A text that looks like a JSON list, object or string is read as one first, so that a parameter that
        takes a text or a list of texts accepts either.

        Raises:
            ValueError: it is none of this type; the message says why.
        """
        attempts = [self._adapter.validate_python, self._adapter.validate_json]
        if text[:1] in ("[", "{", '"') or text == "null":
            attempts.reverse()
        problem = ""
        for attempt in attempts:
            try:
                return attempt(text)
            except ValidationError as error:
                problem = problem or _problem(error)
        raise ValueError(problem)

    def of_value(self, value: Any) -> Any:
        """Convert a value of any type.

        Raises:
            ValueError: it is none of this type; the message says why.
        """
        if isinstance(value, str):
            return self.of_text(value)
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            raise ValueError(_problem(error)) from None


def _problem(error: ValidationError) -> str:
    return problem_of(error.errors(include_url=False, include_input=False)[0])
