"""The check of an answer against its structured output, the same for every backend.

JSON schemas need the extra `stillhouse[schema]`, which is imported when the first schema is there.
"""

from __future__ import annotations

import importlib
import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from stillhouse._wording import install_command
from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.structured.schema import is_too_deep
from stillhouse.typing import StructuredOutput

__all__ = ["AnswerForm", "answer_problem", "value_problem"]

# An answer with one of these finish reasons has no text to check.
_DECLINED = frozenset({"content_filter", "function_call", "refusal", "tool_calls"})
_CUT_OFF = frozenset({"length", "pause_turn"})

MAX_PROBLEMS = 3
MAX_PROBLEM_LENGTH = 300


@dataclass(frozen=True)
class AnswerForm:
    """The form that an answer must have.

    Attributes:
        format: `json`, `regex` or `choice`.
        problem: says what is wrong with an answer, or an empty string.
    """

    format: str
    problem: Callable[[str], str]

    def check(self, text: str | None, finish_reason: str | None) -> None:
        """Check an answer against the form. An answer that was declined or only calls tools has no text.

        Raises:
            GenerationError: it is `truncated`, or violates the form (`schema`).
        """
        if text is None and finish_reason in _DECLINED:
            return
        problem = self.problem(text or "")
        if not problem:
            return
        if finish_reason in _CUT_OFF:
            raise GenerationError(
                f"the answer was cut off before it had the form asked for ({self.format})",
                kind="truncated",
                hint="raise max_new_tokens; a model that reasons needs more than its answer has",
            )
        raise GenerationError(
            f"the answer does not match the requested {self.format}: {problem if text else 'it is empty'}",
            kind="schema",
            hint="check that the model can keep to the form; simplify the schema; do not end it with stop",
        )


def answer_problem(structured_output: StructuredOutput) -> Callable[[str], str]:
    """Return a function that describes what is wrong with an answer; an empty string if nothing is.

    Args:
        structured_output: the form, in its one shape (see `normalize_structured_output`).

    Raises:
        ConfigurationError: the JSON schema is not valid itself, or the extra is missing.
    """
    kind, schema = structured_output["format"], structured_output["schema"]
    if kind == "json":
        return _json_problem(schema)
    if kind == "regex":
        compiled = re.compile(schema)
        return lambda text: "" if compiled.fullmatch(text) else "the pattern does not match"
    choices = frozenset(schema)
    return lambda text: "" if text in choices else "it is not one of the choices"


def _json_problem(schema: dict[str, Any]) -> Callable[[str], str]:
    of_value = value_problem(schema)

    def problem(text: str) -> str:
        try:
            value = json.loads(text, parse_constant=_no_json)
        except (ValueError, RecursionError) as error:
            return f"it is not JSON: {error}"
        return of_value(value)

    return problem


def _no_json(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def value_problem(schema: dict[str, Any]) -> Callable[[Any], str]:
    """Return a function that says why a value violates a schema; an empty string if it does not.

    References to other documents are not followed, and `format` is checked where it is known.

    Raises:
        ConfigurationError: the schema is not valid itself, or the extra `stillhouse[schema]` is missing.
    """
    validators, errors = _import("jsonschema.validators"), _import("jsonschema.exceptions")
    dialect = validators.validator_for(schema, default=validators.Draft202012Validator)
    try:
        if is_too_deep(schema):
            raise RecursionError
        dialect.check_schema(schema)
    except errors.SchemaError as error:
        where = "/".join(["#", *(str(part) for part in error.absolute_path)])
        raise ConfigurationError(
            f"the JSON schema is not valid at {where}: {error.message.partition(chr(10))[0]}",
            hint="correct the schema",
        ) from None
    except RecursionError:
        raise ConfigurationError(
            "the JSON schema is nested too deeply", hint="move parts of it into $defs"
        ) from None

    def multiple_of(validator: Any, factor: Any, instance: Any, _: Any) -> Any:
        """In decimals: in binary fractions, 0.3 is no multiple of 0.1."""
        if validator.is_type(instance, "number"):
            try:
                whole = Decimal(repr(instance)) % Decimal(repr(factor)) == 0
            except InvalidOperation:
                whole = True  # beyond the digits that can be distinguished
            if not whole:
                yield errors.ValidationError(f"{instance!r} is not a multiple of {factor!r}")

    exact = validators.extend(dialect, {"multipleOf": multiple_of})
    # A registry of its own keeps a reference to another document from being fetched.
    registry = _import("referencing").Registry()
    validator = exact(schema, registry=registry, format_checker=dialect.FORMAT_CHECKER)

    def problem(value: Any) -> str:
        try:
            found = list(itertools.islice(validator.iter_errors(value), MAX_PROBLEMS))
        except Exception as error:  # a reference that leads nowhere, a pattern that is not Python's
            return f"the schema cannot be applied: {type(error).__name__}: {error}"
        return "; ".join(f"{_shortened(error.message)} at {error.json_path}" for error in found)

    return problem


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_PROBLEM_LENGTH else f"{text[:MAX_PROBLEM_LENGTH]} …"


def _import(name: str) -> Any:
    # Not an import statement: its types are in a package of their own.
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigurationError(
            "a JSON schema is checked with jsonschema, which is not installed",
            hint=install_command("stillhouse[schema]"),
        ) from None
