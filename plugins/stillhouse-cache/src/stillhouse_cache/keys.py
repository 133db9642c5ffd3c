"""The key under which an output is stored: a digest of everything that shapes it."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from stillhouse import StructuredOutput, digest, normalize_structured_output, shaping_fields
from stillhouse.errors import ConfigurationError
from stillhouse.inputs import split_input
from stillhouse_cache.identity import identity
from stillhouse_cache.plain import plain

if TYPE_CHECKING:
    from stillhouse import LLM, FormattedInput

__all__ = ["CallKey"]

# Raised when a key is made of other things, so that nothing kept under an old one is found.
_FORMAT = 1

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class CallKey:
    """The part of the key that all inputs of a call share, made once; `of` adds an input.

    Args:
        llm: the LLM, as it is when the call begins.
        shared: the digest of what all inputs share.
    """

    def __init__(self, llm: LLM, shared: str) -> None:
        self._prefix = hashlib.sha256(shared.encode("ascii"))
        self._fields = shaping_fields(llm)
        self._values = self._read(llm)

    @classmethod
    def make(cls, llm: LLM, arguments: Mapping[str, Any], num_generations: int) -> CallKey:
        """The key of a call.

        Raises:
            ConfigurationError: a field or an argument holds an object of which no stable digest
                can be made.
        """
        given = {name: plain(value, f"the argument {name}", _no_llm) for name, value in arguments.items()}
        return cls(llm, digest(_FORMAT, identity(llm), given, num_generations))

    def of(self, llm: LLM, input: FormattedInput) -> bytes | None:
        """Return the key of an input's output, 32 bytes; `None` if the input has no digest.

        It is `None` also after a setting was assigned during the call: the settings with which an input
        is generated are then no longer known.
        """
        if self._has_changed(llm):
            return None
        chat, structured_output = split_input(input)
        try:
            text = _encode(chat)
            if structured_output is not None:
                text = f"{text}\n{_encode(_form(structured_output))}"
        except (TypeError, ValueError, RecursionError):
            return None
        whole = self._prefix.copy()
        whole.update(text.encode("ascii"))
        return whole.digest()

    def unless_changed(self, llm: LLM, key: bytes) -> bytes | None:
        """Return a key that `of` gave earlier, or `None` if a setting was assigned since."""
        return None if self._has_changed(llm) else key

    def _read(self, llm: LLM) -> tuple[Any, ...]:
        return tuple(map(llm.__dict__.get, self._fields))

    def _has_changed(self, llm: LLM) -> bool:
        try:
            return self._read(llm) != self._values
        except Exception:  # two values that cannot be compared are not the same object
            return True


def _form(structured_output: StructuredOutput) -> Any:
    """A structured output in its one shape, whichever way it was written."""
    given = dict(structured_output)
    schema = given.get("schema")
    if inspect.isclass(schema) and issubclass(schema, BaseModel):
        given["schema"] = _schema_of(schema)
    return plain(normalize_structured_output(given), "structured_output", _no_llm)


@functools.lru_cache(maxsize=64)
def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _no_llm(llm: LLM) -> Any:
    raise ConfigurationError(
        f"an argument holds a {type(llm).__name__}, for which no stable digest can be computed",
        hint="give the LLM as a field",
    )
