"""Guides: what makes the engine answer in a form, and what holds the answer to it.

The engine compiles a grammar with LLGuidance, and *drops it without a word* when it cannot: the
answer is then free text. So there are three lines of defence. A JSON schema may use the keywords
alone that are known to be enforced; every guide is tried on the loaded engine before it is used
(`probe`); and every answer is checked (`check`).
"""

from __future__ import annotations

import functools
import importlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from stillhouse.errors import ConfigurationError, GenerationError, UnsupportedError
from stillhouse.structured import check_schema, normalize_structured_output

__all__ = ["KEYWORDS", "SENTINEL", "Guide", "guide_for"]

KEYWORDS = frozenset(
    {
        "$ref", "additionalItems", "additionalProperties", "allOf", "anyOf", "const", "enum",
        "exclusiveMaximum", "exclusiveMinimum", "format", "items", "maxItems", "maxLength",
        "maxProperties", "maximum", "minItems", "minLength", "minProperties", "minimum", "multipleOf",
        "oneOf", "pattern", "patternProperties", "prefixItems", "properties", "required", "type",
    }
)  # fmt: skip
"""The keywords of JSON Schema that the engine enforces. It ignores any that it does not know."""

SENTINEL = "QZQZ"
"""What a probe must answer with, and no model would by itself."""

_HEAD = "%llguidance {}\n"
_LLM = "LlamaCppLLM"
_ESCAPES = {"/": r"\/", "\n": r"\n", "\r": r"\r"}


@dataclass(frozen=True)
class Guide:
    """The form that an answer must have.

    Attributes:
        format: `json`, `regex` or `choice`.
        body: the form, as an expression of a grammar.
        problem: says what is wrong with an answer, or an empty string.
    """

    format: str
    body: str
    problem: Callable[[str], str]

    @property
    def grammar(self) -> str:
        """The grammar of an answer."""
        return f"{_HEAD}start: {self.body}"

    @property
    def probe(self) -> str:
        """A grammar whose answer begins with `SENTINEL`, unless the engine drops it."""
        return f'{_HEAD}start: "{SENTINEL}" answer\nanswer: {self.body}'

    def check(self, text: str, finish_reason: str | None) -> None:
        """Hold an answer to the form.

        Raises:
            GenerationError: it is `truncated`, or violates the form (`schema`).
        """
        problem = self.problem(text)
        if not problem:
            return
        if finish_reason == "length":
            raise GenerationError(
                f"the answer was cut off before it had the form asked for ({self.format})",
                kind="truncated",
                hint="raise max_new_tokens, or n_ctx if that is not set",
            )
        raise GenerationError(
            f"the answer has not the form asked for ({self.format}): {problem}",
            kind="schema",
            hint="do not end it early with stop; simplify the schema; try another seed",
        )

    def refusal(self) -> UnsupportedError:
        """The error for a guide that the engine drops."""
        hints = {
            "json": "it may have a reference that leads nowhere, a format or a pattern that is not known, "
            "bounds that exclude each other, or a oneOf with overlapping branches",
            "regex": "it has no look-around, no back-reference, no \\b and no \\Z; a whole answer is matched",
            "choice": "remove empty choices",
        }
        return UnsupportedError(
            f"{_LLM} cannot honour this structured output ({self.format}): the engine does not take it",
            hint=hints[self.format],
        )


def guide_for(structured_output: Any) -> Guide:
    """The guide for a structured output, in any of its shapes; equal ones give the same guide.

    `mode` and `max_retries`, which are for backends that ask again, mean nothing here.

    Raises:
        ConfigurationError: it has another shape, or the schema is not valid.
        UnsupportedError: the schema has a keyword that the engine does not enforce.
    """
    normal = normalize_structured_output(structured_output)
    assert normal is not None
    try:
        return _guide(normal["format"], json.dumps(normal["schema"]), normal.get("whitespace_pattern"))
    except TypeError as error:
        raise ConfigurationError(f"the schema is not JSON: {error}") from None


@functools.lru_cache(maxsize=256)
def _guide(format: str, schema: str, whitespace: str | None) -> Guide:
    content = json.loads(schema)
    if format == "json":
        return _json_guide(content, whitespace)
    if format == "regex":
        return _regex_guide(content)
    choices = frozenset(content)
    body = " | ".join(json.dumps(choice) for choice in content)
    return Guide(format, body, lambda text: "" if text in choices else "it is none of the choices")


def _regex_guide(pattern: str) -> Guide:
    compiled = re.compile(pattern)
    return Guide(
        "regex",
        f"/{_expression(pattern)}/",
        lambda text: "" if compiled.fullmatch(text) else "the pattern does not match",
    )


def _expression(pattern: str) -> str:
    """A pattern as it stands between the slashes of a grammar.

    A slash would end the expression and a line break the line. `\\d` would also take the digits of
    every other script, and a small model does write them; those of ASCII are what is meant.
    """
    in_class = False

    def rewritten(match: re.Match[str]) -> str:
        nonlocal in_class
        part = match[0]
        if part == "[":
            in_class = True
        elif part == "]":
            in_class = False
        elif part == r"\d":
            return "0-9" if in_class else "[0-9]"
        return _ESCAPES.get(part[-1], part)

    return re.sub(r"(?s)\\.|[/\n\r\[\]]", rewritten, pattern)


def _json_guide(schema: dict[str, Any], whitespace: str | None) -> Guide:
    check_schema(schema, KEYWORDS, _LLM)
    problem = _validator(schema)
    # Free white space lets a small model write nothing else until it is cut off.
    spacing = {"whitespace_flexible": False} if whitespace is None else {"whitespace_pattern": whitespace}
    return Guide("json", "%json " + json.dumps({**schema, "x-guidance": spacing}), problem)


def _validator(schema: dict[str, Any]) -> Callable[[str], str]:
    # Not an import statement: its types are in a package of their own.
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
    exact = validators.extend(dialect, {"multipleOf": _multiple_of})
    # A registry of its own keeps a reference to another document from being fetched.
    validator = exact(schema, registry=registry, format_checker=dialect.FORMAT_CHECKER)

    def problem(text: str) -> str:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            return f"it is not JSON: {error}"
        try:
            violation = next(validator.iter_errors(value), None)
        except Exception as error:  # a reference that leads nowhere, a pattern that is not Python's
            return f"the schema cannot be applied: {type(error).__name__}: {error}"
        return "" if violation is None else violation.message

    return problem


def _multiple_of(validator: Any, factor: Any, instance: Any, _: Any) -> Any:
    """`multipleOf` in decimals: in binary fractions, 0.3 is no multiple of 0.1."""
    errors: Any = importlib.import_module("jsonschema.exceptions")
    if validator.is_type(instance, "number"):
        try:
            whole = Decimal(repr(instance)) % Decimal(repr(factor)) == 0
        except InvalidOperation:
            whole = True  # beyond the digits that can be told apart
        if not whole:
            yield errors.ValidationError(f"{instance!r} is not a multiple of {factor!r}")
