"""`RowParameters`: what a row asks for itself: generation parameters, tools and a structured output."""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Iterable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from stillhouse.errors import ConfigurationError
from stillhouse.inputs import split_input
from stillhouse.jobs.prompts.chats import without_unions
from stillhouse.protocols import InputWithArguments, Row
from stillhouse.structured.shape import normalize_structured_output
from stillhouse.typing import FormattedInput

if TYPE_CHECKING:
    from stillhouse._settings.values import ValueType
    from stillhouse.llm import LLM

__all__ = ["STRUCTURED_OUTPUT", "RowParameters", "is_given", "parameter_names"]

STRUCTURED_OUTPUT = "structured_output"
TOOLS = "tools"

MAX_REMEMBERED = 1024
"""How many different values are remembered: beyond them, one that comes again is checked again."""

# Texts that are longer count by their digest.
_LONG = 64


def parameter_names(llm: type[LLM]) -> frozenset[str]:
    """Return the names of the columns from which parameters are taken for this class of LLMs."""
    return frozenset({*llm.generation_parameters().parameters, TOOLS, STRUCTURED_OUTPUT})


def is_given(value: Any) -> bool:
    """Whether a row gives a parameter: null and an empty text leave it to the run."""
    return value is not None and not (isinstance(value, str) and not value)


class RowParameters:
    """Takes parameters from rows, each checked as `--param` checks it; equal values are checked once.

    Args:
        llm: the class of the LLM.
    """

    def __init__(self, llm: type[LLM]) -> None:
        declared = llm.generation_parameters()
        self._annotations = {name: declared.annotations.get(name, Any) for name in declared.parameters}
        self._llm = llm.__name__
        self._names = parameter_names(llm)
        self._types: dict[str, ValueType] = {}
        self._known: dict[Hashable, Any] = {}

    def names_in(self, columns: Iterable[str]) -> list[str]:
        """Return those of the columns from which parameters are taken."""
        return [name for name in columns if name in self._names]

    def of_row(self, row: Row, input: FormattedInput) -> FormattedInput | InputWithArguments:
        """Return the input of a row with what its columns of these names say.

        Raises:
            ValueError: a value is none of its type, or the LLM has no such parameter.
        """
        names = self._names
        given = {name: value for name, value in row.columns.items() if name in names and is_given(value)}
        if row.typed:
            given = {name: without_unions(value) for name, value in given.items()}
        return self.applied(input, given) if given else input

    def applied(
        self, input: FormattedInput, given: Mapping[str, Any], told: Mapping[str, str] | None = None
    ) -> FormattedInput | InputWithArguments:
        """Return an input with parameters of its own.

        Args:
            input: the input.
            given: the values, of any types, by the names of the parameters.
            told: what an error calls them, where that is not the column of the same name.

        Raises:
            ValueError: a value is none of its type, or the LLM has no such parameter.
        """
        arguments: dict[str, Any] = {}
        parts: list[Hashable] = []
        for name in sorted(given):
            value = given[name]
            part = (name, *_identity(value))
            typed = self._known.get(part)
            if typed is None:
                where = f"the column {name}" if told is None or name not in told else told[name]
                typed = self._typed(name, value, where)
                self._known[part] = typed
                if len(self._known) > MAX_REMEMBERED:
                    del self._known[next(iter(self._known))]
            if typed is None:  # the text null
                continue
            if name == STRUCTURED_OUTPUT:
                input = _with_form(input, typed)
            else:
                arguments[name] = typed
                parts.append(part)
        return InputWithArguments(input, arguments, tuple(parts)) if arguments else input

    def _typed(self, name: str, value: Any, where: str) -> Any:
        if name == STRUCTURED_OUTPUT:
            return _form(value, where)
        if name not in self._annotations:
            raise ValueError(f"{where}: {self._llm} takes no {name}")
        declared = self._types.get(name)
        if declared is None:
            from stillhouse._settings.values import ValueType

            declared = self._types[name] = ValueType(self._annotations[name])
        try:
            typed = declared.of_value(value)
        except RecursionError:
            raise ValueError(f"{where} is nested too deeply") from None
        except ValueError as error:
            raise ValueError(f"{where} is no value of the type {declared.name}: {error}") from None
        if (isinstance(value, bool) and not isinstance(typed, bool)) or _is_no_number(typed):
            raise ValueError(f"{where} is {json.dumps(value)}, and no value of the type {declared.name}")
        return typed


def _identity(value: Any) -> tuple[Hashable, ...]:
    """Return what is equal for equal values of one type, and short."""
    if isinstance(value, (bool, int, float)):
        return type(value).__name__, value
    if isinstance(value, str):
        kind, text = "str", value
    else:
        kind = type(value).__name__
        try:
            text = json.dumps(value, sort_keys=True, default=repr)
        except (TypeError, ValueError):  # keys of several types
            text = repr(value)
        except RecursionError:
            raise ValueError("a parameter of the row is nested too deeply") from None
    if len(text) > _LONG:
        return kind, blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return kind, text


def _is_no_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _form(value: Any, where: str) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError(f"{where} is a text that is not valid JSON") from None
    try:
        return normalize_structured_output(value)
    except ConfigurationError as error:
        raise ValueError(f"{where}: {error.message}; {error.hint}") from None


def _with_form(input: FormattedInput, form: Any) -> FormattedInput:
    content, _ = split_input(input)
    if isinstance(content, str):
        raise ValueError("a raw prompt has no structured output of its own; leave out --raw")
    return content, form
