"""The values of a row in a template: what null and what is missing are there, and the text of all others.

A text is itself. What a file has as JSON is written as JSON, never in Python's notation: lists, objects, true
and false. Bytes are base64, and whatever else has a text, such as a number or a date, is that text.
"""

from __future__ import annotations

import base64
import datetime
import json
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from jinja2 import StrictUndefined
from jinja2.runtime import Undefined
from jinja2.utils import missing

from stillhouse.jobs.prompts.words import kind_of

__all__ = ["BoundError", "Missing", "Null", "as_json", "check_size", "text_of"]

MAX_CHARACTERS = 10_000_000
"""How long a text may be that a template makes, and how many items a list may have."""


# How many characters a value counts that is no text; so half a million of them is the most.
_VALUE = 20


class BoundError(ValueError):
    """A template takes or makes more than it may."""


class Null(StrictUndefined):
    """The value null of a column or a field: false, no value for `default`, and no text."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        return f"its {self._undefined_name} is null"

    def __bool__(self) -> bool:  # type: ignore[override]
        return False

    def __eq__(self, other: object) -> bool:  # type: ignore[override]
        return other is None or isinstance(other, Null)

    def __ne__(self, other: object) -> bool:  # type: ignore[override]
        return not self == other

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(None)


class Missing(StrictUndefined):
    """A column or a field that the row does not have."""

    __slots__ = ()

    @property
    def _undefined_message(self) -> str:
        if self._undefined_hint:
            return str(self._undefined_hint)
        if self._undefined_obj is missing:
            return f"the row has no {self._undefined_name}"
        return f"{kind_of(self._undefined_obj)} of the row has no {self._undefined_name}"


def check_size(size: Any) -> None:
    """Refuse a size, of characters or items, that is too large; what is no number is nobody's size.

    Raises:
        BoundError: it is too large.
    """
    if isinstance(size, (int, float)) and size > MAX_CHARACTERS:
        raise BoundError(f"the template makes more than {MAX_CHARACTERS:,} characters")


def text_of(value: Any) -> str:
    """Return the text of a value.

    Raises:
        ValueError: it has none: it is null, or a part of the template such as a function; or its JSON is too
            long.
        UndefinedError: the row does not have it.
    """
    if isinstance(value, str):
        return value
    if value is None:
        raise ValueError("a value that it writes is null")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float, Undefined)):
        return str(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (Mapping, Sequence, Set)):
        return as_json(value)
    text = str(value)
    if callable(value) or isinstance(value, Iterator) or (text.startswith("<") and text.endswith(">")):
        hint = "; add | list" if isinstance(value, Iterator) else ""
        raise ValueError(
            f"a value that it writes is of the type {type(value).__name__}, which has no text{hint}"
        )
    return text


def as_json(value: Any, indent: int | None = None) -> str:
    """Return JSON that a person can read, in the letters of its texts.

    Raises:
        BoundError: it is too long.
    """
    text = json.dumps(_Plain()(value), ensure_ascii=False, indent=indent)
    check_size(len(text))
    return text


class _Plain:
    """Turns values into those that JSON has, and counts them: a list may hold another one many times."""

    def __init__(self) -> None:
        self._size = 0

    def __call__(self, value: Any) -> Any:
        kind = type(value)
        self._size += len(value) if kind is str else _VALUE
        if self._size > MAX_CHARACTERS:
            check_size(self._size)
        if value is None or kind in (str, int, bool):
            return value
        if kind is dict:
            return {self._key(key): self(item) for key, item in value.items()}
        if kind is list:
            return [self(item) for item in value]
        if isinstance(value, Null):
            return None
        if isinstance(value, (str, int)):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, Mapping):
            return {self._key(key): self(item) for key, item in value.items()}
        if isinstance(value, (datetime.date, datetime.time)):
            return value.isoformat()
        if isinstance(value, (Sequence, Set, Iterator)) and not isinstance(value, bytes):
            return [self(item) for item in value]
        return text_of(value)

    def _key(self, key: Any) -> str:
        text = key if isinstance(key, str) else text_of(key)
        self._size += len(text)
        return text
