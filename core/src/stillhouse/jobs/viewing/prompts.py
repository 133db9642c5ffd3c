"""The prompt of a row, as text, from the columns of the input and the command that the state has."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.inputs import split_input
from stillhouse.jobs.formats.rows import Row, RowFormatter
from stillhouse.jobs.formats.writers import to_json
from stillhouse.jobs.reporting.chats import without_data
from stillhouse.jobs.runs.prompted import formatter_of

__all__ = ["Message", "Prompts", "text_of_value"]


class Message(NamedTuple):
    """A part of a prompt.

    Attributes:
        role: who says it; `prompt` for a raw prompt.
        text: what is said; the bytes of images are cut short.
    """

    role: str
    text: str


class Prompts:
    """Makes the prompts of rows as the run did.

    Args:
        command: the command of the run, as its state has it.
    """

    def __init__(self, command: Mapping[str, Any] | None) -> None:
        self._is_known = False
        self._formatter: RowFormatter | None = None
        with contextlib.suppress(ConfigurationError, TypeError):  # of another version, or damaged
            self._formatter = formatter_of(command or {})

    def messages(self, row: Row) -> tuple[list[Message], str | None]:
        """Return the prompt of a row, and why there is none."""
        if self._formatter is None:
            return [], "the state does not say how the prompts were made"
        if row.error is not None:
            return [], row.error.message
        try:
            if not self._is_known:
                self._formatter.recognise(row)
                self._is_known = True
            input = self._formatter.prompt(row)
        except Exception as error:  # a template runs on whatever is in the row
            return [], f"{type(error).__name__}: {error}"
        if isinstance(input, GenerationError):
            return [], input.message
        content = split_input(input)[0]
        return ([Message("prompt", content)] if isinstance(content, str) else _chat(content)), None

    def text(self, row: Row) -> str:
        """Return the prompt of a row as one text, to search in it."""
        return "\n".join(message.text for message in self.messages(row)[0])


def _chat(messages: Any) -> list[Message]:
    found = []
    for message in messages:
        if not isinstance(message, Mapping):
            found.append(Message("message", text_of_value(message)))
            continue
        content = message.get("content")
        parts = content if isinstance(content, list) else [content]
        texts = [_text(part) for part in parts if part is not None]
        texts += [
            f"{name}: {text_of_value(value)}"
            for name, value in message.items()
            if name not in ("role", "content") and value is not None
        ]
        found.append(Message(str(message.get("role", "message")), without_data("\n".join(texts))))
    return found


def _text(part: Any) -> str:
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    return text_of_value(part)


def text_of_value(value: Any) -> str:
    """Return a value as text: a text as it is, a number with all its digits, anything else as JSON.

    So nothing is rounded by a reader for which every number is a float of 64 bits.
    """
    if isinstance(value, str):
        return value
    try:
        return to_json(value)
    except (ValueError, RecursionError):
        return f"<{type(value).__name__}>"
