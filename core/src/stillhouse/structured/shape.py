"""The normalised shape of a structured output, the same for every backend."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from stillhouse.errors import ConfigurationError, near_matches
from stillhouse.typing import Capability, StructuredOutput

__all__ = ["capability_of", "normalize_structured_output"]

_CAPABILITIES: dict[str, Capability] = {"json": "json_schema", "regex": "regex", "choice": "choice"}


def normalize_structured_output(value: Any) -> StructuredOutput | None:
    """Normalise a structured output to a dict with `format` and a plain, serialisable `schema`.

    A pydantic class or a JSON string becomes a JSON schema, a compiled pattern its source with its flags. A
    missing `format` is derived from the schema. A new dict is returned; `value` is not changed.

    Raises:
        ConfigurationError: `value` has another shape, an unknown key, or an unusable schema.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise _shape(f"structured_output is of type {type(value).__name__}")
    known = StructuredOutput.__annotations__
    for key in value:
        if key not in known:
            raise _shape(f"structured_output has an unknown key {key!r}", near_matches(str(key), known))
    if "schema" not in value:
        raise _shape("structured_output has no schema")
    given = value.get("format") or _guess_format(value["schema"])
    if not isinstance(given, str) or given not in _CAPABILITIES:
        raise _shape(f"structured_output has the unknown format {given!r}")
    retries = value.get("max_retries")
    if retries is not None and (type(retries) is not int or retries < 0):
        raise _shape(f"max_retries is {retries!r}", "give a whole number of at least 0")
    normal: dict[str, Any] = dict(value)
    normal["format"] = given
    normal["schema"] = _NORMALIZE[given](value["schema"])
    return normal  # type: ignore[return-value]


def capability_of(structured_output: Any) -> Capability:
    """Return the capability that a backend needs for this structured output."""
    if isinstance(structured_output, Mapping):
        given = structured_output.get("format")
        if isinstance(given, str) and given in _CAPABILITIES:
            return _CAPABILITIES[given]
    normal = normalize_structured_output(structured_output)
    if normal is None:
        raise _shape("structured_output is None")
    return _CAPABILITIES[normal["format"]]


def _shape(problem: str, hint: str = "") -> ConfigurationError:
    return ConfigurationError(
        problem,
        hint=hint or 'write {"format": "json", "schema": …}; the format may also be "regex" or "choice"',
    )


def _guess_format(schema: Any) -> str:
    if isinstance(schema, (list, tuple)):
        return "choice"
    if isinstance(schema, re.Pattern):
        return "regex"
    if isinstance(schema, str):
        return "json" if schema.lstrip().startswith("{") else "regex"
    return "json"


def _json_schema(schema: Any) -> dict[str, Any]:
    if isinstance(schema, type):
        # Only here: whoever reads a run needs the form of its rows, and not pydantic.
        from pydantic import BaseModel

        if issubclass(schema, BaseModel):
            return schema.model_json_schema()
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except json.JSONDecodeError as error:
            raise _shape(f"the schema is not valid JSON: {error}") from None
    if not isinstance(schema, dict):
        raise _shape(
            f"a JSON schema is a dict, a JSON string or a pydantic class, not {type(schema).__name__}"
        )
    return schema


def _pattern(schema: Any) -> str:
    pattern = _source(schema) if isinstance(schema, re.Pattern) else schema
    if not isinstance(pattern, str):
        raise _shape(f"a regex is a string, not {type(schema).__name__}")
    try:
        re.compile(pattern)
    except re.error as error:
        raise _shape(f"the regex {pattern!r} is not valid: {error}") from None
    return pattern


# Flags that can be written into a pattern. UNICODE is what a string means anyway.
_INLINE = {re.ASCII: "a", re.IGNORECASE: "i", re.MULTILINE: "m", re.DOTALL: "s", re.VERBOSE: "x"}


def _source(pattern: re.Pattern[Any]) -> Any:
    """The source of a compiled pattern, with the flags that it was compiled with in front of it."""
    source = pattern.pattern
    if not isinstance(source, str):
        return source
    # Those that stand in the pattern itself are found by compiling it again.
    flags = re.RegexFlag(pattern.flags & ~re.compile(source).flags)
    letters = "".join(letter for flag, letter in _INLINE.items() if flag & flags)
    return f"(?{letters}:{source}\n)" if "x" in letters else f"(?{letters}:{source})" if letters else source


def _choices(schema: Any) -> list[str]:
    valid = isinstance(schema, (list, tuple)) and all(isinstance(item, str) for item in schema)
    if not valid or not schema:
        raise _shape("choices are a list of at least one string")
    return list(schema)


_NORMALIZE = {"json": _json_schema, "regex": _pattern, "choice": _choices}
