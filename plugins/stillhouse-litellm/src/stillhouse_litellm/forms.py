"""The form of an answer, as `response_format` demands it."""

from __future__ import annotations

import functools
from typing import Any

import orjson

from stillhouse import ConfigurationError, UnsupportedError
from stillhouse.http import RequestForm
from stillhouse.structured import answer_problem, json_schema_of, normalize_structured_output
from stillhouse_openai.schemas import response_format

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
    schema = json_schema_of(wanted, "LiteLLM")
    if wanted.get("mode"):
        raise UnsupportedError(
            "LiteLLM does not support structured output with a mode",
            hint="remove mode from structured_output",
        )
    return RequestForm("json", answer_problem(wanted), response_format(schema, "LiteLLM"), wanted)
