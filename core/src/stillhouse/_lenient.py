"""Reading JSON that a server, or a file of one, does not write as the standard has it."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import orjson

__all__ = ["loads"]

_DEPTH = 1024
"""How deep objects and lists may lie in each other: as deep as orjson reads them."""

_DIGITS = 20
"""No more digits than this are read as a whole number, with the sign; longer ones are read as floats."""


def loads(raw: bytes | str) -> Any:
    """Read JSON, and what is meant as JSON, in time linear in its size.

    What the standard allows is read as it is. Otherwise a byte order mark is skipped and UTF-16 and
    UTF-32 are decoded; bytes that are no text, and lone surrogates, become U+FFFD; NaN, infinities and
    floats beyond the range of one become `None`; control characters in strings are kept; and a whole
    number beyond 64 bits becomes a float.

    Raises:
        ValueError: it is not JSON, or it is nested too deep.
    """
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _loads(raw)


def _loads(raw: bytes | str) -> Any:
    text = _whole(raw) if isinstance(raw, str) else raw.decode(json.detect_encoding(raw), "replace")
    try:
        value = json.loads(
            text.removeprefix("\ufeff"),
            strict=False,
            parse_int=_int,
            parse_float=_float,
            parse_constant=_nothing,
        )
    except json.JSONDecodeError as error:
        # Its own exception contains the whole document, which does not belong in a log.
        raise ValueError(f"not JSON: {error.msg}, at character {error.pos}") from None
    except RecursionError:
        _too_deep()
    return _mended(value)


def _mended(value: Any) -> Any:
    """Replace the lone surrogates in all texts, without recursion."""
    top = [value]
    todo: list[tuple[Any, int]] = [(top, 0)]
    while todo:
        holder, depth = todo.pop()
        if depth > _DEPTH:
            _too_deep()
        if isinstance(holder, dict) and any(not name.isascii() for name in holder):
            named = {_whole(name): item for name, item in holder.items()}
            holder.clear()
            holder.update(named)
        items = enumerate(holder) if isinstance(holder, list) else list(holder.items())
        for place, item in items:
            if isinstance(item, str):
                if not item.isascii():
                    holder[place] = _whole(item)
            elif isinstance(item, list | dict):
                todo.append((item, depth + 1))
    return top[0]


def _whole(text: str) -> str:
    """Replace the lone surrogates of a text; two that are a pair become their character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _int(digits: str) -> int | float | None:
    if len(digits) <= _DIGITS:
        number = int(digits)
        if -(2**63) <= number < 2**64:
            return number
    return _float(digits)


def _float(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def _nothing(_: str) -> None:
    return None


def _too_deep() -> NoReturn:
    raise ValueError("not JSON that can be read: it is nested too deep") from None
