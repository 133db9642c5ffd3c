"""The form of an answer, as `response_format` demands it."""

from __future__ import annotations

import functools
from typing import Any

import orjson

from stillhouse import ConfigurationError, UnsupportedError
from stillhouse.http import RequestForm
from stillhouse.structured import answer_problem, normalize_structured_output
from stillhouse_openai.schemas import strict

__all__ = ["form_of"]


def form_of(structured_output: Any) -> RequestForm:
    """Return the form for a structured output, in any of its shapes.

    Raises:
        ConfigurationError: it has another shape, or the schema is not valid.
        UnsupportedError: it is no JSON schema, or strict mode cannot hold an answer to it.
    """
    try:
        key = orjson.dumps(normalize_structured_output(structured_output))
    except TypeError as error:
        raise ConfigurationError(f"the schema is not JSON: {error}") from None
    return _form(key)


@functools.lru_cache(maxsize=256)
def _form(key: bytes) -> RequestForm:
    wanted = orjson.loads(key)
    if wanted["format"] != "json":
        raise UnsupportedError(
            f"LiteLLM has no structured output of the format {wanted['format']}",
            hint="ask for JSON: an object with a property that has an enum for choices, or a pattern",
        )
    if wanted.get("mode"):
        raise UnsupportedError(
            "LiteLLM has no structured output with a mode", hint="remove mode from structured_output"
        )
    title = str(wanted["schema"].get("title") or "answer")
    name = "".join(item if item.isascii() and item.isalnum() else "_" for item in title)[:64]
    schema = {"name": name, "schema": strict(wanted["schema"], "LiteLLM"), "strict": True}
    fields = {"response_format": {"type": "json_schema", "json_schema": schema}}
    return RequestForm("json", answer_problem(wanted), fields, wanted)
