"""`assemble`: the output of a run, which is the rows of the input with their results, in order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from stillhouse.jobs.runs.reasons import Reasons
from stillhouse.jobs.store.columns import FinishedRow
from stillhouse.protocols import RowReader, RowWriter

__all__ = ["assemble"]


def assemble(
    reader: RowReader,
    finished: Iterator[FinishedRow],
    writer: RowWriter,
    end: int | None = None,
    reasons: Reasons | None = None,
) -> list[int]:
    """Write the output, unless rows of the input are not those that were generated for.

    Args:
        reader: the rows of the run.
        finished: the finished rows, in the order of the input.
        writer: writes the rows.
        end: the index after that of the last row of the run, where later rows of the input do not belong to
            it; `None` if all do.
        reasons: counts why the rows ended.

    Returns:
        The indexes of the rows that have no result or that of another row, and of the results that
        have no row; where there are any, nothing was written.
    """
    wrong: list[int] = []
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
                # A column of the results replaces a column of the input that has the same name.
                writer.write({**row.columns, **result.columns})
                if reasons is not None:
                    reasons.add(row.index, result.columns)
        if end is None or last + 1 < end:  # the input has ended: are finished rows left?
            wrong += [rest.index for rest in chain([result] if result else [], finished) if rest.index > last]
        if wrong:
            writer.abandon()
        else:
            writer.finish()
    except BaseException:
        writer.abandon()
        raise
    return wrong
