"""The prompt of a row, as text, from the columns of the input and the command that the state has."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from stillhouse.errors import ConfigurationError, GenerationError
from stillhouse.inputs import split_input
from stillhouse.jobs.formats.rows import Row, RowFormatter
from stillhouse.jobs.reporting.chats import Turn, messages_of, without_data
from stillhouse.jobs.runs.prompted import formatter_of

__all__ = ["Prompts"]


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

    def messages(self, row: Row) -> tuple[list[Turn], str | None]:
        """Return the prompt of a row, without the bytes of images, and why there is none."""
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
        turns = messages_of(split_input(input)[0])
        return [Turn(role, without_data(text)) for role, text in turns], None

    def text(self, row: Row) -> str:
        """Return the prompt of a row as one text, to search in it."""
        return "\n".join(message.text for message in self.messages(row)[0])
