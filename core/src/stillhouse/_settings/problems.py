"""`problem_of`: why a value does not fit its type, in plain words instead of pydantic's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["problem_of"]

_NUMBER, _WHOLE = "must be a number", "must be a whole number"

_PROBLEMS = {
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be a text",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "greater_than_equal": "must be {ge} or more",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be less than {lt}",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
}


def problem_of(item: Mapping[str, Any]) -> str:
    """Return what an error of pydantic says, in plain words where there are some, and without the value.

    Args:
        item: one of `ValidationError.errors()`, with its context.
    """
    message: str = item["msg"]
    words = _PROBLEMS.get(item["type"])
    if words is None:
        return message.removeprefix("Value error, ")
    context = {
        name: f"{value:g}" if isinstance(value, float) else value
        for name, value in item.get("ctx", {}).items()
    }
    try:
        return words.format_map(context)
    except (KeyError, ValueError):  # a newer version of pydantic calls it something else
        return message
