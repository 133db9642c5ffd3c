"""`RunInput`: what a run asked, read again, since the run's state does not have it.

It is read where `source_of` found it. A row that has another digest than the run's row was changed, and is
not shown as what was asked.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from stillhouse._wording import number_of
from stillhouse.errors import GenerationError, StillhouseError
from stillhouse.jobs.formats.rows import RowFormatter
from stillhouse.jobs.prompts.batch_requests import BatchContents
from stillhouse.jobs.runs.sources import RunSource
from stillhouse.protocols import Row
from stillhouse.typing import FormattedInput

__all__ = ["Asked", "RunInput", "formatter_of"]

_ERRORS = (StillhouseError, OSError, ValueError, ArithmeticError, LookupError, TypeError, RecursionError)


class Asked(NamedTuple):
    """A row of the input.

    Attributes:
        row: the row.
        input: what was asked, or why it was not asked.
        used: the columns that the input was made of.
        place: where it is in the input; empty where that is not known.
    """

    row: Row
    input: FormattedInput | GenerationError
    used: tuple[str, ...]
    place: str


class RunInput:
    """The rows that a run read, from its input or from its output.

    Args:
        command: the command of the run, as its state has it; `None` where damage has taken it.
        source: where the rows are.
        connection: the state.

    Attributes:
        note: why the prompts, or some of them, cannot be shown; empty as long as they can.
    """

    def __init__(
        self, command: Mapping[str, Any] | None, source: RunSource, connection: sqlite3.Connection
    ) -> None:
        self.note = source.missing
        self._command = command or {}
        self._source = source
        self._connection = connection

    def rows(self) -> Iterator[Row]:
        """Yield the rows of the input in their order; none if it cannot be read, which `note` says."""
        if self._source.open is None:
            return
        try:
            with contextlib.closing(self._source.open()) as reader:
                yield from self._of_output(reader) if self._source.is_output else reader
        except _ERRORS as error:
            self.note = f"the input cannot be read: {error}"

    def asked(self, digests: Mapping[int, int]) -> dict[int, Asked]:
        """Return what was asked in some rows, by their index, in one pass over the input.

        Args:
            digests: the index of each row, and its digest when it was sent. Rows that were changed since are
                left out, and `note` says so.
        """
        found: dict[int, Asked] = {}
        if not digests:
            return found
        last, changed, formatter = max(digests), 0, None
        try:
            formatter = formatter_of(self._command)
        except _ERRORS as error:
            self.note = f"the prompts cannot be made again: {error}"
            return found
        is_first = True
        with contextlib.closing(self.rows()) as rows:  # type: ignore[type-var]
            for row in rows:
                if is_first and row.error is None:
                    formatter.recognise(row)
                    is_first = False
                if row.index in digests:
                    if row.digest == digests[row.index]:
                        found[row.index] = self._asked(row, formatter)
                    else:
                        changed += 1
                if row.index >= last:
                    break
        missing = len(digests) - len(found) - changed
        if not self.note and (changed or missing):
            rows_ = changed + missing
            self.note = (
                f"the input was changed since the run: {rows_:,} of {number_of(len(digests), 'row')} shown "
                f"here {'is' if rows_ == 1 else 'are'} without a prompt"
            )
        return found

    def _of_output(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Yield the rows of the output as those of the input that they were: the state has their numbers."""
        left_out = self._source.left_out
        known = self._connection.execute("SELECT row, digest FROM rows ORDER BY row")
        for row, (index, digest) in zip(rows, known, strict=False):
            columns = {name: value for name, value in row.columns.items() if name not in left_out}
            yield replace(row, index=index, digest=digest, columns=columns)

    def _asked(self, row: Row, formatter: RowFormatter) -> Asked:
        place = "" if self._source.is_output else row.place
        try:
            return Asked(row, formatter.prompt(row), formatter.used(row.columns), place)
        except _ERRORS as error:  # whatever is in one row, the others are shown
            return Asked(row, GenerationError(str(error), kind="invalid_input"), (), place)


def formatter_of(command: Mapping[str, Any]) -> RowFormatter:
    """Return what makes the inputs of rows as a run did, but for parameters and images.

    Args:
        command: the command of the run, as its state has it.

    Raises:
        ConfigurationError: its template is not one of this version.
    """
    return RowFormatter(
        command.get("template"),
        command.get("system"),
        bool(command.get("raw")),
        prompt_column=command.get("prompt_column"),
        messages_column=command.get("messages_column"),
        drop_last_assistant=bool(command.get("drop_last_assistant")),
        requests=BatchContents(),
    )
