"""`PromptError`, and how a value is named in a message."""

from __future__ import annotations

from typing import Any

from stillhouse.errors import ConfigurationError

__all__ = ["PromptError", "kind_of"]


class PromptError(ConfigurationError):
    """What a command says of the prompt does not go with the columns of its input: a wrong usage."""


def kind_of(value: Any) -> str:
    """Return what a value is, as it stands after `is`."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return "a number"
    if value == [] or value == {}:
        return "empty"
    return names.get(type(value), f"a {type(value).__name__}")
