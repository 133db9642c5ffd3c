"""Settings and arguments as plain JSON values, for a digest: complete, stable, and without secrets."""

from __future__ import annotations

import enum
import inspect
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic_core import PydanticSerializationError, to_jsonable_python

from stillhouse import LLM, is_secret
from stillhouse.errors import ConfigurationError

__all__ = ["plain"]


def plain(value: Any, where: str, of_llm: Callable[[LLM], Any]) -> Any:
    """`value` as JSON types; equal values give equal results in every process.

    A secret stands there as `None`.

    Args:
        value: a setting or an argument.
        where: what it is, for the error.
        of_llm: what stands for an LLM inside it.

    Raises:
        ConfigurationError: it holds an object that says nothing of what is in it.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, (SecretStr, SecretBytes)):
        return None
    if isinstance(value, LLM):
        return of_llm(value)
    if isinstance(value, BaseModel):
        items = {name: getattr(value, name) for name in type(value).model_fields}
        items.update(value.model_extra or {})
        return {"class": type(value).__qualname__, "fields": plain(items, where, of_llm)}
    if inspect.isclass(value) and issubclass(value, BaseModel):
        return value.model_json_schema()
    if isinstance(value, Mapping):
        return {
            str(key): plain(item, f"{where}.{key}", of_llm)
            for key, item in value.items()
            if not is_secret(str(key), item)
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        ordered = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return [plain(item, f"{where}[{position}]", of_llm) for position, item in enumerate(ordered)]
    if isinstance(value, enum.Enum):
        return plain(value.value, where, of_llm)
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": value.hex()}
    if isinstance(value, re.Pattern):
        return {"pattern": plain(value.pattern, where, of_llm), "flags": value.flags}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    try:
        return to_jsonable_python(value)
    except (PydanticSerializationError, TypeError, ValueError):
        raise ConfigurationError(
            f"{where} holds a {type(value).__name__}, for which no stable digest can be computed",
            hint="use plain values instead if outputs must be stored",
        ) from None
