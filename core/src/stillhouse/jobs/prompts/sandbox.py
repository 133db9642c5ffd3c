"""`Environment`: Jinja2 for templates that may come from another person, which read a row and nothing more.

A template gets nothing but the columns, reads no file, and is bounded: in the text that it makes, in the
steps of its loops and calls, and in the time that it takes.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from typing import Any

from jinja2.environment import Template
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

from stillhouse.jobs.prompts.filters import (
    OWN_FILTERS,
    SIZED_METHODS,
    check_format,
    check_operation,
    sized_method,
)
from stillhouse.jobs.prompts.values import (
    MAX_CHARACTERS,
    BoundError,
    Missing,
    Null,
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

ROW = "row"
"""The name of all columns together, unless a column has it."""

# Steps between two looks at the clock.
_STEPS_A_LOOK = 128


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
        self.filters = {
            name: self._counted(filter) for name, filter in {**self.filters, **OWN_FILTERS}.items()
        }
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
        if name in SIZED_METHODS and isinstance(getattr(obj, "__self__", None), (str, bytes, int)):
            return self._take(sized_method(obj.__self__, name, args, kwargs, obj))
        return self._take(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        check_operation(operator, left, right)
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
        if formatted is not None:
            check_format(value.__self__)
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
