"""`Environment`: Jinja2 for templates that may come from another person, which read a row and nothing more.

A template gets nothing but the columns, reads no file, and is bounded: in the text that it makes, in the
steps of its loops and calls, and in the time that it takes. Whatever makes a text or a list of another size
than its operands is asked first how large the result would be.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

from jinja2 import pass_environment
from jinja2.environment import Template
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

from stillhouse.jobs.prompts.values import (
    MAX_CHARACTERS,
    BoundError,
    Missing,
    Null,
    as_json,
    check_size,
    text_of,
)
from stillhouse.jobs.prompts.words import kind_of

__all__ = ["ROW", "Environment"]

MAX_STEPS = 100_000
"""How often a template may call something or begin the body of a loop, for one row."""

MAX_SECONDS = 5.0
"""How long the processor may work on one row."""

MAX_MADE = 10 * MAX_CHARACTERS
"""How many characters and items a template may make for one row, those included that it makes others of."""

MAX_BITS = 100_000
"""How long a whole number may be."""

ROW = "row"
"""The name of all columns together, unless a column has it."""

MAX_INDENT = 16
"""By how many spaces `tojson` may indent."""

MAX_PARTS = 10_000
"""Into how many parts `batch` and `slice` may put a list."""

# Steps between two looks at the clock.
_STEPS_A_LOOK = 128

# A width or a precision that makes a text of another size, also one that is given beside the format.
_WIDE = re.compile(r"\d{6}|%[^a-zA-Z%]*\*|:[^{}]*\{")

_METHODS = {"center", "expandtabs", "join", "ljust", "replace", "rjust", "to_bytes", "translate", "zfill"}


class _Context(Context):
    """Looks a name up among the columns, which are not copied."""

    def resolve_or_missing(self, key: str) -> Any:
        if key in self.vars:
            return self.vars[key]
        columns = self.parent
        if key in columns:
            value = columns[key]
            return Null(name=key) if value is None else value
        return columns if key == ROW else self.environment.globals.get(key, missing)


class Environment(ImmutableSandboxedEnvironment):
    """The templates of a command; one renders at a time."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    context_class = _Context

    def __init__(self) -> None:
        super().__init__(
            undefined=Missing,
            keep_trailing_newline=True,
            autoescape=False,  # a prompt is not HTML
            finalize=self._text,
        )
        self._steps = self._made = 0
        self._ends = 0.0
        # The same row has the same prompt in every process.
        del self.globals["lipsum"], self.filters["random"]
        self.filters = {name: self._counted(filter) for name, filter in {**self.filters, **_FILTERS}.items()}
        self.tests["none"] = lambda value: value is None or isinstance(value, Null)

    def fill(self, template: Template, columns: dict[str, Any]) -> str:
        """Return what a template makes of columns.

        Raises:
            Exception: whatever a template does with a row's values; `BoundError` where it would be too much.
        """
        self._steps = self._made = 0
        # Not by the clock on the wall: another program may have the processor, or the machine sleep.
        self._ends = time.thread_time() + MAX_SECONDS
        context = template.new_context(columns, shared=True)
        return self.concat(template.root_render_func(context))

    def concat(self, pieces: Iterable[str]) -> str:
        size = 0
        kept = []
        for piece in pieces:
            size += len(piece)
            if size > MAX_CHARACTERS:
                check_size(size)
            kept.append(piece)
        return "".join(kept)

    def step(self) -> None:
        """Count a step; called at the beginning of the body of a loop."""

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise BoundError(f"the template takes more than {MAX_STEPS:,} steps")
        if not self._steps % _STEPS_A_LOOK and time.thread_time() > self._ends:
            raise BoundError(f"the template takes longer than {MAX_SECONDS:.0f} seconds")
        if obj == self.step:
            return ""
        name = getattr(obj, "__name__", None)
        if name in _METHODS and isinstance(getattr(obj, "__self__", None), (str, bytes, int)):
            return self._take(_method(obj.__self__, name, args, kwargs, obj))
        return self._take(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _check_operation(operator, left, right)
        return self._take(super().call_binop(context, operator, left, right))

    def getitem(self, obj: Any, argument: Any) -> Any:
        value = super().getitem(obj, argument)
        if type(argument) is slice:
            return self._take(value)
        return Null(name=str(argument)) if value is None else value

    def getattr(self, obj: Any, attribute: str) -> Any:
        # A field comes before a method of the same name, such as `items`.
        if isinstance(obj, dict) and attribute in obj:
            value = obj[attribute]
        else:
            value = super().getattr(obj, attribute)
        return Null(name=attribute) if value is None else value

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        formatted = super().wrap_str_format(value)
        if formatted is not None and _WIDE.search(value.__self__):
            raise BoundError("the template formats with a width that is too large, or is not a number")
        return formatted

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        return self.undefined(
            f"a template may not read {attribute} of {kind_of(obj)}", name=attribute, obj=obj
        )

    def _text(self, value: Any) -> str:
        """Return the text of what stands in `{{ }}`."""
        text = value if type(value) is str else text_of(value)
        self._made += len(text)
        if self._made > MAX_MADE:
            self._take("")
        return text

    def _take(self, value: Any) -> Any:
        """Return a value that the template made, and count what is in it.

        Raises:
            BoundError: it has made too much.
        """
        if isinstance(value, (str, bytes, list, tuple)):
            self._made += len(value)
            if self._made > MAX_MADE:
                raise BoundError(f"the template makes texts of more than {MAX_MADE:,} characters on its way")
        return value

    def _counted(self, filter: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(filter)
        def counted(*args: Any, **kwargs: Any) -> Any:
            return self._take(filter(*args, **kwargs))

        return counted


def _check_operation(operator: str, left: Any, right: Any) -> None:
    """Refuse an operation whose result would be too large."""
    sized = (str, bytes, list, tuple)
    if operator == "+":
        if isinstance(left, sized) and isinstance(right, sized):
            check_size(len(left) + len(right))
    elif operator == "%":
        if isinstance(left, (str, bytes)) and _WIDE.search(str(left)):
            raise BoundError("the template formats with a width that is too large, or is not a number")
    elif isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
        if bits > MAX_BITS:
            raise BoundError("the template makes a number that is too large")
    elif operator == "*":
        for value, times in ((left, right), (right, left)):
            if isinstance(value, sized) and isinstance(times, int):
                check_size(len(value) * times)


def _method(
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
    _check_operation("%", text, None)
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


_FILTERS: dict[str, Callable[..., Any]] = {
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
