"""`RunInput`: the input of a run, read again for its prompts, which the run's state does not have.

The names of the input are those that the latest session recorded. Only files on this machine are read. A row
that has another digest than the run's row was changed, and is not shown as what was asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from stillhouse._wording import number_of
from stillhouse.errors import GenerationError, StillhouseError
from stillhouse.jobs.formats.reading import Reading
from stillhouse.jobs.formats.rows import RowFormatter
from stillhouse.jobs.prompts.batch_requests import BatchContents
from stillhouse.jobs.runs.provenance import Provenance
from stillhouse.jobs.sources.files import is_glob, local_path
from stillhouse.jobs.sources.names import Names, is_address, shown
from stillhouse.jobs.sources.opening import open_input
from stillhouse.protocols import HookCalls, Row
from stillhouse.typing import FormattedInput

__all__ = ["Asked", "RunInput", "formatter_of", "place_of"]

_ERRORS = (StillhouseError, OSError, ValueError, ArithmeticError, LookupError, TypeError, RecursionError)


class Asked(NamedTuple):
    """A row of the input.

    Attributes:
        row: the row.
        input: what was asked, or why it was not asked.
        used: the columns that the input was made of.
    """

    row: Row
    input: FormattedInput | GenerationError
    used: tuple[str, ...]


class RunInput:
    """The input of a run, as the run's state names it.

    Args:
        command: the command of the run, as its state has it; `None` where damage has taken it.
        provenance: what its latest session ran with; `None` where the state does not have it.
        hooks: the installed plugins, which may open files.
        folder: the folder of the output, where a file is looked for that was moved together with it.

    Attributes:
        note: why the prompts, or some of them, cannot be shown; empty as long as they can.
    """

    def __init__(
        self,
        command: Mapping[str, Any] | None,
        provenance: Provenance | None,
        hooks: HookCalls | None = None,
        folder: Path | None = None,
    ) -> None:
        self.note = ""
        self._command = command or {}
        self._hooks = hooks
        self._names = self._found(provenance, folder)

    def rows(self) -> Iterator[Row]:
        """Yield the rows of the input in their order; none if it cannot be read, which `note` says."""
        if self._names is None:
            return
        try:
            reading = Reading.of(self._command.get("delimiter"), self._command.get("encoding"))
            with contextlib.closing(open_input(self._names, self._hooks, reading)) as reader:
                yield from reader
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
        for row in self.rows():
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
            rows = changed + missing
            self.note = (
                f"the input was changed since the run: {rows:,} of {number_of(len(digests), 'row')} shown "
                f"here {'is' if rows == 1 else 'are'} without a prompt"
            )
        return found

    def _found(self, provenance: Provenance | None, folder: Path | None) -> Names | None:
        """Return the names of the input, if they are of files that are there."""
        if provenance is None:
            self.note = "the state of this run does not say where its input is"
            return None
        if not provenance.input:
            self.note = "the input was no file, so that the prompts cannot be read again"
            return None
        names = []
        for name in provenance.input:
            place = None if is_address(name) and not name.startswith("file://") else place_of(name, folder)
            if place is None:
                self.note = (
                    f"the input {Path(name).name} is not on this machine any more"
                    if Path(name).is_absolute()
                    else f"the input {shown(name)} is not a file on this machine"
                )
                return None
            names.append(place)
        return Names(names)

    def _asked(self, row: Row, formatter: RowFormatter) -> Asked:
        try:
            return Asked(row, formatter.prompt(row), formatter.used(row.columns))
        except _ERRORS as error:  # whatever is in one row, the others are shown
            return Asked(row, GenerationError(str(error), kind="invalid_input"), ())


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


def place_of(name: str, folder: Path | None) -> str | None:
    """Return where a named file, folder or glob is now, or `None`."""
    with contextlib.suppress(OSError, ValueError, StillhouseError):
        path = local_path(name)
        if Path(path).exists() or is_glob(path):
            return name
        moved = None if folder is None else folder / Path(path).name
        if moved is not None and moved.exists():
            return str(moved)
    return None
