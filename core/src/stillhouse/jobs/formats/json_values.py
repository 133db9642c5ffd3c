"""`JsonValues`: decodes the values of rows, also what JSON has no value for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

__all__ = ["MAX_ROW_BYTES", "JsonValues", "kind_of_value"]

MAX_ROW_BYTES = 64 << 20
"""The longest row that is read. A longer one would be none that a model can take, and fill the memory."""

_WHAT_IS_KEPT = {
    "NaN": "NaN is not a JSON value: it is kept as NaN, which JSONL writes as null",
    "Infinity": "Infinity is not a JSON value: it is kept as an infinite number, which JSONL writes as null",
    "large": "{text} is larger than any 64-bit number: it is kept as infinite, which JSONL writes as null",
    "long": "a whole number has more digits than Python reads: it is kept as a text",
}


class JsonValues:
    """Decodes JSON as Python's library does. NaN, infinite numbers and those that are too long are kept.

    Attributes:
        odd: what was kept so since this was cleared; empty if nothing was. It is a clause for a message.
        decode: decodes a text; raises `JSONDecodeError`, `RecursionError` if it is nested too deeply, or
            another `ValueError` for a number that has more digits than Python reads.
        decode_all: decodes a text with such a number, too.
        raw_decode: decodes the value that begins at a position of a text, and returns it with its end.
    """

    def __init__(self) -> None:
        self.odd = ""
        decoder = json.JSONDecoder(parse_constant=self._constant, parse_float=self._float)
        lenient = json.JSONDecoder(
            parse_constant=self._constant, parse_float=self._float, parse_int=self._whole
        )
        self.decode: Callable[[str], Any] = decoder.decode
        self.decode_all: Callable[[str], Any] = lenient.decode
        self.raw_decode: Callable[[str, int], Any] = _either(decoder.raw_decode, lenient.raw_decode)

    def _constant(self, name: str) -> float:
        self.odd = _WHAT_IS_KEPT[name.lstrip("-")].replace("Infinity", name)
        return float(name)

    def _float(self, text: str) -> float:
        value = float(text)
        if value - value:  # NaN: it is infinite
            self.odd = _WHAT_IS_KEPT["large"].format(text=text[:40])
        return value

    def _whole(self, text: str) -> int | str:
        try:
            return int(text)
        except ValueError:
            self.odd = _WHAT_IS_KEPT["long"]
            return text


def _either(first: Callable[..., Any], second: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that tries another one where a number has more digits than Python reads."""

    def decode(*arguments: Any) -> Any:
        try:
            return first(*arguments)
        except json.JSONDecodeError:
            raise
        except ValueError:
            return second(*arguments)

    return decode


def kind_of_value(value: Any) -> str:
    """Return what a value is that should be an object, for a message."""
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
