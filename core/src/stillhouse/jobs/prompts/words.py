"""`PromptError`, and how values are named in messages."""

from __future__ import annotations

import re
from typing import Any

from stillhouse.errors import ConfigurationError

__all__ = ["PromptError", "kind_of", "not_compared"]

_COMPARED = re.compile(r"'(\S+)' not supported between instances of '([\w.]+)' and '([\w.]+)'")

_TYPES = {
    "str": "a text", "int": "a number", "float": "a number", "list": "a list", "dict": "an object",
    "bool": "true or false", "NoneType": "null",
}  # fmt: skip


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


def not_compared(problem: str) -> str | None:
    """Return what to write instead, where Python's message says that two values cannot be compared."""
    found = _COMPARED.search(problem)
    if found is None:
        return None
    sign, *types = found.groups()
    first, second = (_TYPES.get(name, f"a {name.rpartition('.')[2]}") for name in types)
    message = f"{first} and {second} cannot be compared with {sign}"
    if "a text" not in (first, second):
        return message
    number = "a number" in (first, second)
    return message + (
        "; NAME | int makes a text a number" if number else "; NAME | string makes any value a text"
    )
