"""Forms: what makes a server answer in a form, and what holds the answer to it."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stillhouse import ConfigurationError, GenerationError

__all__ = ["Form", "choice_problem", "json_problem", "regex_problem"]


@dataclass(frozen=True)
class Form:
    """The form that an answer must have.

    Attributes:
        format: `json`, `regex` or `choice`.
        fields: the fields of the request that ask for it.
        problem: says what is wrong with an answer, or an empty string.
    """

    format: str
    fields: dict[str, Any]
    problem: Callable[[str], str]

    def check(self, text: str | None, finish_reason: str | None) -> None:
        """Hold an answer to the form. One without text (declined, or a tool call) has none to be held to.

        Raises:
            GenerationError: it is `truncated`, or violates the form (`schema`).
        """
        if text is None and finish_reason != "length":
            return
        problem = self.problem(text or "")
        if not problem:
            return
        if finish_reason == "length":
            raise GenerationError(
                f"the answer was cut off before it had the form asked for ({self.format})",
                kind="truncated",
                hint="raise max_new_tokens; a model that reasons needs more than its answer has",
            )
        raise GenerationError(
            f"the answer has not the form asked for ({self.format}): {problem}",
            kind="schema",
            hint="check that the model supports structured output; simplify the schema; do not use stop",
        )


def regex_problem(pattern: str) -> Callable[[str], str]:
    """What is wrong with a text that the pattern must match as a whole."""
    compiled = re.compile(pattern)
    return lambda text: "" if compiled.fullmatch(text) else "the pattern does not match"


def choice_problem(choices: list[str]) -> Callable[[str], str]:
    """What is wrong with a text that must be one of these."""
    known = frozenset(choices)
    return lambda text: "" if text in known else "it is none of the choices"


def json_problem(schema: dict[str, Any]) -> Callable[[str], str]:
    """What is wrong with a text that must be JSON and validate against a schema.

    Raises:
        ConfigurationError: the schema is not valid itself.
    """
    # Imported when the first schema is there: it takes longer than this whole package.
    validators: Any = importlib.import_module("jsonschema.validators")
    registry: Any = importlib.import_module("referencing").Registry()
    dialect = validators.validator_for(schema, default=validators.Draft202012Validator)
    try:
        dialect.check_schema(schema)
    except importlib.import_module("jsonschema.exceptions").SchemaError as error:
        where = "/".join(["#", *(str(part) for part in error.absolute_path)])
        raise ConfigurationError(
            f"the JSON schema is not valid at {where}: {error.message.partition(chr(10))[0]}",
            hint="correct the schema",
        ) from None
    # A registry of its own keeps a reference to another document from being fetched.
    validator = dialect(schema, registry=registry, format_checker=dialect.FORMAT_CHECKER)

    def problem(text: str) -> str:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            return f"it is not JSON: {error}"
        try:
            violation = next(validator.iter_errors(value), None)
        except Exception as error:  # a reference that leads nowhere, a pattern that is not Python's
            return f"the schema cannot be applied: {type(error).__name__}: {error}"
        return "" if violation is None else f"{violation.message} at {violation.json_path}"

    return problem
