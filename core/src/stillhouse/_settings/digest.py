"""Digests of settings and inputs: everything that an answer depends on, as one text."""

from __future__ import annotations

import hashlib
import inspect
import json
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_jsonable_python

from stillhouse.errors import ConfigurationError

__all__ = ["digest", "schema_of", "shaping_fields"]

# Fields that affect when an answer comes, its cost or its retries, and never its content. Every other
# field counts: a needless miss costs money, a false hit is a wrong answer.
_WITHOUT_EFFECT = frozenset({
    "jobs_digest",
    "jobs_ids",
    "max_answer_bytes",
    "max_concurrency",
    "max_retries",
    "offline_batch_generation_block_until_done",
    "requests_per_minute",
    "retry_timeout",
    "timeout",
    "tokens_per_minute",
    "use_offline_batch_generation",
})  # fmt: skip


def shaping_fields(llm: BaseModel) -> list[str]:
    """Return the fields of an LLM that its outputs depend on.

    `generation_kwargs` are not included: they are part of the arguments of a call.
    """
    return [
        name for name in type(llm).model_fields if name not in _WITHOUT_EFFECT and name != "generation_kwargs"
    ]


def digest(*parts: Any) -> str:
    """Compute a SHA-256 of JSON-like values, equal in every process and for every order of keys.

    Raises:
        ConfigurationError: a part has a value without a JSON type.
    """
    try:
        plain = to_jsonable_python(parts, fallback=schema_of)
    except (PydanticSerializationError, TypeError, ValueError) as error:
        raise ConfigurationError(f"no digest can be made of it: {error}") from None
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def schema_of(value: Any) -> Any:
    if inspect.isclass(value) and issubclass(value, BaseModel):
        return value.model_json_schema()
    raise TypeError(f"{type(value).__name__} is not a JSON type")
