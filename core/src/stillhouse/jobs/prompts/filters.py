"""What templates do with values: the operations, methods and filters that Jinja2 leaves without a bound.

Whatever makes a text or a list of another size than its operands is asked first how large the result would
be. The filters that would write Python's own notation are here as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any

from jinja2 import Environment, pass_environment
from jinja2.filters import FILTERS, make_attrgetter

from stillhouse.jobs.prompts.values import BoundError, as_json, check_size, text_of

__all__ = ["OWN_FILTERS", "SIZED_METHODS", "check_format", "check_operation", "sized_method"]

MAX_BITS = 100_000
"""How long a whole number may be."""

MAX_INDENT = 16
"""By how many spaces `tojson` may indent."""

MAX_PARTS = 10_000
"""Into how many parts `batch` and `slice` may put a list."""

SIZED_METHODS = {
    "center", "expandtabs", "join", "ljust", "replace", "rjust", "to_bytes", "translate", "zfill",
}  # fmt: skip
"""Methods of texts and numbers that may make something large of something small."""

# A width or a precision that makes a text of another size, also one that is given beside the format.
_WIDE = re.compile(r"\d{6}|%[^a-zA-Z%]*\*|:[^{}]*\{")


def check_format(text: str) -> None:
    """Refuse a format with a width that is too large, or that stands beside it.

    Raises:
        BoundError: it has one.
    """
    if _WIDE.search(text):
        raise BoundError("the template formats with a width that is too large, or is not a number")


def check_operation(operator: str, left: Any, right: Any) -> None:
    """Refuse an operation whose result would be too large."""
    sized = (str, bytes, list, tuple)
    if operator == "+":
        if isinstance(left, sized) and isinstance(right, sized):
            check_size(len(left) + len(right))
    elif operator == "%":
        if isinstance(left, (str, bytes)):
            check_format(str(left))
    elif isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
        if bits > MAX_BITS:
            raise BoundError("the template makes a number that is too large")
    elif operator == "*":
        for value, times in ((left, right), (right, left)):
            if isinstance(value, sized) and isinstance(times, int):
                check_size(len(value) * times)


def sized_method(
    owner: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], method: Callable[..., Any]
) -> Any:
    """Call a method of a text or a number that may make something large of something small."""
    if name in ("translate", "to_bytes"):
        raise BoundError(f"a template may not call {name}")
    given = [*args, *kwargs.values()]
    if name == "join" and given:
        given[0] = _joinable(given[0], len(owner))
        return method(*given)
    if name == "replace" and len(args) > 1:
        check_size(len(owner) + owner.count(args[0]) * max(0, len(args[1]) - len(args[0])))
    elif name == "expandtabs" and given:
        check_size(len(owner) * given[0])
    elif given:
        check_size(given[0])
    return method(*args, **kwargs)


def _joinable(values: Iterable[Any], between: int) -> list[Any]:
    """Return texts as a list, unless they are too long together."""
    found, size = [], 0
    for value in values:
        found.append(value)
        size += between + (len(value) if isinstance(value, (str, bytes)) else 0)
        check_size(size)
    return found


# The filters that make a text or a list of another size than their operands, and those that would write
# Python's own notation.


def _center(value: Any, width: int = 80) -> str:
    check_size(width)
    return text_of(value).center(width)


def _concatenated(value: Any, *others: Any) -> str:
    """`~`."""
    return "".join(_joinable([text_of(item) for item in (value, *others)], 0))


def _format(value: Any, *args: Any, **kwargs: Any) -> str:
    text = text_of(value)
    check_format(text)
    return text % (kwargs or args)


def _from_json(value: Any) -> Any:
    """Read a text of JSON."""
    try:
        return json.loads(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"fromjson: it is not JSON: {error}") from None


def _indent(value: Any, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    text = text_of(value)
    check_size(width)
    space = width if isinstance(width, str) else " " * width
    check_size(len(text) + len(space) * (text.count("\n") + 1))
    lines = [space + line if line or blank else line for line in text.split("\n")]
    return "\n".join(lines) if first else "\n".join([text.split("\n")[0], *lines[1:]])


@pass_environment
def _join(environment: Environment, value: Iterable[Any], d: Any = "", attribute: Any = None) -> str:
    if attribute is not None:
        value = map(make_attrgetter(environment, attribute), value)
    texts = [text_of(item) for item in value]
    return str(d).join(_joinable(texts, len(str(d))))


def _replace(value: Any, old: str, new: str, count: int | None = None) -> str:
    text, old, new = text_of(value), str(old), str(new)
    check_size(len(text) + text.count(old) * max(0, len(new) - len(old)))
    return text.replace(old, new, -1 if count is None else count)


@pass_environment
def _sum(environment: Environment, values: Iterable[Any], attribute: Any = None, start: Any = 0) -> Any:
    if not isinstance(start, (int, float)):
        raise BoundError("a template may only sum numbers")
    return sum(values if attribute is None else map(make_attrgetter(environment, attribute), values), start)


def _to_json(value: Any, indent: int | None = None) -> str:
    if indent is not None and indent > MAX_INDENT:
        raise BoundError(f"tojson indents by {MAX_INDENT} at most")
    return as_json(value, indent)


@pass_environment
def _wordwrap(environment: Environment, value: Any, width: int = 79, *args: Any, **kwargs: Any) -> str:
    text = text_of(value)
    for given in [*args, *kwargs.values()]:
        if isinstance(given, str):  # what is between two lines
            check_size(len(text) * len(given))
    return str(FILTERS["wordwrap"](environment, text, width, *args, **kwargs))


def _in_parts(name: str) -> Callable[..., Any]:
    def parts(value: Any, number: int, fill_with: Any = None) -> Any:
        if number > MAX_PARTS:
            raise BoundError(f"{name} makes {MAX_PARTS:,} parts at most")
        return FILTERS[name](value, number, fill_with)

    return parts


OWN_FILTERS: dict[str, Callable[..., Any]] = {
    "batch": _in_parts("batch"),
    "center": _center,
    "concatenated": _concatenated,
    "format": _format,
    "fromjson": _from_json,
    "indent": _indent,
    "join": _join,
    "replace": _replace,
    "slice": _in_parts("slice"),
    "string": lambda value: text_of(value),
    "sum": _sum,
    "tojson": _to_json,
    "pprint": lambda value: as_json(value, 2),
    "wordwrap": _wordwrap,
}
