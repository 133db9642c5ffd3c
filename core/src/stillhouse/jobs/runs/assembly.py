"""`assemble`: writes the output of a run, the rows of the input with their results, in order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import NoReturn

from stillhouse.errors import ConfigurationError, StillhouseError
from stillhouse.jobs.formats.columns import ResultColumns
from stillhouse.jobs.runs.reasons import Reasons
from stillhouse.jobs.store.columns import FinishedRow
from stillhouse.protocols import RowReader, RowWriter

__all__ = ["UnwritableError", "assemble"]


class UnwritableError(ConfigurationError):
    """The output cannot be written in its format, whatever the rows contain."""


def assemble(
    reader: RowReader,
    finished: Iterator[FinishedRow],
    writer: RowWriter,
    end: int | None = None,
    reasons: Reasons | None = None,
    columns: ResultColumns | None = None,
) -> list[int]:
    """Write the output, unless rows of the input have changed since they were generated for.

    Args:
        reader: the rows of the run.
        finished: the finished rows, in the order of the input.
        writer: writes the rows.
        end: the index after the last row of the run, if later rows of the input do not belong to it; `None`
            if all rows do.
        reasons: counts why the rows ended.
        columns: the columns that the output adds.

    Returns:
        The indexes of the rows without a result of their own, and of the results without a row; if there are
        any, nothing was written.

    Raises:
        UnwritableError: the format cannot hold the rows.
    """
    wrong: list[int] = []
    output = ResultColumns() if columns is None else columns
    result = next(finished, None)
    last = -1
    try:
        for row in reader:
            while result is not None and result.index < row.index:
                result = next(finished, None)
            last = row.index
            if result is None or result.index != row.index or result.digest != row.digest:
                wrong.append(row.index)
            elif not wrong:
                try:
                    writer.write(output.record(row, result.columns, result.finished))
                except Exception as error:
                    _refuse(error, f"the row of line {row.line}")
                if reasons is not None:
                    reasons.add(row.index, result.columns)
        if end is None or last + 1 < end:  # the input has ended: are finished rows left?
            wrong += [rest.index for rest in chain([result] if result else [], finished) if rest.index > last]
        if wrong:
            writer.abandon()
        else:
            try:
                writer.finish()
            except Exception as error:
                _refuse(error, "its columns")
    except BaseException:
        writer.abandon()
        raise
    return wrong


def _refuse(error: Exception, where: str) -> NoReturn:
    """Raise the exception of a writer; errors for the user and those of the system are not changed."""
    if isinstance(error, (StillhouseError, OSError)):
        raise error
    text = f"{type(error).__name__}: {error}".encode(errors="replace").decode()[:500]
    raise UnwritableError(
        f"the output cannot be written in its format, because of {where}: {text}"
    ) from error
